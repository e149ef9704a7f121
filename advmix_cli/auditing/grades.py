"""What the audit's findings are called, and when."""

from __future__ import annotations

import dataclasses

from advmix_cli.statistics import wilson

NEGLIGIBLE = 0.5
"""Percent of all images that must surely be concerned before a check of shares may be worse than a note."""
IMAGES, SHARE, LOGITS, POINTS = "% of images", "% of those that stood", "in logits", "points"
"""Units of what checks find."""


@dataclasses.dataclass(frozen=True)
class Check:
    """What one check found: `value` in `unit`; `verdict` is ok, note or one of `config.VERDICTS` but the first."""

    name: str
    verdict: str
    value: float
    advice: str
    unit: str = IMAGES

    @classmethod
    def graded(cls, name: str, value: float, limits: tuple[float, ...], advice: str, unit: str = IMAGES) -> Check:
        """A check of a value that should be small, with advice where it is above the first of the `limits`."""
        return cls(name, graded(value, *limits), value, advice if value > limits[0] else "", unit)


def graded(value: float, note: float, suspicious: float, masked: float = float("inf")) -> str:
    """The verdict of a value that should be small."""
    return "masked" if value > masked else "suspicious" if value > suspicious else "note" if value > note else "ok"


def graded_share(taken: int, stood: int, n: int, suspicious: float, masked: float) -> str:
    """The verdict where `taken` of the `stood` of n images should not have been taken.

    What counts is the share of what stood, in percent, and of its 95 % interval the lower end: a model of which little
    stands can lose all of that, and one image is no proof. A verdict worse than a note wants more than half a percent
    of all images, too.
    """
    if not taken:
        return "ok"
    verdict = graded(wilson(taken, stood)[0], -1, suspicious, masked)
    return verdict if wilson(taken, n)[0] > NEGLIGIBLE else "note"
