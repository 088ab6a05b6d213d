"""Prints the oldest versions that setup.cfg allows, as requirements for pip.

`tensorflow>=2.19` becomes `tensorflow==2.19.*`: its newest bug-fix release. Of the
extras only what the modelling core's tests import.
"""

from __future__ import annotations

import configparser
from pathlib import Path

EXTRAS = ("video", "train", "jax", "safetensors")


def oldest(requirement: str) -> str:
    """Returns `name==bound.*` of `name>=bound`."""
    name, at_least, bound = requirement.partition(">=")
    if not at_least:
        raise ValueError(
            f"Invalid requirement. Expected name>=version. Received: {requirement!r}."
        )
    return f"{name}=={bound.partition(',')[0]}.*"


def main() -> None:
    """Prints one requirement per line."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(Path(__file__).parent.parent / "setup.cfg", "utf-8")
    lines = settings["options"]["install_requires"].splitlines()
    for extra in EXTRAS:
        lines += settings["options.extras_require"][extra].splitlines()
    for line in map(str.strip, lines):
        if line and not line.startswith(("#", "%")):
            print(oldest(line))


if __name__ == "__main__":
    main()
