"""Tables as text for elsewhere: CSV for programs, Markdown and LaTeX for documents."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from advmix_cli.results import Result, Table, shown

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}",
}  # fmt: skip


def as_csv(result: Result) -> str:
    """The result's records, numbers as they are: what is nested has a column for each part, as in `threat.eps`.

    Where it has none, the first table as people see it.
    """
    rows = [dict(_flat(record)) for record in result.records]
    for table in _tables(result)[: not rows]:
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name.endswith("_ci95"):
            yield from zip((f"{prefix}{name}_low", f"{prefix}{name}_high"), value, strict=True)
        else:
            yield prefix + name, json.dumps(value) if isinstance(value, list | tuple | bool) else value


def markdown(table: Table) -> str:
    """A table of Markdown, its title before it and its note behind."""
    title = [f"**{shown(table.title)}**", ""] if table.title else []
    note = [f"{shown(line)}  " for line in table.note.splitlines()]
    return "\n".join([*title, *markdown_rows(table), *([""] if note else []), *note]) + "\n"


def markdown_rows(table: Table) -> list[str]:
    """The lines of a table of Markdown alone."""
    rule = ["---:" if column in table.right else "---" for column in table.columns]
    return ["| " + " | ".join(map(escaped, row)) + " |" for row in (table.columns, rule, *table.rows)]


def escaped(text: str) -> str:
    """Text in a cell of Markdown."""
    return shown(text).replace("|", "\\|").replace("\n", " ")


def latex(table: Table) -> str:
    """A tabular of LaTeX that needs no package; title and note are comments."""
    sides = "".join("r" if column in table.right else "l" for column in table.columns)
    header, *rows = (" & ".join(map(_in_latex, row)) + r" \\" for row in (table.columns, *table.rows))
    lines = [rf"\begin{{tabular}}{{{sides}}}", r"\hline", header, r"\hline", *rows, r"\hline", r"\end{tabular}"]
    said = [f"% {shown(line)}" for line in (table.title, *table.note.splitlines()) if line]
    return "\n".join([*said, *lines]) + "\n"


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in shown(text).replace("\n", " "))


def _tables(result: Result) -> Sequence[Table]:
    return [block for block in result.blocks if isinstance(block, Table) and block.rows]


FORMATS: dict[str, Callable[[Result], str]] = {
    "csv": as_csv,
    "markdown": lambda result: "\n".join(map(markdown, _tables(result))),
    "latex": lambda result: "\n".join(map(latex, _tables(result))),
}
"""How else a result is written: all of its tables; as CSV its records."""
