"""An experiment's file: TOML in, an `Experiment` out; an error names the line, and for an unknown key the nearest."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from advmix_cli.errors import UsageError, nearest
from advmix_cli.experiments import lines
from advmix_cli.experiments.shape import Claim, Experiment, Figure, Measured, Of, Picture, Row, Run, Table
from advmix_cli.experiments.values import COMMANDS, options_of, taken

FIGURES = ("accuracy", "loss", "saturation")
PICTURES = ("curves", "samples", "mixing")
MOST_CELLS = 10_000
_WANTS = {"runs": "run", "attacks": "attack", "evaluations": "evaluation"}


def read(text: str, file: str, *, scale: str | None = None, seeds: int | None = None,
         override: Mapping[str, Any] | None = None) -> Experiment:  # fmt: skip
    """The experiment that a file describes, at one of its scales (None: the first); with so many seeds where said.

    `override` are options that all parts take that know them and do not say their own. Raises UsageError with the line.
    """
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file}: {error}", "the file must be TOML: advmix run --init writes an example") from None
    return _Reader(file, content, lines.lines_of(text), scale, seeds, override or {}).experiment()


class _Reader:
    def __init__(
        self,
        file: str,
        content: dict[str, Any],
        where: dict[lines.Path, int],
        scale: str | None,
        seeds: int | None,
        override: Mapping[str, Any],
    ) -> None:
        self.file, self.content, self.where, self.override = file, content, where, override
        self.scales: dict[str, Any] = self.tables("scale")
        self.scale = scale if scale is not None else next(iter(self.scales), "")
        if scale is not None and scale not in self.scales:
            raise self.wrong(("scale",), f"there is no scale {scale!r}", nearest(scale, self.scales))
        self.seeds = seeds

    def wrong(self, path: lines.Path, message: str, hint: str = "") -> UsageError:
        return UsageError(f"{self.file}:{lines.line_of(self.where, path)}: {message}", hint)

    # Pieces

    def tables(self, name: str) -> dict[str, dict[str, Any]]:
        found = self.content.get(name, {})
        if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
            raise self.wrong((name,), f"{name} must be tables", f"write [{name}.NAME]")
        return found

    def keys(self, path: lines.Path, found: Mapping[str, Any], known: Iterable[str], must: Sequence[str] = ()) -> None:
        for key in found:
            if key not in set(known):
                raise self.wrong((*path, key), f"unknown key {key!r}", nearest(key, known))
        for key in must:
            if key not in found:
                raise self.wrong(path, f"{'.'.join(map(str, path))} lacks {key!r}", "see advmix run --init")

    def text(self, path: lines.Path, value: Any) -> str:
        if not isinstance(value, str):
            raise self.wrong(path, f"{path[-1]} must be a text, not {value!r}")
        return value

    def names(self, path: lines.Path, value: Any) -> list[Any]:
        """One or several, as a list."""
        return list(value) if isinstance(value, list) else [value]

    def values(self, path: lines.Path, command: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the options that the command knows."""
        known = options_of(command)
        return {name: self.value((*path, name), known[name], each) for name, each in given.items() if name in known}

    def value(self, path: lines.Path, hint: Any, value: Any) -> Any:
        """A value as the option takes it."""
        try:
            return taken(hint, value, Path(self.file).resolve().parent)
        except ValueError as error:
            raise self.wrong(path, f"{path[-1]} {error}") from None

    def of(self, path: lines.Path, value: Any) -> tuple[Of, ...]:
        """Cells of runs: a name, a table with `run` and `at`, or a list of those."""
        return tuple(self.one_of(path, each) for each in self.names(path, value))

    def one_of(self, path: lines.Path, value: Any) -> Of:
        if isinstance(value, str):
            value = {"run": value}
        if not isinstance(value, dict):
            raise self.wrong(path, f"{value!r} names no run", 'write "NAME" or {run = "NAME", at = {mix = "mixup"}}')
        self.keys(path, value, ("run", "at"), ("run",))
        run = self.known(path, "runs", self.text(path, value["run"]))
        at = value.get("at", {})
        if not isinstance(at, dict):
            raise self.wrong(path, f"at must be a table, not {at!r}", 'write at = {mix = "mixup"}')
        return Of(run, at)

    def known(self, path: lines.Path, section: str, name: str) -> str:
        """A name that the file gives to something of that section."""
        if name in self.tables(section):
            return name
        other = next((each for each in ("tables", "figures", "claims", *_WANTS) if name in self.tables(each)), None)
        what = (
            f"{name!r} is in {other}, and no {_WANTS[section]}" if other else f"there is no {_WANTS[section]} {name!r}"
        )
        raise self.wrong(path, what, nearest(name, self.tables(section)))

    # Sections

    def experiment(self) -> Experiment:
        sections = ("title", "summary", "defaults", "scale", "figures", "tables", "claims", *_WANTS)
        self.keys((), self.content, sections)
        for name in ("title", "summary"):
            self.text((name,), self.content.get(name, ""))
        self.scaled()
        runs = {id: self.run(id, given) for id, given in self.tables("runs").items()}
        if not runs:
            raise UsageError(f"{self.file}:1: there are no runs", "see advmix run --init")
        attacks = {id: self.measured("attacks", "attack", id, given) for id, given in self.tables("attacks").items()}
        evaluations = {
            id: self.measured("evaluations", "eval", id, given) for id, given in self.tables("evaluations").items()
        }
        return self.checked(
            Experiment(
                title=self.content.get("title", self.file),
                summary=self.content.get("summary", ""),
                runs=runs,
                attacks=attacks,
                evaluations=evaluations,
                tables={id: self.table(id, given) for id, given in self.tables("tables").items()},
                pictures={id: self.picture(id, given) for id, given in self.tables("figures").items()},
                claims={id: self.claim(id, given) for id, given in self.tables("claims").items()},
                scale=self.scale,
                file=self.file,
            )
        )

    def scaled(self) -> None:
        """Check all scales, also those that are not asked for."""
        for scale, given in self.scales.items():
            self.keys(("scale", scale), given, ("seeds", *COMMANDS, *_WANTS))
            for command in COMMANDS:
                self.override_of(("scale", scale, command), command, given.get(command, {}))
            for section, each in ((section, given.get(section, {})) for section in _WANTS):
                if not isinstance(each, dict):
                    raise self.wrong(("scale", scale, section), f"{section} must be tables of options")
                self.keys(("scale", scale, section), each, self.tables(section))
                for id, options in each.items():
                    own = {"attacks": "attack", "evaluations": "eval"}.get(section)
                    command = own or self.tables("runs")[id].get("command", "train")
                    self.override_of(("scale", scale, section, id), command, options)
            seeds = given.get("seeds", 1)
            if type(seeds) is not int or not 1 <= seeds <= 1000:
                raise self.wrong(("scale", scale, "seeds"), f"seeds must be from 1 to 1000, not {seeds!r}")

    def override_of(self, path: lines.Path, command: str, options: Any) -> None:
        if not isinstance(options, dict):
            raise self.wrong(path, f"{path[-1]} must be a table of options")
        self.keys(path, options, options_of(command))
        self.values(path, command, options)

    def chosen(self, path: lines.Path, command: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a command: the file's defaults, its own, the scale's, the scale's of it, and those given."""
        defaults = self.content.get("defaults", {})
        if not isinstance(defaults, dict):
            raise self.wrong(("defaults",), "defaults must be a table of options")
        self.keys(("defaults",), defaults, {option for each in COMMANDS for option in options_of(each)})
        scale = self.scales.get(self.scale, {})
        section, id = path
        return (
            self.values(("defaults",), command, defaults)
            | self.values(path, command, given)
            | self.values(("scale", self.scale, command), command, scale.get(command, {}))
            | self.values(("scale", self.scale, section, id), command, scale.get(section, {}).get(id, {}))
            | self.values((), command, {name: each for name, each in self.override.items() if name not in given})
        )

    def run(self, id: str, given: dict[str, Any]) -> Run:
        path = ("runs", id)
        command = self.text((*path, "command"), given.get("command", "train"))
        if command not in ("train", "advtrain"):
            raise self.wrong((*path, "command"), f"a run is train or advtrain, not {command!r}")
        begins = ("init",) if command == "advtrain" else ()
        self.keys(path, given, ("command", "grid", *begins, *options_of(command)))
        grid = given.get("grid", {})
        if not isinstance(grid, dict):
            raise self.wrong((*path, "grid"), "grid must be a table of lists", "write grid.mix = [...]")
        self.keys((*path, "grid"), grid, options_of(command))
        seeds = self.seeds or self.scales.get(self.scale, {}).get("seeds")
        if seeds and "seed" not in given:
            grid = {name: each for name, each in grid.items() if name != "seed"} | {"seed": list(range(seeds))}
        cells = {name: self.several((*path, "grid", name), command, name, each) for name, each in grid.items()}
        size = math.prod(map(len, cells.values()))
        if size > MOST_CELLS:
            raise self.wrong((*path, "grid"), f"a grid of {size:,} runs", f"at most {MOST_CELLS:,}")
        options = {name: each for name, each in given.items() if name not in ("command", "grid", "init")}
        both = sorted(set(options) & set(cells))
        if both:
            raise self.wrong((*path, both[0]), f"{both[0]} stands in the grid, too", "say it once")
        chosen = self.chosen(path, command, options)
        begin = self.begin((*path, "init"), given["init"]) if "init" in given else None
        return Run(id, command, {name: each for name, each in chosen.items() if name not in cells}, cells, begin)

    def begin(self, path: lines.Path, init: Any) -> Of | str:
        """What a run begins from: cells of a run of the file, else a model as the command line takes it."""
        if isinstance(init, dict):
            return self.one_of(path, init)
        name = self.text(path, init)
        of_the_file = any(name in self.tables(each) for each in ("runs", "tables", "figures", "claims"))
        return self.one_of(path, name) if of_the_file else name

    def several(self, path: lines.Path, command: str, name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or not value:
            raise self.wrong(path, f"{name} must be a list with something in it, not {value!r}")
        hint = options_of(command)[name]
        found = [self.value(path, hint, each) for each in value]
        plain = tuple(each[0] if isinstance(each, tuple) and len(each) == 1 else each for each in found)
        if len(set(plain)) < len(plain):
            raise self.wrong(path, f"{name} has the same value twice", "leave one out")
        return plain

    def measured(self, section: str, command: str, id: str, given: dict[str, Any]) -> Measured:
        path = (section, id)
        also = ("samples",) if command == "eval" else ()
        self.keys(path, given, ("of", *also, *options_of(command)), ("of",))
        samples = tuple(
            self.known((*path, "samples"), "attacks", self.text((*path, "samples"), each))
            for each in self.names((*path, "samples"), given.get("samples", []))
        )
        options = {name: each for name, each in given.items() if name not in ("of", "samples")}
        return Measured(id, self.of((*path, "of"), given["of"]), self.chosen(path, command, options), samples)

    def figure(self, path: lines.Path, given: Any) -> Figure:
        if not isinstance(given, dict):
            raise self.wrong(path, f"{path[-1]} must be a table", 'write {evaluation = "NAME", on = "clean"}')
        figure, at = given.get("figure", "accuracy"), given.get("at", {})
        if figure not in FIGURES:
            raise self.wrong(path, f"figure is {', '.join(FIGURES)}, not {figure!r}")
        if not isinstance(at, dict):
            raise self.wrong(path, f"at must be a table, not {at!r}")
        if figure == "saturation":
            self.keys(path, given, ("on", "figure"), ("on",))
            return Figure((), self.known(path, "attacks", self.text(path, given["on"])), figure)
        self.keys(path, given, ("evaluation", "on", "figure", "at"), ("evaluation",))
        evaluations = tuple(
            self.known(path, "evaluations", self.text(path, each)) for each in self.names(path, given["evaluation"])
        )
        if not evaluations:
            raise self.wrong(path, "evaluation must be a name or several, not an empty list")
        return Figure(evaluations, self.text(path, given.get("on", "clean")), figure, at)

    def table(self, id: str, given: dict[str, Any]) -> Table:
        path = ("tables", id)
        self.keys(path, given, ("title", "columns", "rows"), ("columns", "rows"))
        columns, rows = given["columns"], given["rows"]
        if not isinstance(columns, dict) or not columns:
            raise self.wrong((*path, "columns"), "columns must be a table of figures", "see advmix run --init")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
            raise self.wrong((*path, "rows"), "rows must be tables", f"write [[tables.{id}.rows]]")
        found = []
        for number, row in enumerate(rows):
            at = (*path, "rows", number)
            self.keys(at, row, ("row", "of", "reference"), ("row", "of"))
            reference = row.get("reference", {})
            if not isinstance(reference, dict) or not all(type(v) in (int, float) for v in reference.values()):
                raise self.wrong((*at, "reference"), "reference must be numbers by column")
            self.keys((*at, "reference"), reference, columns)
            found.append(Row(self.text((*at, "row"), row["row"]), self.one_of((*at, "of"), row["of"]), reference))
        figures = {name: self.figure((*path, "columns", name), each) for name, each in columns.items()}
        for name, figure in figures.items():
            if figure.figure == "saturation":
                raise self.wrong((*path, "columns", name), "saturation is for claims, and no table has it")
        return Table(id, self.text((*path, "title"), given.get("title", id)), figures, tuple(found))

    def picture(self, id: str, given: dict[str, Any]) -> Picture:
        path = ("figures", id)
        self.keys(path, given, ("title", "kind", "of", "attack"), ("kind", "of"))
        if given["kind"] not in PICTURES:
            raise self.wrong((*path, "kind"), f"unknown kind {given['kind']!r}", nearest(str(given["kind"]), PICTURES))
        attack = given.get("attack")
        if (attack is None) == (given["kind"] == "samples"):
            raise self.wrong(path, "samples are those of an attack, and nothing else is", 'write attack = "NAME"')
        if attack is not None:
            self.known((*path, "attack"), "attacks", self.text((*path, "attack"), attack))
        title = self.text((*path, "title"), given.get("title", id))
        return Picture(id, title, given["kind"], self.of((*path, "of"), given["of"]), attack)

    def claim(self, id: str, given: dict[str, Any]) -> Claim:
        path = ("claims", id)
        self.keys(path, given, ("claim", "figure", "order", "below", "keeps"), ("claim", "figure", "order"))
        order = self.of((*path, "order"), given["order"])
        for name in ("below", "keeps"):
            if name in given and type(given[name]) not in (int, float):
                raise self.wrong((*path, name), f"{name} must be a number, not {given[name]!r}")
        if len(order) != {"below": 1, "keeps": 2}.get(next((n for n in ("below", "keeps") if n in given), ""), 0) and (
            "below" in given or "keeps" in given or len(order) < 2
        ):
            raise self.wrong((*path, "order"), "an order has two at least, below one, keeps two")
        figure = self.figure((*path, "figure"), given["figure"])
        if figure.figure == "saturation" and "below" not in given:
            raise self.wrong((*path, "figure"), "saturation is surely below something, or no claim", "write below = 0")
        return Claim(
            id, self.text((*path, "claim"), given["claim"]), figure, order,
            given.get("below"), given.get("keeps"),
        )  # fmt: skip

    def checked(self, experiment: Experiment) -> Experiment:
        """What only the whole can tell: who begins from whom, and that there is what tables speak of."""
        for id in experiment.runs:
            seen, run = [id], experiment.runs[id]
            while isinstance(run.init, Of):
                if run.init.run in seen:
                    raise self.wrong(("runs", id, "init"), f"a circle: {' begins from '.join([*seen, run.init.run])}")
                seen.append(run.init.run)
                run = experiment.runs[run.init.run]
        return experiment
