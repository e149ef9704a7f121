"""HTML files that ask nothing of anyone: tables, pictures, and what they were made from."""

from __future__ import annotations

import base64
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
:root {{ color-scheme: light; }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; max-width: 62rem;
  padding: 1rem; }}
h1 {{ font-size: 1.4rem; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; }}
td:last-child {{ min-width: 9rem; }}
.number {{ text-align: right; white-space: nowrap; }}
.grave {{ color: #b34700; font-weight: bold; }}
p.note {{ color: #555; font-size: .85rem; white-space: pre-line; overflow-wrap: anywhere; }}
figure {{ margin: 1.5rem 0; }}
img {{ max-width: 100%; height: auto; }}
details {{ margin: 2rem 0; }}
pre {{ overflow-x: auto; font-size: .75rem; white-space: pre-wrap; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
{body}
<details><summary>{folded}</summary><pre>{record}</pre></details>
</body>
</html>
"""


def escaped(text: str) -> str:
    """Text as markup."""
    return markup.escape(shown(text))


def page(title: str, summary: str, body: Sequence[str], folded: str, record: str) -> str:
    """The file; `record` is what is folded away at its end."""
    return _PAGE.format(
        title=escaped(title), summary=escaped(summary), body="\n".join(body), folded=escaped(folded),
        record=escaped(record),
    )  # fmt: skip


def picture(caption: str, kind: str, content: bytes) -> str:
    """A picture of that media type."""
    said, data = escaped(caption), base64.b64encode(content).decode()
    return f'<figure><h2>{said}</h2><img alt="{said}" src="data:{kind};base64,{data}"></figure>'


def table(table: Table) -> str:
    """A table with its title and note."""

    def cell(tag: str, column: str, text: str) -> str:
        kinds = (["number"] if column in table.right else []) + (["grave"] if text in VERDICTS[1:] else [])
        attribute = f' class="{" ".join(kinds)}"' if kinds else ""
        return f"<{tag}{attribute}>{escaped(text)}</{tag}>"

    head = "".join(cell("th", column, column) for column in table.columns)
    rows = "".join(
        "<tr>" + "".join(cell("td", column, text) for column, text in zip(table.columns, row, strict=True)) + "</tr>"
        for row in table.rows
    )
    title = f"<h2>{escaped(table.title or table.columns[0])}</h2>"
    note = f'<p class="note">{escaped(table.note)}</p>' if table.note else ""
    return f'<section>{title}<div class="table"><table><tr>{head}</tr>{rows}</table></div>{note}</section>'
