"""Judging claims: each by a test, as *holds*, *does not hold* or *not decided at this scale*."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from advmix_cli.experiments import figures
from advmix_cli.experiments.carrying import Found
from advmix_cli.experiments.figures import One
from advmix_cli.experiments.shape import Claim, Experiment
from advmix_cli.statistics import mcnemar, mean_and_deviation, t_tail, wilson
from advmix_cli.workflows.session import Session

LEVEL = 0.05
VERDICTS = ("holds", "does not hold", "not decided at this scale")


def judged(session: Session, experiment: Experiment, found: Found, claim: Claim) -> dict[str, Any]:
    """The verdict, with the p-value of the test and the figures that it was come to by.

    An order holds where each figure is surely above the next, one-sided at 5 %: on the same images by McNemar's exact
    test for one seed, by Student's paired t-test over seeds for several. It does not hold where one is surely below.
    Where one has met more images than another, the first that both have met count.
    A change of saturation is surely below by Student's test over the images.
    """
    if claim.figure.figure == "saturation":
        changes = figures.saturation(session, experiment, found, claim.figure.on, claim.order[0])
        return {"id": claim.id, "claim": claim.claim, **_changed(changes, claim.below or 0.0)}
    each = [figures.of(experiment, found, claim.figure, of) for of in claim.order]
    if claim.figure.figure == "accuracy":
        each = _on_the_same(each)
    told = {
        "id": claim.id, "claim": claim.claim,
        "figures": [mean_and_deviation([one.value for one in ones])[0] if ones else None for ones in each],
        "seeds": min(map(len, each)), "n": min((one.measured.n for ones in each for one in ones), default=0),
    }  # fmt: skip
    if not all(each):
        return told | {"verdict": VERDICTS[2], "p": None}
    if claim.below is not None:
        low, high = zip(*(wilson(one.measured.correct, one.measured.n) for one in each[0]), strict=True)
        verdict = 0 if max(high) < claim.below else 1 if min(low) > claim.below else 2
        return told | {"verdict": VERDICTS[verdict], "p": None}
    slack = claim.keeps or 0.0
    pairs = [compared(a, b, slack) for a, b in itertools.pairwise(each)]
    above, below = max(p for p, _ in pairs), min(p for _, p in pairs)
    if above < LEVEL:
        return told | {"verdict": VERDICTS[0], "p": above}
    return told | {"verdict": VERDICTS[1 if below < LEVEL else 2], "p": below if below < LEVEL else above}


def _on_the_same(figures: Sequence[Sequence[One]]) -> list[list[One]]:
    """The figures on the images that all have met: the first of the set."""
    n = min((one.measured.n for ones in figures for one in ones), default=0)
    return [
        [
            one if one.measured.n == n
            else dataclasses.replace(one, measured=(fewer := one.measured.first(n)), value=fewer.accuracy)
            for one in ones
        ]
        for ones in figures
    ]  # fmt: skip


def _changed(changes: Sequence[float], below: float) -> dict[str, Any]:
    """Whether the mean of what images changed by is surely below that."""
    n = len(changes)
    mean, deviation = mean_and_deviation(changes) if changes else (None, 0.0)
    told = {"figures": [mean], "seeds": 1, "n": n}
    if mean is None or not deviation:
        return told | {"verdict": VERDICTS[2], "p": None}
    t = (below - mean) / (deviation / n**0.5)
    holds, fails = t_tail(t, n - 1), t_tail(-t, n - 1)
    verdict = 0 if holds < LEVEL else 1 if fails < LEVEL else 2
    return told | {"verdict": VERDICTS[verdict], "p": fails if verdict == 1 else holds}


def compared(a: Sequence[One], b: Sequence[One], slack: float = 0.0) -> tuple[float, float]:
    """(p for a being no better than b, p for it being no worse), with `slack` points given to a."""
    by_seed = {one.cell.known.get("seed"): one for one in b}
    pairs = [(one, by_seed[seed]) for one in a if (seed := one.cell.known.get("seed")) in by_seed]
    if len(pairs) > 1:
        mean, deviation = mean_and_deviation([one.value - other.value + slack for one, other in pairs])
        if not deviation:
            return (0.0, 1.0) if mean > 0 else (1.0, 0.0) if mean < 0 else (1.0, 1.0)
        t = mean / (deviation / len(pairs) ** 0.5)
        return t_tail(t, len(pairs) - 1), t_tail(-t, len(pairs) - 1)
    if not pairs:
        return 1.0, 1.0
    ((one, other),) = pairs
    mine, theirs = one.measured.bits, other.measured.bits
    only_a, only_b = (mine & ~theirs).bit_count(), (theirs & ~mine).bit_count()
    only_a += round(slack * one.measured.n / 100)
    p = mcnemar(only_a, only_b) / 2
    return (p, 1 - p) if only_a >= only_b else (1 - p, p)
