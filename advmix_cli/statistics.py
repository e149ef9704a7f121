"""Intervals, tests and calibration: plain arithmetic, so that a cached answer needs no torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % confidence interval of an accuracy, in percent. Source: Wilson 1927."""
    z = 1.959963984540054
    if n == 0:
        return 0.0, 100.0
    p = correct / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 100 / (1 + z * z / n)
    low, high = scale * (centre - spread), scale * (centre + spread)
    return 0.0 if correct == 0 else low, 100.0 if correct == n else high


def mcnemar(only_a: int, only_b: int) -> float:
    """How likely so uneven a split would be were two models equally good, in [0,1]: exact and two-sided.

    `only_a` and `only_b` are the images that one of them gets right and the other wrong. Source: McNemar 1947.
    """
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail, term = 0, 1  # in whole numbers, of any size
    for k in range(fewer + 1):
        tail += term
        term = term * (n - k) // (k + 1)
    return min(1.0, float(2 * tail / 2**n))


def holm(ps: Sequence[float]) -> list[float]:
    """The p-values of several tests, each adjusted so that none of them all errs more often than it says: Holm 1979."""
    found, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        found[place] = largest
    return found


def t_tail(t: float, degrees: int) -> float:
    """How likely Student's t of so many degrees of freedom, at least 1, is above `t`, in [0,1]. Source: Student 1908.

    With x = cos^2 of the angle whose tangent is t / sqrt(degrees) the integral is a finite sum.
    """
    angle = math.atan2(t, math.sqrt(degrees))
    x, term, total = math.cos(angle) ** 2, 1.0, 0.0
    if degrees % 2:
        for k in range(1, degrees - 1, 2):  # cos, 2/3 cos^3, ...
            term = term if k == 1 else term * (k - 1) / k * x
            total += term
        inner = angle + (math.sin(angle) * math.cos(angle) * total if degrees > 1 else 0.0)
        return 0.5 - inner / math.pi
    for k in range(0, degrees - 1, 2):
        term = term if k == 0 else term * (k - 1) / k * x
        total += term
    return 0.5 - math.sin(angle) * total / 2


def calibration_error(bins: Sequence[Sequence[float]]) -> float:
    """Expected calibration error in percent, from bins (images, mean confidence, share right): Guo et al. 2017."""
    total = sum(n for n, _, _ in bins)
    return 100 * sum(n * abs(confidence - right) for n, confidence, right in bins) / total if total else 0.0


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """The mean and the standard deviation of a sample (0 for one value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
