"""Figures of cells, from evaluations: one by one, and over seeds with an interval."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from advmix_cli import artifacts
from advmix_cli.errors import UsageError, nearest
from advmix_cli.experiments.carrying import Found
from advmix_cli.experiments.plan import cells_of
from advmix_cli.experiments.shape import Cell, Experiment, Figure, Of
from advmix_cli.statistics import mean_and_deviation
from advmix_cli.threats import ATTACKS
from advmix_cli.workflows.evaluation.record import Cell as Measured
from advmix_cli.workflows.evaluation.record import Column, Evaluation
from advmix_cli.workflows.references import resolve_samples
from advmix_cli.workflows.session import Session

_AT_ONCE = 1000
_Z = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class One:
    """A figure of one model: in percent or nats, of `measured` images, from the evaluation of that name."""

    cell: Cell
    value: float
    measured: Measured
    evaluation: Evaluation
    column: Column


def of(experiment: Experiment, found: Found, figure: Figure, cells: Of) -> list[One]:
    """The figure of each of those cells whose evaluation is there."""
    ones = []
    for cell in cells_of(experiment, [cells]):
        id = experiment.evaluates(figure, cell)
        evaluation = None if id is None else found.evaluations.get((id, cell))
        if evaluation is None:
            continue
        place = _place(experiment, found, evaluation, figure, cell)
        if place is None:
            continue
        measured = evaluation.cells[0][place]
        value = measured.accuracy if figure.figure == "accuracy" else measured.loss
        if measured.note or value is None:
            continue
        ones.append(One(cell, value, measured, evaluation, evaluation.columns[place]))
    return ones


def _place(experiment: Experiment, found: Found, evaluation: Evaluation, figure: Figure, cell: Cell) -> int | None:
    """Which column of the evaluation it is; None where that attack is not run at this scale."""
    columns = evaluation.columns
    if figure.on in experiment.attacks:
        wanted = {found.caches[figure.on, other] for other in cells_of(
            experiment, [Of(each.run, {**each.at, **figure.at}) for each in experiment.attacks[figure.on].of]
        ) if cell.agrees(other) and (figure.on, other) in found.caches}  # fmt: skip
        places = [i for i, column in enumerate(columns) if column.kind == "samples" and column.label in wanted]
    else:
        places = [
            i for i, column in enumerate(columns)
            if (figure.on in (column.kind, column.label) and column.kind != "samples")
            or (column.kind == "attack" and column.threat and column.threat.attack == figure.on and not column.further)
        ]  # fmt: skip
    if not places and figure.on in ATTACKS:
        return None
    if not places:
        names = {c.threat.attack if c.kind == "attack" and c.threat else c.kind for c in columns} | {
            *experiment.attacks
        }
        raise UsageError(
            f"{experiment.file}: {' or '.join(figure.evaluations)} has no {figure.on!r} of {cell}",
            nearest(figure.on, names),
        )
    return places[0]


def saturation(session: Session, experiment: Experiment, found: Found, attack: str, cells: Of) -> list[float]:
    """What the saturation of each attacked image is more than before, in percent of full colour; [] for no images.

    The saturation of an image is the mean over its pixels of the largest channel less the smallest.
    """
    from advmix_cli.attacks import to_float

    changes: list[float] = []
    for cell in cells_of(experiment, [cells]):
        if (attack, cell) not in found.caches:
            continue
        cache = resolve_samples(session, found.caches[attack, cell])
        assert cache.record is not None
        x_adv, _, index = artifacts.samples_tensors(cache.path)
        images = session.images(cache.record["dataset"], cache.record["split"]).take(index)
        for first in range(0, len(index), _AT_ONCE):
            which = slice(first, first + _AT_ONCE)
            after, before = ((x.amax(1) - x.amin(1)).mean((1, 2)) for x in (x_adv[which], to_float(images.x[which])))
            changes += (100 * (after - before)).tolist()
    return changes


def summed(ones: Sequence[One], reference: float | None, *, percent: bool = True) -> dict[str, Any] | None:
    """The mean over seeds and its 95 % interval, and how a reference stands to it; None for no figure.

    `percent`: it is an accuracy, and no loss. Of one seed it is Wilson's interval of the images; of several what the
    spread over seeds and the images' number leave. A loss has an interval over seeds alone.
    """
    if not ones:
        return None
    n = min(one.measured.n for one in ones)
    mean, deviation = mean_and_deviation([one.value for one in ones])
    if len(ones) == 1:
        low, high = ones[0].measured.interval if percent else (mean, mean)
    else:
        images = mean * (100 - mean) / n if percent else 0.0
        half = _Z * math.sqrt(deviation**2 / len(ones) + images)
        low, high = mean - half, mean + half
    found: dict[str, Any] = {
        "mean": mean, "low": max(low, 0.0), "high": min(high, 100.0) if percent else high, "deviation": deviation,
        "seeds": len(ones), "n": n, "evaluations": [one.evaluation.name for one in ones],
        "models": [one.evaluation.rows[0].lineage["name"] for one in ones],
        "threat": ones[0].column.threat and str(ones[0].column.threat),
        "bound": ones[0].column.bound,
        "commands": list(dict.fromkeys(one.evaluation.made["command"] for one in ones)),
    }  # fmt: skip
    if reference is not None:
        within = found["low"] <= reference <= found["high"]
        found |= {"reference": reference, "difference": mean - reference, "within": within}
    return found
