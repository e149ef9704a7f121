"""What a command gives back: data for scripts, blocks for people, references for pipelines. Nothing prints here."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from advmix_cli.errors import AdvmixError
from advmix_cli.statistics import wilson


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under column names; columns named in `right` are numbers."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    title: str = ""
    right: tuple[str, ...] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """Labelled values, one a line."""

    rows: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Result:
    """`data` is the JSON envelope's, `refs` what -q prints, `blocks` what people see, `hint` what may come next.

    `problem` is the error that a finding amounts to, such as a damaged file that verify met: shown after the rest.
    `records` are the rows of its main table in plain values, for CSV.
    """

    data: dict[str, Any]
    refs: list[str]
    blocks: list[Table | Facts]
    hint: str = ""
    problem: AdvmixError | None = None
    records: Sequence[Mapping[str, Any]] = ()


def shown(text: str) -> str:
    """Text that can be shown anywhere: what would steer a terminal, or turn a line around, is written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def accuracy(correct: int, n: int) -> str:
    """An accuracy with its 95 % interval, for people."""
    low, high = wilson(correct, n)
    return f"{100 * correct / n:.2f} % [{low:.2f}, {high:.2f}]"


def share(percent: float, n: int) -> str:
    """The same from an accuracy in percent, with the number of images."""
    return f"{accuracy(round(percent * n / 100), n)} of {n}"


def duration(seconds: float) -> str:
    """So many seconds, for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def changes(change: Mapping[str, float]) -> str:
    """How far attacked images lie from their originals, for people: `linf_max` and `l2_max` in pixel units."""
    return f"linf {change['linf_max']:.6f}, l2 {change['l2_max']:.6f} (pixel units)"


def costs(passes: Sequence[Sequence[int]], n: int) -> dict[str, float]:
    """Passes (forward, backward) of parts of an attack on n images, an image, for scripts; nothing where unknown."""
    if not passes:
        return {}
    forward, backward = (sum(each) / n for each in zip(*passes, strict=True))
    return {"forward_passes": forward, "backward_passes": backward}


def cost(passes: Sequence[Sequence[int]], n: int) -> str:
    """The same for people, of parts that are known."""
    return "{forward_passes:,.0f} forward and {backward_passes:,.0f} backward passes an image".format(
        **costs(passes, n)
    )


def stages(after: Sequence[Sequence[Any]], passes: Sequence[Sequence[int]], n: int) -> list[dict[str, Any]]:
    """How many of n images still stood after each part of an attack, and what it took, for scripts."""
    each = zip(after, [[part] for part in passes] or [[]] * len(after), strict=True)
    return [{"attack": part, "robust_accuracy": 100 * left / n, **costs(took, n)} for (part, left), took in each]


def counted(n: int, one: str) -> str:
    """So many of a thing."""
    return f"{n:,} {one}" if n == 1 else f"{n:,} {one}s"


def beginning(names: Sequence[str]) -> str:
    """What all names begin with."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same)


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number behind each that was there before."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found
