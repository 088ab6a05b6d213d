"""Identity: one hash of an experiment's description, and where two of them differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# What a hash says, behind it.
MEANINGS = {
    "data.sha256": " (other faces, labels or pixels)",
    "file_sha256": " (other weights)",
}


def identity_of(description: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of plain values, whatever the order of their keys."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Returns a line for each part in which two experiments' `to_dict()` differ."""
    both = [dict(there), dict(wanted)]
    begins = [description.get("begins_with") for description in both]
    if begins[0] != begins[1] and None in begins:
        # One line, not one for each setting of what one of them begins with.
        for description, first in zip(both, begins, strict=True):
            description["begins_with"] = "nothing" if first is None else "other weights"
    flat = [flatten(description) for description in both]
    lines = []
    for key in sorted({*flat[0], *flat[1]}):
        first, second = (values.get(key, "not set") for values in flat)
        if first != second:
            if str(key).endswith(("sha256", "identity")):
                first, second = str(first)[:12], str(second)[:12]
            meaning = MEANINGS.get(key.removeprefix("begins_with."), "")
            lines.append(f"{key} is {first!r} there and {second!r} here{meaning}")
    return lines


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
