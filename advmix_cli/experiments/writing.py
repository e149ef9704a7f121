"""What an experiment gives back: tables and verdicts for people, the same for scripts, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from advmix_cli.experiments import claims, figures
from advmix_cli.experiments.carrying import Found
from advmix_cli.experiments.plan import Part
from advmix_cli.experiments.shape import Experiment
from advmix_cli.formats import escaped, markdown_rows
from advmix_cli.results import Table
from advmix_cli.settings import number
from advmix_cli.workflows.session import Session

_NOT_RUN = "not run"


def collected(
    session: Session, experiment: Experiment, found: Found, parts: Sequence[Part], only: Sequence[str] | None
) -> dict[str, Any]:
    """All figures and verdicts, in plain values."""
    tables = {}
    for id, table in experiment.tables.items():
        if only is not None and id not in only:
            continue
        rows = [
            {
                "row": row.label,
                "figures": {
                    name: figures.summed(
                        figures.of(experiment, found, column, row.of),
                        row.reference.get(name),
                        percent=column.figure == "accuracy",
                    )
                    for name, column in table.columns.items()
                },
                "reference": dict(row.reference),
            }
            for row in table.rows
        ]
        units = {name: "nats" if column.figure == "loss" else "%" for name, column in table.columns.items()}
        tables[id] = {"title": table.title, "columns": units, "rows": rows}
    judged = [claims.judged(session, experiment, found, each) for each in experiment.claims.values()]
    if only is not None:
        judged = [each for each in judged if None not in each["figures"]]
    evaluations = [each for _, each in sorted({each.name: each for each in found.evaluations.values()}.items())]
    return {
        "command": session.command,
        "title": experiment.title, "summary": experiment.summary, "scale": experiment.scale, "tables": tables,
        "claims": judged, "parts": len(parts),
        "not_run": [id for id in experiment.tables if id not in tables]
        + [f"{part.kind} {part}: {error.message}" for part, error in found.failed.items()],
        "made": [
            {
                "evaluation": each.name, "model": each.rows[0].lineage["name"], "dataset": each.settings.dataset,
                "device": each.made["gpu"] or each.made["device"], "seconds": each.made["seconds"],
                "date": each.made["date"], "command": each.made["command"],
            }
            for each in evaluations
        ],
    }  # fmt: skip


def records_of(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tables' figures, a row each."""
    return [
        {"table": id, "row": row["row"], "column": name, "unit": unit, "reference": row["reference"].get(name)}
        | (row["figures"][name] or {})
        for id, table in data["tables"].items()
        for row in table["rows"]
        for name, unit in table["columns"].items()
    ]


def tables_of(data: Mapping[str, Any]) -> list[Table]:
    """The tables, each with what its columns are, and the claims."""
    found = [_table(id, table, data["scale"]) for id, table in data["tables"].items()]
    if data["claims"]:
        rows = [
            (each["claim"], each["verdict"], "-" if each["p"] is None else f"{each['p']:.3g}",
             ", ".join("-" if value is None else f"{value:.2f}" for value in each["figures"]))
            for each in data["claims"]
        ]  # fmt: skip
        found.append(Table(("claim", "verdict", "p", "figures"), rows, title="claims", right=("p",)))
    return found


def _table(id: str, table: Mapping[str, Any], scale: str) -> Table:
    columns = ["", *(f"{name} {unit}" for name, unit in table["columns"].items())]
    rows = [(row["row"], *(_figure(row, name) for name in table["columns"])) for row in table["rows"]]
    given = [each for row in table["rows"] for each in row["figures"].values() if each]
    threats = list(dict.fromkeys(each["threat"] for each in given if each["threat"]))
    n = sorted({each["n"] for each in given})
    seeds = sorted({each["seeds"] for each in given})
    note = [f"n {', '.join(f'{each:,}' for each in n)}; seeds {', '.join(map(str, seeds))}; scale {scale}"] if n else []
    note += ["ref: the reference; = within the 95 % interval, else the difference"] if _compared(table) else []
    title = f"{id}: {table['title']}" + (f" ({scale})" if scale else "")
    return Table(tuple(columns), rows, title=title, right=tuple(columns[1:]), note="\n".join([*note, *threats]))


def _compared(table: Mapping[str, Any]) -> bool:
    return any(row["reference"] for row in table["rows"])


def _figure(row: Mapping[str, Any], name: str) -> str:
    figure = row["figures"][name]
    said = f" (ref {number(row['reference'][name])}" if name in row["reference"] else ""
    if figure is None:
        return _NOT_RUN + (f"{said})" if said else "")
    interval = f" [{figure['low']:.2f}, {figure['high']:.2f}]" if figure["high"] > figure["low"] else ""
    text = f"{figure['mean']:.2f}{interval}"
    if not said:
        return text
    apart = "=" if figure["within"] else f"{figure['difference']:+.2f}"
    return f"{text}{said}, {apart})"


def markdown(data: Mapping[str, Any]) -> str:
    """All of it as a document."""
    lines = [f"# {data['title']}", ""]
    lines += [data["summary"], ""] if data["summary"] else []
    lines += [f"Written by `{data['command']}`, scale {data['scale'] or 'of the file'}.", ""]
    for table in tables_of(data):
        lines += [f"## {table.title}", "", *markdown_rows(table), ""]
        lines += [f"{line}  " for line in table.note.splitlines()] + [""]
    for figure in data["figures"]:
        lines += [f"![{escaped(figure['title'])}]({figure['file']})", "", f"{figure['id']}: {figure['title']}", ""]
    if data["not_run"]:
        lines += ["## Not run", "", *(f"- {escaped(each)}" for each in data["not_run"]), ""]
    return "\n".join([*lines, "## What it was made from", "", *markdown_rows(made_of(data)), ""])


def made_of(data: Mapping[str, Any]) -> Table:
    """The evaluations that the figures are of."""
    rows = [
        (each["evaluation"], each["model"], each["dataset"], each["device"], f"{each['seconds']:.0f}", each["command"])
        for each in data["made"]
    ]
    return Table(("evaluation", "model", "data", "device", "s", "command"), rows, right=("s",))
