"""Commands in README and on the site's pages are accepted by the command line."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from keras_agegender.cli.main import _parser
from keras_agegender.datasets.readers import READERS

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in p.parts),
]
# On pages, not commands: placeholders, and usage lines of the generated reference.
PLACEHOLDER = re.compile(r"[…\[\]]|VERB|NUMBER|\bPHOTO\b|--help")


def commands(page: Path) -> list[str]:
    """Returns the `agegender` commands of bash blocks and indented code."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    blocks += re.findall(r"^((?: {4}\S.*\n)+)", text, re.M)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.sub(r"^\w+=\S+ ", "", line.strip()) for line in lines]
    return [
        c for c in found if c.startswith("agegender ") and not PLACEHOLDER.search(c)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_are_accepted(page):
    for command in commands(page):
        verb, *rest = shlex.split(command, comments=True)[1:]
        if verb == "prepare" and rest[0] not in READERS:
            rest[: ":" in rest[0]] = ["fgnet"]  # what `prepare PATH` may find in a path
        _parser().parse_args([verb, *rest])


def test_there_are_commands():
    assert sum(len(commands(page)) for page in PAGES) > 40
