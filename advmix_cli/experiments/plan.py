"""The graph of what needs what: parts, each a request once what it needs is there, and the order they can go in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from advmix_cli import requests
from advmix_cli.errors import UsageError
from advmix_cli.experiments.shape import TOGETHER, Cell, Experiment, Figure, Measured, Of, Run
from advmix_cli.experiments.values import COMMANDS
from advmix_cli.settings import digest


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of work: cells of a run that are trained together, or one cell's attack or evaluation.

    `needs` are the parts that must be done before.
    """

    kind: str
    id: str
    cells: tuple[Cell, ...]
    options: tuple[tuple[str, Any], ...]
    begin: Cell | str | None = None
    caches: tuple[tuple[str, Cell], ...] = ()
    needs: tuple[Part, ...] = ()

    def __str__(self) -> str:
        if len(self.cells) == 1:
            return f"{self.id} of {self.cells[0]}" if self.kind in ("attack", "eval") else str(self.cells[0])
        first, last = self.cells[0].known, self.cells[-1].known
        differ = [name for name in first if first[name] != last[name]]
        alike = [f"{name}={value}" for name, value in first.items() if name not in differ]
        return " ".join([self.id, *alike, f"({len(self.cells)} of {', '.join(differ)})"])

    @property
    def key(self) -> str:
        """What tells it from other parts, whoever carries it out: for locks."""
        own = [self.kind, self.id, [[c.run, list(map(list, c.values))] for c in self.cells], [*map(list, self.options)]]
        return digest([own, str(self.begin), [need.key for need in self.needs]])[:16]

    def request(self, names: dict[Cell, str], caches: dict[tuple[str, Cell], str]) -> Any:
        """What is asked for, given the names of what it needs."""
        options = dict(self.options)
        if self.kind in ("train", "advtrain"):
            for name in TOGETHER:
                values = dict.fromkeys(cell.known[name] for cell in self.cells if name in cell.known)
                options |= {name: tuple(values)} if values else {}
            if self.kind == "advtrain" and self.begin is not None:
                options["init"] = names[self.begin] if isinstance(self.begin, Cell) else self.begin
            return COMMANDS[self.kind](**options)
        (cell,) = self.cells
        if self.kind == "attack":
            return requests.Attack(model=names[cell], **options)
        return requests.Evaluate(models=[names[cell]], samples=[caches[cache] for cache in self.caches], **options)


def parts(experiment: Experiment, tables: Sequence[str] | None = None) -> list[Part]:
    """What is to be done, each after what it needs; of all the tables, pictures and claims or of those alone."""
    return _Planning(experiment).parts(tables)


def cells_of(experiment: Experiment, of: Iterable[Of]) -> list[Cell]:
    """The cells that are meant, each once. Raises UsageError where there are none of one."""
    found: dict[Cell, None] = {}
    for each in of:
        cells = [cell for cell in experiment.runs[each.run].cells() if cell.fits(each)]
        if not cells:
            said = ", ".join(f"{name}={value}" for name, value in each.at.items())
            raise UsageError(
                f"{experiment.file}: {each.run} has no cell with {said}",
                "its grid: " + "; ".join(f"{n}: {', '.join(map(str, v))}"
                                         for n, v in experiment.runs[each.run].grid.items()),
            )  # fmt: skip
        found |= dict.fromkeys(cells)
    return list(found)


class _Planning:
    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.trained: dict[Cell, Part] = {}
        self.attacked: dict[tuple[str, Cell], Part] = {}
        for run in experiment.runs.values():
            self.train(run)
        for attack in experiment.attacks.values():
            for cell in cells_of(experiment, attack.of):
                self.attacked[attack.id, cell] = self.part("attack", attack, cell)

    def parts(self, only: Sequence[str] | None) -> list[Part]:
        experiment = self.experiment
        wanted: dict[Part, None] = {}
        speak = self.speak(only)
        for id, cell in speak:
            made = self.attacked[id, cell] if id in experiment.attacks else None
            self.add(wanted, made or self.evaluation(experiment.evaluations[id], cell))
        for id, picture in experiment.pictures.items():
            if only is None or id in only:
                for cell in cells_of(experiment, picture.of):
                    if picture.attack is None:
                        self.add(wanted, self.trained[cell])
                    else:
                        self.add(wanted, self.attacked[self.checked(picture.attack, cell)])
        if only is None:
            for part in [*self.trained.values(), *self.attacked.values()]:
                self.add(wanted, part)
        return list(wanted)

    def speak(self, only: Sequence[str] | None) -> list[tuple[str, Cell]]:
        """(evaluation or attack, cell) of all that tables and claims speak of, and if all is wanted of all others."""
        experiment = self.experiment
        found: dict[tuple[str, Cell], None] = {}
        for id, table in experiment.tables.items():
            if only is None or id in only:
                for row in table.rows:
                    for cell in cells_of(experiment, [row.of]):
                        found |= {self.measuring(column, cell): None for column in table.columns.values()}
        if only is None:
            for claim in experiment.claims.values():
                found |= {self.measuring(claim.figure, cell): None for cell in cells_of(experiment, claim.order)}
            found |= {(id, cell): None for id, each in experiment.evaluations.items()
                      for cell in cells_of(experiment, each.of)}  # fmt: skip
        return list(found)

    def measuring(self, figure: Figure, cell: Cell) -> tuple[str, Cell]:
        """What measures a figure of a cell. Raises UsageError where nothing does."""
        if not figure.evaluations:
            return self.checked(figure.on, cell)
        id = self.experiment.evaluates(figure, cell)
        if id is None:
            said = f"{self.experiment.file}: {' or '.join(figure.evaluations)} does not evaluate {cell}"
            raise UsageError(said, "add its run to `of`")
        return id, cell

    def checked(self, attack: str, cell: Cell) -> tuple[str, Cell]:
        if (attack, cell) not in self.attacked:
            raise UsageError(f"{self.experiment.file}: {attack} does not attack {cell}", "add its run to `of`")
        return attack, cell

    def add(self, wanted: dict[Part, None], part: Part) -> None:
        for need in part.needs:
            self.add(wanted, need)
        wanted[part] = None

    def train(self, run: Run) -> None:
        """Parts of all its cells: together those that differ in what can be, and begin from the same."""
        if run.id in {cell.run for cell in self.trained}:
            return
        groups: dict[Any, list[Cell]] = {}
        for cell in run.cells():
            apart = tuple((name, value) for name, value in cell.values if name not in TOGETHER)
            groups.setdefault((apart, self.begin(run, cell)), []).append(cell)
        for (apart, begin), cells in groups.items():
            options = tuple(sorted((dict(run.options) | dict(apart)).items()))
            needs = (self.trained[begin],) if isinstance(begin, Cell) else ()
            part = Part(run.command, run.id, tuple(cells), options, begin, needs=needs)
            self.trained |= dict.fromkeys(cells, part)

    def begin(self, run: Run, cell: Cell) -> Cell | str | None:
        if not isinstance(run.init, Of):
            return run.init
        self.train(self.experiment.runs[run.init.run])
        mine = cell.known
        found = [
            other for other in cells_of(self.experiment, [run.init])
            if all(mine.get(name, value) == value for name, value in other.values if name not in run.init.at)
        ]  # fmt: skip
        if len(found) != 1:
            raise UsageError(
                f"{self.experiment.file}: {cell} could begin from {len(found)} models of {run.init.run}",
                'say which: init = {run = "NAME", at = {mix = "none"}}',
            )
        return found[0]

    def part(self, kind: str, measured: Measured, cell: Cell, caches: Sequence[tuple[str, Cell]] = ()) -> Part:
        needs = (self.trained[cell], *(self.attacked[cache] for cache in caches))
        return Part(
            kind, measured.id, (cell,), tuple(sorted(measured.options.items())), caches=tuple(caches), needs=needs
        )

    def evaluation(self, evaluation: Measured, cell: Cell) -> Part:
        """One model's evaluation; it meets the caches of those that it agrees with."""
        learned = self.experiment.learned
        caches = [
            (attack, other) for attack in evaluation.samples
            for other in cells_of(self.experiment, self.experiment.attacks[attack].of)
            if cell.agrees(other) and learned(cell.run, cell.known) == learned(other.run, other.known)
        ]  # fmt: skip
        return self.part("eval", evaluation, cell, caches)
