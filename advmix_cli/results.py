"""What a command gives back: data for scripts, blocks for people, references for pipelines. Nothing prints here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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
    """

    data: dict[str, Any]
    refs: list[str]
    blocks: list[Table | Facts]
    hint: str = ""
    problem: AdvmixError | None = None


def percent(value: float) -> str:
    """An accuracy for people."""
    return f"{value:.2f} %"


def accuracy(correct: int, n: int) -> str:
    """An accuracy with its 95 % interval, for people."""
    low, high = wilson(correct, n)
    return f"{100 * correct / n:.2f} % [{low:.2f}, {high:.2f}]"
