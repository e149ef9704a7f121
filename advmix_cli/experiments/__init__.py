"""Experiments as files: what to train, attack, evaluate and show, and the claims to be judged by it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import files
from advmix_cli.errors import NotFoundError, UsageError, known_name
from advmix_cli.results import Facts, Result, Table, duration
from advmix_cli.settings import plain
from advmix_cli.workflows.session import Session

if TYPE_CHECKING:
    from advmix_cli.experiments import plan, shape
    from advmix_cli.experiments.carrying import Found
    from advmix_cli.experiments.cluster import Cluster

LARGEST = 1 << 20
"""Bytes of an experiment's file."""

REPORT = "report.toml"
EXAMPLE = "example.toml"


def shipped(name: str) -> str:
    """The text of an experiment that ships."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """`advmix run`: a file, at one of its scales. `only` are the tables and figures that are wanted, None: all."""

    file: Path | None
    scale: str | None = None
    only: Sequence[str] | None = None
    dataset: str | None = None
    seeds: int | None = None
    override: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dry_run: bool = False
    keep_going: bool = False
    out: Path | None = None
    on: str | None = None
    workers: int | None = None
    slurm: Sequence[str] = ()
    watch: bool = False

    def resolve(self, session: Session) -> Carrying:
        """What is to be done; the file is read, and nothing is computed."""
        from advmix_cli.experiments import plan, reading
        from advmix_cli.experiments.cluster import WHERE, Cluster

        name = REPORT if self.file is None else str(self.file)
        text = shipped(REPORT) if self.file is None else _text(self.file)
        experiment = reading.read(text, name, scale=self.scale, seeds=self.seeds, override=self.override)
        only = self._only(experiment)
        parts = plan.parts(experiment, only)
        out = self.out or Path(f"{Path(name).stem}-{experiment.scale}" if experiment.scale else Path(name).stem)
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out} is a file, and a folder is wanted", "give another name")
        if self.on is not None:
            known_name(self.on, WHERE, "place for --on")
        for each in self.slurm:
            if not each.partition("=")[2] or self.on != "slurm":
                raise UsageError(
                    f"--slurm {each!r} says nothing", "it is KEY=VALUE, with --on slurm: --slurm partition=gpu"
                )
        if self.watch and (self.dry_run or self.on is not None):
            raise UsageError(
                "--watch looks on, and does nothing itself", "start the work with another call, without --watch"
            )
        cluster = (
            Cluster(self.on, self.workers or 2, dict(each.split("=", 1) for each in self.slurm)) if self.on else None
        )
        return Carrying(experiment, parts, only, out, self.dry_run, self.keep_going, cluster, self.watch)

    def _only(self, experiment: shape.Experiment) -> list[str] | None:
        """The tables and figures that are wanted: by their ids, by the beginning of these, of one data set."""
        if not self.only and self.dataset is None:
            return None
        known = [*experiment.tables, *experiment.pictures]
        wanted = []
        for name in self.only or ("",):
            found = [id for id in known if not name or id == name or id.startswith(f"{name}-")]
            wanted += found or [known_name(name, known, "table or figure")]
        on = [id for id in wanted if self.dataset is None or experiment.dataset(id) == self.dataset]
        if not on:
            raise UsageError(f"none of these is on {self.dataset}", "leave --dataset out")
        return list(dict.fromkeys(on))


def _text(path: Path) -> str:
    if path.is_dir():
        raise UsageError(f"{path} is a folder", "give a TOML file; advmix run --init FILE writes an example")
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}", f"advmix run --init {path} writes an example")
    try:
        return files.read(path, LARGEST).decode()
    except UnicodeDecodeError:
        raise UsageError(f"{path}:1: the file is no text", "it must be TOML in UTF-8") from None


@dataclasses.dataclass(frozen=True)
class Carrying:
    """An experiment that is to be carried out."""

    experiment: shape.Experiment
    parts: list[plan.Part]
    only: Sequence[str] | None
    out: Path
    dry_run: bool
    keep_going: bool
    cluster: Cluster | None = None
    watch: bool = False

    def carry_out(self, session: Session) -> Result:
        """Do what is not done, and collect the figures."""
        if self.dry_run:
            return self._planned(session)
        if self.watch:
            from advmix_cli.experiments import watching

            return watching.watch(session, self.parts)
        from advmix_cli.experiments import carrying, drawing, pages, writing

        if self.cluster is None:
            found = carrying.carry_out(session, self.parts, keep_going=self.keep_going)
        else:
            found = self._as_jobs(session, self.cluster)
        data = writing.collected(session, self.experiment, found, self.parts, self.only)
        self.out.mkdir(parents=True, exist_ok=True)
        data["figures"] = drawing.draw(session, self.experiment, found, self.only, self.out)
        whole = json.dumps(plain(data), indent=1, allow_nan=False) + "\n"
        for name, content in (
            ("results.json", whole), ("results.md", writing.markdown(data)),
            ("results.html", pages.html(data, self.out)),
        ):  # fmt: skip
            session.store.write((self.out / name).absolute(), content.encode())
        problem = next(iter(found.failed.values()), None)
        where = Facts([("written to", str(self.out))])
        return Result(
            data | {"out": str(self.out)}, [str(self.out / "results.json")], [*writing.tables_of(data), where],
            problem=problem, records=writing.records_of(data),
        )  # fmt: skip

    def _as_jobs(self, session: Session, on: Cluster) -> Found:
        from advmix_cli.experiments import cluster
        from advmix_cli.experiments.estimate import Estimate

        return cluster.carry_out(
            session, self.parts, on, seconds=Estimate(session, self.experiment).seconds, keep_going=self.keep_going
        )

    def _planned(self, session: Session) -> Result:
        """Each part and how long it will take; of those in the store nothing."""
        from advmix_cli.experiments import carrying
        from advmix_cli.experiments.estimate import Estimate

        left, rates = carrying.stored(session, self.parts).failed, Estimate(session, self.experiment)
        with session.report.progress("measuring", len(self.parts), "parts") as progress:
            seconds = []
            for part in self.parts:
                seconds.append(rates.seconds(part) if part in left else 0.0)
                progress(1)
        whole = list(zip(self.parts, seconds, strict=True))
        rows = [
            (str(i), part.kind, str(part), "in the store" if part not in left else duration(spent))
            for i, (part, spent) in enumerate(whole, 1)
        ]
        note = f"in all {duration(sum(seconds))}, from rates measured now; nothing was done: --dry-run"
        parts = [{"kind": part.kind, "part": str(part), "stored": part not in left, "seconds": round(spent, 3)}
                 for part, spent in whole]  # fmt: skip
        table = Table(("part", "does", "what", "takes about"), rows, right=("part", "takes about"), note=note)
        data = {"parts": parts, "scale": self.experiment.scale, "seconds": round(sum(seconds), 1)}
        return Result(data, [], [table], "without --dry-run it begins")
