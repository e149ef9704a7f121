"""An evaluation as one HTML file that asks nothing of anyone: tables, pictures, and what they were made from."""

from __future__ import annotations

import base64
import html as markup

from advmix_cli.config import VERDICTS
from advmix_cli.results import Result, Table, accuracy, shown
from advmix_cli.settings import canonical_json
from advmix_cli.workflows.evaluation.pictures import DRAWN, available
from advmix_cli.workflows.evaluation.record import Evaluation

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
<details><summary>the settings, threats and lineage</summary><pre>{record}</pre></details>
</body>
</html>
"""

_CAPTIONS = {
    "matrix": "Accuracy of each model (down) on what it met (across)",
    "reliability": "Accuracy against confidence on clean images",
    "strength": "Accuracy against the attack's eps and steps",
    "landscape": "Loss around one image of each model",
}


def _escaped(text: str) -> str:
    return markup.escape(shown(text))


def html(evaluation: Evaluation, result: Result) -> str:
    """The page: every table of the result, every picture of the evaluation, and its record."""
    from advmix_cli import figures

    body = [_table(block) for block in result.blocks if isinstance(block, Table)]
    for kind in available(evaluation):
        svg = base64.b64encode(figures.svg(DRAWN[kind](evaluation))).decode()
        caption = _CAPTIONS[kind]
        body.append(f'<figure><h2>{caption}</h2><img alt="{caption}" src="data:image/svg+xml;base64,{svg}"></figure>')
    record = evaluation.to_record()
    part_of_it = {part: record[part] for part in ("name", "settings", "columns", "fingerprint", "made")}
    verdicts = "; ".join(
        f"{model} {audit['verdict']}, at most {accuracy(audit['robust']['correct'], audit['robust']['n'])} robust"
        for model, audit in evaluation.audited
    )
    settings, made = evaluation.settings, evaluation.made
    return _PAGE.format(
        title=_escaped(f"Evaluation {evaluation.name}"),
        summary=_escaped(f"{', '.join(evaluation.models)} on {settings.dataset} {settings.split}, made with "
                              f"advmix {made['advmix']} and torch {made['torch']}."
                              + (f" Audit: {verdicts}." if verdicts else "")),
        body="\n".join(body),
        record=_escaped(canonical_json(part_of_it | {"models": [row.lineage for row in evaluation.rows]})),
    )  # fmt: skip


def _table(table: Table) -> str:
    def cell(tag: str, column: str, text: str) -> str:
        kinds = (["number"] if column in table.right else []) + (["grave"] if text in VERDICTS[1:] else [])
        attribute = f' class="{" ".join(kinds)}"' if kinds else ""
        return f"<{tag}{attribute}>{_escaped(text)}</{tag}>"

    head = "".join(cell("th", column, column) for column in table.columns)
    rows = "".join(
        "<tr>" + "".join(cell("td", column, text) for column, text in zip(table.columns, row, strict=True)) + "</tr>"
        for row in table.rows
    )
    title = f"<h2>{_escaped(table.title or table.columns[0])}</h2>"
    note = f'<p class="note">{_escaped(table.note)}</p>' if table.note else ""
    return f'<section>{title}<div class="table"><table><tr>{head}</tr>{rows}</table></div>{note}</section>'
