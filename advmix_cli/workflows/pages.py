"""HTML files that ask nothing of anyone: tables, pictures, and what they were made from."""

from __future__ import annotations

import base64
import dataclasses
import html as markup
from collections.abc import Sequence

from advmix_cli.config import VERDICTS
from advmix_cli.results import Table, shown

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1a1a1a; --quiet: #555; --paper: #fff; --line: #ddd; --grave: #a33f00;
  --link: #0b57a4; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e8e8e8; --quiet: #b0b0b0; --paper: #16181b; --line: #3a3d42; --grave: #ffa266; --link: #8ab8f0; }}
}}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 62rem; padding: 1rem; }}
a {{ color: var(--link); }}
h1 {{ font-size: 1.4rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere; }}
p.said {{ font-size: 1.15rem; }}
nav ul {{ display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; font-size: .9rem; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }}
td:nth-child(-n+2):not(:last-child) {{ white-space: nowrap; }}
td:last-child {{ min-width: 9rem; }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr)); gap: 1rem; }}
.card {{ border: 1px solid var(--line); border-radius: 8px; padding: .75rem 1rem; }}
.card h2 {{ margin: 0; font-size: 1rem; }}
.card .figure {{ font-size: 1.7rem; font-weight: 600; line-height: 1.25; margin: .25rem 0; }}
.card dl {{ margin: 0; }}
.number {{ text-align: right; white-space: nowrap; }}
.grave {{ color: var(--grave); font-weight: bold; }}
p.note {{ color: var(--quiet); font-size: .85rem; white-space: pre-line; overflow-wrap: anywhere; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .9rem; }}
dt {{ color: var(--quiet); }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
figure {{ margin: 1.5rem 0; }}
img {{ max-width: 100%; height: auto; background: #fff; border-radius: 4px; }}
details {{ margin: 1rem 0; }}
summary {{ cursor: pointer; }}
pre {{ overflow-x: auto; font-size: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
@media print {{
  nav, .save {{ display: none; }}
  section, figure {{ break-inside: avoid; }}
  body {{ max-width: none; }}
}}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{lead}
{contents}
{body}
{save}
<details><summary>{folded}</summary><pre>{record}</pre></details>
</main>
</body>
</html>
"""


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a page: its heading, and its markup."""

    title: str
    markup: str


def escaped(text: str) -> str:
    """Text as markup."""
    return markup.escape(shown(text))


def page(
    title: str, lead: Sequence[str], parts: Sequence[Part], folded: str, record: str,
    files: Sequence[tuple[str, str, str]] = (),
) -> str:  # fmt: skip
    """The file. `lead` is markup that comes first, `record` is folded away at its end.

    `files`, (name, media type, text) each, can be saved from the page.
    """
    links = [f'<li><a href="#part-{i}">{escaped(part.title)}</a></li>' for i, part in enumerate(parts)]
    body = [
        f'<section aria-labelledby="part-{i}"><h2 id="part-{i}">{escaped(part.title)}</h2>{part.markup}</section>'
        for i, part in enumerate(parts)
    ]
    save = [f'<a download="{escaped(name)}" href="{_data(kind, text.encode())}">{escaped(name)}</a>'
            for name, kind, text in files]  # fmt: skip
    return _PAGE.format(
        title=escaped(title), lead="\n".join(lead), body="\n".join(body), folded=escaped(folded),
        contents=f'<nav aria-label="contents"><ul>{"".join(links)}</ul></nav>' if len(links) > 1 else "",
        save=f'<p class="save">To save: {", ".join(save)}</p>' if save else "", record=escaped(record),
    )  # fmt: skip


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(caption: str, kind: str, content: bytes) -> Part:
    """A picture of that media type."""
    return Part(caption, f'<figure><img alt="{escaped(caption)}" src="{_data(kind, content)}"></figure>')


def table(table: Table, title: str = "") -> Part:
    """A table with its note, under that title, else its own."""
    heading = title or table.title or table.columns[0]
    shown_rows = rows(table) if table.rows else ""
    return Part(heading[:1].upper() + heading[1:], shown_rows + (note(table.note) if table.note else ""))


def rows(table: Table) -> str:
    """A table alone: what is too wide for a screen scrolls by itself."""

    def cell(tag: str, column: str, text: str) -> str:
        kinds = (["number"] if column in table.right else []) + (["grave"] if text in VERDICTS[1:] else [])
        attribute = f' class="{" ".join(kinds)}"' if kinds else ""
        return f"<{tag}{attribute}>{escaped(text)}</{tag}>"

    head = "".join(cell("th", column, column) for column in table.columns)
    body = "".join(
        "<tr>" + "".join(cell("td", column, text) for column, text in zip(table.columns, row, strict=True)) + "</tr>"
        for row in table.rows
    )
    label = escaped(table.title or table.columns[0])
    return (
        f'<div class="table" role="region" tabindex="0" aria-label="table: {label}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def facts(values: Sequence[tuple[str, str]]) -> str:
    """Labelled values, a line each; a verdict that is grave stands out."""

    def one(name: str, value: str) -> str:
        grave = ' class="grave"' if value in VERDICTS[1:] else ""
        return f"<dt>{escaped(name)}</dt><dd{grave}>{escaped(value)}</dd>"

    return f"<dl>{''.join(one(*each) for each in values)}</dl>"


Card = tuple[str, str, Sequence[tuple[str, str]]]
"""A name, its figure, and labelled values."""


def cards(each: Sequence[Card]) -> str:
    """For each name its figure, in large letters, and labelled values."""
    body = "".join(
        f'<article class="card"><h2>{escaped(name)}</h2><p class="figure">{escaped(figure)}</p>'
        f"{facts(values)}</article>"
        for name, figure, values in each
    )
    return f'<div class="cards">{body}</div>'


def listed(lines: Sequence[str]) -> str:
    """Lines, one below the other."""
    return f"<ul>{''.join(f'<li>{escaped(line)}</li>' for line in lines)}</ul>"


def note(text: str) -> str:
    """What is said beside it, in small letters."""
    return f'<p class="note">{escaped(text)}</p>'


def said(text: str) -> str:
    """A sentence that comes first."""
    return f'<p class="said">{escaped(text)}</p>'


def fold(summary: str, content: str) -> str:
    """What is seen when it is asked for."""
    return f"<details><summary>{escaped(summary)}</summary>{content}</details>"
