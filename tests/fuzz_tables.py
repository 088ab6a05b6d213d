"""Cells, encodings and damages of the label files that the fuzz tests write."""

from __future__ import annotations

from hypothesis import strategies as st

CELLS = st.one_of(
    st.sampled_from(
        [
            *("27", "25-32", "(25, 32)", "f", "m", "male", "train", "test", "val"),
            *("", "NA", "nan", "None", "-1", "?", "0", "1", "2", "yes", "no"),
            *("inf", "-inf", "1e400", "1e-400", "1_0", "٣", "0x10", "999999999999"),
            *("25,32", 'a"b', "a;b", "a\nb", "a\rb", "a\u2028b", "a\x0bb", "\x00"),
            *("../0.jpg", "/etc/passwd", "x" * 5000, "\ud7ff", "70+", "70-", "-5"),
        ]
    ),
    st.text(max_size=8).filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t)),
    st.floats().map(str),
    st.integers().map(str),
)  # fmt: skip


def encoded(text, encoding):
    return text.encode(encoding, "replace")


def mutated(draw, content):
    """Returns bytes with some of them changed, cut out, repeated or put in."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        what = draw(st.sampled_from(("put", "cut", "end", "flip", "twice")))
        if what == "put":
            content[place:place] = draw(st.binary(max_size=6))
        elif what == "cut":
            del content[place : place + draw(st.integers(1, 30))]
        elif what == "end":
            del content[place:]
        elif what == "flip" and place < len(content):
            content[place] ^= draw(st.integers(1, 255))
        elif what == "twice":
            content[place:place] = content[place : place + 40]
    return bytes(content)
