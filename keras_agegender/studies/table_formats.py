"""Tables of text as Markdown and as LaTeX."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 88
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\symbol{34}",  # \textquotedbl needs another font encoding
        "`": r"\textasciigrave{}",
        "†": r"\textdagger{}",
        "×": r"\texttimes{}",
        "±": r"\textpm{}",
        "…": r"\ldots{}",
        "−": r"\textminus{}",
        "→": r"\textrightarrow{}",
        "≤": r"\ensuremath{\le}",
        "≥": r"\ensuremath{\ge}",
    }
)


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        title: What it shows.
        header: Names of the columns.
        rows: A text for each column. Those of the first column are the rows' names.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def without_empty_columns(self) -> TextTable:
        """Returns the table without columns that say nothing in any row."""
        kept = [k for k in range(len(self.header)) if any(row[k] for row in self.rows)]
        return TextTable(
            self.title,
            tuple(self.header[k] for k in kept),
            tuple(tuple(row[k] for k in kept) for row in self.rows),
        )


def to_markdown_lines(table: TextTable) -> list[str]:
    """Returns a table as lines of Markdown whose columns are aligned.

    Example:
    >>> to_markdown_lines(TextTable("", ("a", "b"), (("1", "22"),)))
    ['| a   | b   |', '| --- | --- |', '| 1   | 22  |']
    """
    cells = [
        [text.replace("|", "\\|") for text in r] for r in (table.header, *table.rows)
    ]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(f"{c:<{w}}" for c, w in zip(r, widths, strict=True)) + " |"
        for r in cells
    ]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return [lines[0], rule, *lines[1:]]


def escape_latex(text: str) -> str:
    r"""Returns text that LaTeX prints as it is.

    Example:
    >>> print(escape_latex("07_caffe & 5 %"))
    07\_caffe \& 5 \%
    """
    # Behind \\ and \item a bracket or star is an option; -- becomes one long dash.
    protected = "{}" if text.startswith(("[", "*")) else ""
    return protected + text.translate(_LATEX).replace("--", "-{}-")


def to_latex_lines(table: TextTable, caption: str, label: str) -> list[str]:
    """Returns a table for LaTeX with the package booktabs.

    Args:
        table: The table.
        caption: Its caption, not escaped yet.
        label: Its label.
    """

    def line(row: Sequence[str]) -> str:
        return " & ".join(map(escape_latex, row)) + r" \\"

    return [
        r"\begin{table}[htbp]",
        r"\centering",
        r"\setlength{\belowcaptionskip}{6pt}",  # `article` has the caption on the rule
        *fill_latex(rf"\caption{{{escape_latex(caption)}}}"),
        rf"\label{{{label}}}",
        r"\small",  # else the widest intervals reach beyond a column of 345 pt
        rf"\begin{{tabular}}{{@{{}}{'l' * len(table.header)}@{{}}}}",
        r"\toprule",
        line(table.header),
        r"\midrule",
        *map(line, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def fill(text: str, first: str = "", *, break_long_words: bool = True) -> list[str]:
    """Returns text in lines of 88 characters; those after the first are indented."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
        break_long_words=break_long_words,
    )


def fill_latex(text: str, first: str = "") -> list[str]:
    """Returns escaped text in lines that end between words, never within a command."""
    return fill(text, first, break_long_words=False)
