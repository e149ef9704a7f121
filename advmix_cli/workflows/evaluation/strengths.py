"""Accuracy against eps: an evaluation for each, which the store has apart, and one table of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advmix_cli.results import Result, Table, accuracy
from advmix_cli.settings import number

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
        hint=f"one of them: advmix visualize matrix {names[-1]}",
    )


def _figure(rows: Sequence[Row]) -> str:
    worst = min(rows, key=lambda row: row["accuracy"])
    return accuracy(round(worst["accuracy"] * worst["n"] / 100), worst["n"])
