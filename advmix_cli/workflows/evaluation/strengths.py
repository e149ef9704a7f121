"""Accuracy against eps: an evaluation for each, which the store has apart, and one table of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from advmix_cli.errors import UsageError
from advmix_cli.names import short_name
from advmix_cli.results import Result, Table, accuracy
from advmix_cli.settings import number
from advmix_cli.workflows.evaluation.pictures import MODELS
from advmix_cli.workflows.evaluation.record import Cell, Column, Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]

_SAID = {"upper": "under attack", "lower": "proved"}


def together(found: Sequence[tuple[float, Result]]) -> Result:
    """What evaluations that differ in their eps found: a line for each model and eps, the clean images first.

    Under attack it is the worst case over the attacks. Where a part of the samples is all there is, it is that result.
    """
    parts = [result for _, result in found if "rows" not in result.data]
    if parts:
        return parts[-1]
    rows = [
        row | {"eps": eps if row["bound"] else 0.0, "evaluation": result.data["evaluation"]}
        for place, (eps, result) in enumerate(found)
        for row in result.data["rows"]
        if row["bound"] or not place
    ]
    strengths = [eps for eps, _ in found]
    bounds = [bound for bound in _SAID if any(row["bound"] == bound for row in rows)]
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        clean = next(row for row in own if not row["bound"])
        lines.append((model, "0", _figure([clean]), *("" for _ in bounds[1:])))
        lines += [
            ("", number(eps), *(_figure([row for row in own if (row["eps"], row["bound"]) == (eps, bound)])
                                for bound in bounds))
            for eps in strengths
        ]  # fmt: skip
    columns = ("model", "eps", *(_SAID[bound] for bound in bounds))
    brackets = [bracket for _, result in found for bracket in result.data.get("brackets", ())]
    names = [str(result.data["evaluation"]) for _, result in found]
    first = found[0][1].data
    return Result(
        data={
            "rows": rows,
            **({"brackets": brackets} if brackets else {}),
            "evaluations": names,
            "dataset": first["dataset"],
            "device": first["device"],
            "seconds": sum(result.data["seconds"] for _, result in found),
        },
        refs=names,
        blocks=[Table(columns, lines, right=columns[1:], title="accuracy against eps")],
        records=[{name: value for name, value in row.items() if name != "stages"} for row in rows],
        hint=f"as a picture: advmix visualize eps {' '.join(names)}",
    )


def _figure(rows: Sequence[Row]) -> str:
    worst = min(rows, key=lambda row: row["accuracy"])
    return accuracy(round(worst["accuracy"] * worst["n"] / 100), worst["n"])


Known = dict[float, Cell]
"""By eps, the clean one at 0."""

_WORST = {"upper": min, "lower": max}
"""Which of several figures at an eps says most, by how it bounds what is true."""


def lines(evaluations: Sequence[Evaluation]) -> dict[str, tuple[Known, Known]]:
    """Of each model what attacks leave and what is proved, at each eps; only where more than the clean one is known.

    Raises UsageError for evaluations that do not belong into one picture.
    """
    of = {(each.settings.dataset, each.settings.split, each.cells[0][0].n) for each in evaluations}
    norms = {ball[0] for each in evaluations for column in each.columns if (ball := _ball(each, column))}
    if len(of) > 1 or len(norms) > 1:
        raise UsageError("these evaluations are of other images or norms", "draw what differs in eps alone")
    found: dict[str, tuple[Known, Known]] = {}
    for each in evaluations:
        for label, cells in zip(each.models, each.cells, strict=True):
            both = found.setdefault(label, ({0.0: cells[0]}, {0.0: cells[0]}))
            for column, cell in zip(each.columns, cells, strict=True):
                ball = _ball(each, column)
                if ball and column.bound and not cell.note:
                    known = both[column.bound == "lower"]
                    known[ball[1]] = _WORST[column.bound](cell, known.get(ball[1], cell), key=_right)
    return {label: both for label, both in found.items() if max(map(len, both)) > 1}


def _ball(evaluation: Evaluation, column: Column) -> tuple[str, float] | None:
    """The norm and eps that a figure is of; None for clean images and caches."""
    if column.kind == "worst":  # the attacks of one eps come last among what it is of
        column = evaluation.columns[column.of[-1]]
    ball = {"attack": column.threat, "certified": column.proved}.get(column.kind)
    return None if ball is None else (ball.norm, ball.eps)


def _right(cell: Cell) -> int:
    return cell.correct


def picture(evaluations: Sequence[Evaluation]) -> Figure:
    """What attacks leave and bounds prove, against eps."""
    from advmix_cli import figures

    shown = [
        (label, [(at, cell.accuracy, cell.interval) for at, cell in sorted(left.items())],
         [(at, cell.accuracy) for at, cell in sorted(proved.items())])
        for label, (left, proved) in lines(evaluations).items()
    ][:MODELS]  # fmt: skip
    first, columns = evaluations[0], [column for each in evaluations for column in each.columns]
    attacks = ", ".join(dict.fromkeys(c.threat.attack for c in columns if c.kind == "attack" and c.threat))
    norm = next(ball[0] for each in evaluations for column in each.columns if (ball := _ball(each, column)))
    title = [
        f"accuracy, {short_name(first.settings.dataset)} {first.settings.split}, {norm}, n = {first.cells[0][0].n}"
    ]
    title += [f"under {attacks}"] if attacks else []
    title += ["dotted: what is proved"] if any(column.proved for column in columns) else []
    return figures.eps(shown, "\n".join(title))
