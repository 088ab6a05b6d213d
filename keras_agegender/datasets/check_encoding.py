"""Whether data has what an encoding's heads ask for: its age groups and classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_agegender.encodings.head import check_class_ids
from keras_agegender.labels import AgeGroups

# Kinds of heads that read numbers; the others read class ids.
NUMBER_KINDS = ("regression", "years")

if TYPE_CHECKING:
    import pandas as pd

    from keras_agegender.encodings.encoding import Encoding


def check_encoding(
    encoding: Encoding,
    age_groups: AgeGroups,
    extra_heads: Mapping[str, Mapping[str, Any]],
    where: str,
) -> None:
    """Raises ValueError unless data has what an encoding's heads ask for.

    Args:
        encoding: Its age groups must be the data's, and a head must have the classes,
            in their order, of the column that it is read from.
        age_groups: What the data's age-group ids stand for.
        extra_heads: Extra column -> `{"kind": …, "classes": […]}`.
        where: What to call the data in the message.
    """
    age = encoding.age_head
    if age is not None and age.kind != "years":
        if encoding.age_groups.bounds != age_groups.bounds:
            raise ValueError(
                f"Invalid `age_groups`. The encoding has {encoding.age_groups}; "
                f"{where} has {age_groups}."
            )
    for head in encoding.extra_heads:
        column = head.columns[0]
        declared = extra_heads.get(column, {})
        classes = tuple(declared.get("classes") or ())
        holds = f"{len(classes)} classes ({', '.join(classes)})" if classes else ""
        if declared.get("kind") == "regression" and head.kind not in NUMBER_KINDS:
            holds = "numbers, no classes"
        elif not classes or (
            head.kind != "regression"
            and len(classes) == head.num_values
            and head.classes in ((), classes)
        ):
            continue
        raise ValueError(
            f"Invalid head {head.name!r}. Column {column!r} of {where} has {holds}. "
            f"Received: kind={head.kind!r}, num_classes={head.num_classes}"
            + (f", classes={head.classes}." if head.classes else ".")
        )


def check_manifest_encoding(manifest: pd.DataFrame, encoding: Encoding) -> None:
    """Raises ValueError unless a manifest has what an encoding's heads ask for.

    Where it does not declare the classes of a column, its values must be class ids.
    """
    from keras_agegender.datasets.manifest import manifest_age_groups

    groups, declared = manifest_age_groups(manifest), manifest.attrs.get("extra_heads")
    check_encoding(encoding, groups, declared or {}, "the manifest")
    for head in encoding.extra_heads:
        column = head.columns[0]
        if head.kind not in NUMBER_KINDS and column in manifest:
            check_class_ids(head.name, column, manifest[column], head.num_values)
