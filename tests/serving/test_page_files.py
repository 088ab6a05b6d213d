"""Files of the page of `agegender demo`: all of them, and nothing from elsewhere."""

from __future__ import annotations

import re
from configparser import ConfigParser
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import pytest

import keras_agegender as kag

PACKAGE = Path(kag.__file__).parent
PAGE = PACKAGE / "serving" / "page"
FILES = sorted(PAGE.iterdir())
ENDINGS = {".html", ".css", ".js"}
SVG = "http://www.w3.org/2000/svg"  # a name; nothing is fetched from there


class Elements(HTMLParser):
    """All the elements of a page and the text inside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.inline = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.found and self.found[-1][0] in ("script", "style"):
            self.inline += data.strip()


def elements():
    return Elements((PAGE / "index.html").read_text("utf-8"))


def test_wheels_carry_every_file():
    setup = ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg", "utf-8")
    globs = setup["options.package_data"]["keras_agegender.serving"].split(",")
    assert {file.suffix for file in FILES} == ENDINGS
    for file in FILES:
        assert any(fnmatch(f"page/{file.name}", glob.strip()) for glob in globs)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_comes_from_elsewhere(file):
    text = file.read_text("utf-8").replace(SVG, "")
    assert not re.findall(r"(?:https?:|wss?:)?//[\w.-]+\.\w+/?", text)
    assert "@import" not in text and "url(" not in text


def test_there_is_no_inline_script_or_style():
    page = elements()
    assert page.inline == "" and "style" not in {tag for tag, _ in page.found}
    for tag, attributes in page.found:
        assert not {n for n in attributes if n == "style" or n.startswith("on")}, tag
        assert "src" in attributes or tag != "script"


def test_scripts_name_what_is_there():
    ids = [a["id"] for _, a in elements().found if "id" in a]
    assert len(ids) == len(set(ids))
    for file in PAGE.glob("*.js"):
        text = file.read_text("utf-8")
        assert set(re.findall(r'byId\("([\w-]+)"\)', text)) <= set(ids)
        assert all((PAGE / name).is_file() for name in re.findall(r'"\./(.+)"', text))
