"""What an experiment is: runs, attacks, evaluations, tables, figures and claims, as a file says them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]

TOGETHER = ("mix", "soft_label", "seed")
"""What several runs may differ in and still be trained together."""

INHERITED = ("dataset", "image_size", "arch", "arch_arg", "normalize")
"""What a run takes over from what it begins from."""

MATCHED = ("seed", "dataset")
"""What the cells of two runs must agree on to meet, where both have it."""


@dataclasses.dataclass(frozen=True)
class Of:
    """Cells of a run: those whose values are as `at` says."""

    run: str
    at: Values = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One model of an experiment: of a run, with its values in the grid."""

    run: str
    values: tuple[tuple[str, Any], ...]

    @property
    def known(self) -> dict[str, Any]:
        """The values by name."""
        return dict(self.values)

    def fits(self, of: Of) -> bool:
        """Whether it is one of those."""
        known = self.known
        return self.run == of.run and all(known.get(name) == value for name, value in of.at.items())

    def agrees(self, other: Cell) -> bool:
        """Whether it is what meets the other: they differ in nothing that must be the same."""
        mine, theirs = self.known, other.known
        return all(mine[name] == theirs[name] for name in MATCHED if name in mine and name in theirs)

    def __str__(self) -> str:
        return " ".join([self.run, *(f"{name}={value}" for name, value in self.values)])


@dataclasses.dataclass(frozen=True)
class Run:
    """A request to train, and the grid of options that multiplies it. `init` are cells of another run, or a model."""

    id: str
    command: str
    options: Values
    grid: Mapping[str, tuple[Any, ...]]
    init: Of | str | None = None

    def cells(self) -> list[Cell]:
        """All combinations, the last option the fastest."""
        return [
            Cell(self.id, tuple(zip(self.grid, values, strict=True)))
            for values in itertools.product(*self.grid.values())
        ]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What is done with each cell of some runs: an attack, whose images are kept, or an evaluation.

    `samples` are the attacks whose images an evaluation's models meet, too.
    """

    id: str
    of: tuple[Of, ...]
    options: Values
    samples: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Figure:
    """Which figure of an evaluation: what was met, `on`, and whether its accuracy or its loss.

    `on` is "clean", "certified", "worst case", an attack's name, or the id of an attack of the file, whose images are
    then those made against the cell that `at` says. Of several evaluations it is the first that has the cell. The
    figure "saturation" is of no evaluation, but of an attack's images: how much more colour they have than before.
    """

    evaluations: tuple[str, ...]
    on: str = "clean"
    figure: str = "accuracy"
    at: Values = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table: cells, which a column's figure is the mean of, and the values it is to be compared with."""

    label: str
    of: Of
    reference: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells, columns of figures."""

    id: str
    title: str
    columns: Mapping[str, Figure]
    rows: tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of cells: `kind` as `advmix visualize` has it."""

    id: str
    title: str
    kind: str
    of: tuple[Of, ...]
    attack: str | None = None


@dataclasses.dataclass(frozen=True)
class Claim:
    """A sentence, and what would have to be so.

    `order`: each of them has a higher figure than the next. `below`: the one's figure is surely below so many percent.
    `keeps`: the first loses surely less than so many points against the second.
    """

    id: str
    claim: str
    figure: Figure
    order: tuple[Of, ...]
    below: float | None = None
    keeps: float | None = None


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All of it."""

    title: str
    summary: str
    runs: Mapping[str, Run]
    attacks: Mapping[str, Measured]
    evaluations: Mapping[str, Measured]
    tables: Mapping[str, Table]
    pictures: Mapping[str, Picture]
    claims: Mapping[str, Claim]
    scale: str
    file: str

    def evaluates(self, figure: Figure, cell: Cell) -> str | None:
        """The first evaluation of a figure that has the cell, None for none."""
        return next((id for id in figure.evaluations if any(map(cell.fits, self.evaluations[id].of))), None)

    def dataset(self, id: str) -> Any:
        """The data set of a table or picture."""
        of = self.tables[id].rows[0].of if id in self.tables else self.pictures[id].of[0]
        return self.learned(of.run, of.at)

    def learned(self, run: str, values: Values) -> Any:
        """The data set of cells of a run with those values in the grid."""
        return self.said(run, values).get("dataset")

    def said(self, run: str, values: Values) -> dict[str, Any]:
        """All options of such cells: where nothing is said, images and network are those of what they begin from."""
        chosen = self.runs[run]
        begun = self.said(chosen.init.run, chosen.init.at) if isinstance(chosen.init, Of) else {}
        return {name: each for name, each in begun.items() if name in INHERITED} | {**chosen.options, **values}
