"""How a table lies on a terminal: as it is where it fits, else its cells wrapped between words, else row under row."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from rich.cells import cell_len
from rich.table import Table as RichTable
from rich.text import Text

from advmix_cli.results import Table, shown

_APART = 2
"""Blanks between columns."""


def laid_out(table: Table, width: int | None) -> RichTable | Text:
    """The table for a terminal of so many columns; None: for what is no terminal, where lines have any length.

    No word is broken, so that names can be copied; a word that is wider than the terminal is left to it.
    """
    widths = _widths(table, width)
    if widths is None:
        assert width is not None
        return Text("\n".join(_stacked(table, width)))
    drawn = RichTable(
        box=None,
        pad_edge=False,
        title=Text(wrapped(shown(table.title), width)) if table.title else None,
        title_justify="left",
        header_style="bold",
    )
    for column, wide in zip(table.columns, widths, strict=True):
        drawn.add_column(column, justify="right" if column in table.right else "left", overflow="fold", width=wide)
    for row in table.rows:
        drawn.add_row(*(Text(shown(cell)) for cell in row))
    return drawn


def wrapped(text: str, width: int | None, indent: str = "") -> str:
    """Lines of at most so many columns, broken between words; those that follow a broken one begin with `indent`."""
    if width is None:
        return text
    lines = (
        textwrap.wrap(
            line, max(width, 1), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
        )
        for line in text.splitlines()
    )  # fmt: skip
    return "\n".join("\n".join(line) for line in lines)


def _widths(table: Table, width: int | None) -> list[int | None] | None:
    """Of the columns; None each where all fits as it is, None where not even their longest words fit beside others."""
    texts = [[name, *(shown(row[i]) for row in table.rows)] for i, name in enumerate(table.columns)]
    whole = [max(map(cell_len, column)) for column in texts]
    between = _APART * (len(whole) - 1)
    if width is None or sum(whole) + between <= width:
        return [None] * len(whole)
    # Numbers stay in one line: an interval in two is hard to read.
    least = [
        full if name in table.right else max(cell_len(word) for text in column for word in text.split() or [""])
        for full, name, column in zip(whole, table.columns, texts, strict=True)
    ]
    spare = width - between - sum(least)
    if spare < 0:
        return None
    wished = sum(whole) - sum(least)
    return [word + spare * (full - word) // wished for full, word in zip(whole, least, strict=True)]


def _stacked(table: Table, width: int) -> Iterator[str]:
    """A line for each cell, under the name of its column where both do not fit."""
    if table.title:
        yield wrapped(shown(table.title), width)
    names = max(map(cell_len, table.columns)) + _APART
    for number, row in enumerate(table.rows):
        if number or table.title:
            yield ""
        for name, cell in zip(table.columns, row, strict=True):
            if cell:
                yield wrapped(f"{name}{' ' * (names - cell_len(name))}{shown(cell)}", width, " " * _APART)
