"""Turns the docstrings, which follow Keras, into reStructuredText.

A name between single backticks links to its page if it is public, and is code otherwise.
"""

from __future__ import annotations

import re

from generated_pages import public_names

QUOTED = re.compile(r"(?<![`:\w])`([^`]+)`(?!`)")
STAR = re.compile(r"(?<=[(, ])\*(?=\w+[,)])")  # of (batch, *image_size, 3)
SPACED = re.compile(r"\s*\n\s*")


def links() -> dict[str, str]:
    """Returns every way to write a public name -> its full dotted name."""
    targets: dict[str, str] = {}
    for namespace, names in public_names().items():
        for name in names:
            full = f"{namespace}.{name}"
            targets.setdefault(name, full)
            targets[full.removeprefix("keras_agegender.")] = full
            targets["kag." + full.removeprefix("keras_agegender.")] = full
    return targets


def setup(app) -> None:
    targets = links()

    def linked(match: re.Match) -> str:
        text = SPACED.sub(" ", match[1])
        target = targets.get(re.sub(r"\(.*\)$", "", text))
        if target is None:
            return f"``{text}``"
        return f":py:obj:`{text} <{target}>`"

    def process(app, what, name, thing, options, lines) -> None:
        text: list[str] = []
        prose: list[str] = []
        for line in [*_example_sections(lines), ">>>"]:
            if line.lstrip().startswith((">>>", "... ")):
                if prose:
                    quoted = QUOTED.sub(linked, "\n".join(prose))
                    text += STAR.sub(r"\\*", quoted).split("\n")
                text.append(line)
                prose = []
            else:
                prose.append(line)
        lines[:] = [re.sub(r"^Source: ", "**Source:** ", line) for line in text[:-1]]

    # Before napoleon, which has the default priority of 500.
    app.connect("autodoc-process-docstring", process, priority=400)


def _example_sections(lines: list[str]) -> list[str]:
    """Returns the lines with `Example:`, whose examples are not indented, as a rubric."""
    text: list[str] = []
    indent = 0
    for line in lines:
        heading = re.fullmatch(r"(Examples?):", line)
        if heading:
            text += [f".. rubric:: {heading[1]}", ""]
            indent = 4
        elif line and not line.startswith(" " * indent):
            indent = 0
            text.append(line)
        else:
            text.append(line[indent:])
    return text
