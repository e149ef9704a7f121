"""Several training runs: on a CPU at once, as a small network does not fill the cores."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from advmix_cli import models
from advmix_cli.config import TrainSettings
from advmix_cli.results import Result, Table, share
from advmix_cli.threats import Threat
from advmix_cli.workflows.making import check_may_make
from advmix_cli.workflows.session import Progress, Reporter, Session, Silent
from advmix_cli.workflows.train import Begin, Plan, plan, train


@dataclasses.dataclass(frozen=True)
class Run:
    """One of the runs: what tells it from the others, its settings, and the alias for its checkpoint."""

    label: str
    settings: TrainSettings
    alias: str | None


def train_together(session: Session, runs: Sequence[Run], *, begin: Begin, verbose: bool = False) -> Result:
    """Train, continue or find the checkpoints of all `runs`, each as `train` would alone.

    On a CPU each has one thread, and gives the bytes of a run alone with one thread; on a GPU they take turns, as cuDNN
    fails beside a recording. What is wrong with any of the settings is said before anything begins. Where one fails
    the others stop too, and their states are kept.
    """
    planned = [(plan(session, run.settings, begin), run) for run in runs]
    names = session.ranks.agreed(lambda: [
        each.name for each, _ in planned
        if session.force or not session.store.path("checkpoints", each.name).exists()
    ])  # fmt: skip
    missing = {each.name: (each, run) for each, run in planned if each.name in names}
    if missing:
        check_may_make(session, next(iter(missing)))
        _train(session, list(missing.values()), begin, verbose)
    stored = dataclasses.replace(session, force=False)
    results = [train(stored, run.settings, run.alias, begin=begin).data for run in runs]
    for data in results:
        data["cached"] = data["checkpoint"] not in missing
    called = [run.alias or data["checkpoint"] for run, data in zip(runs, results, strict=True)]
    return Result(
        data={"runs": results},
        refs=[data["checkpoint"] for data in results],
        blocks=[_table(runs, results)],
        hint=f"compare them: advmix eval {' '.join(called)}",
    )


def _table(runs: Sequence[Run], results: list[dict[str, Any]]) -> Table:
    adversarial, rows = runs[0].settings.adversary is not None, []
    for run, data in zip(runs, results, strict=True):
        metrics, n = data["metrics"], data["images"]["test"]
        name = data["checkpoint"] + (" (from the store)" if data["cached"] else "")
        cells = [run.label, name, f"{metrics['best_epoch']} of {data['epochs']}", share(metrics["test_accuracy"], n)]
        rows.append((*cells, share(metrics["test_robust_accuracy"], n)) if adversarial else tuple(cells))
    columns = ("run", "checkpoint", "chosen epoch", "test", *(["attacked"] if adversarial else []))
    threat = (
        f"attacked: {Threat.from_dict(results[0]['metrics']['test_threat'])} (an upper bound)" if adversarial else ""
    )
    return Table(columns, rows, right=columns[2:], note=threat)


def _train(session: Session, runs: list[tuple[Plan, Run]], begin: Begin, verbose: bool) -> None:
    from advmix_cli import runtime

    device = session.device()
    turns = device.type != "cpu" or session.ranks.joined  # ranks must speak in the same order
    workers = 1 if turns or models.draws(begin.network) else min(len(runs), runtime.threads())
    alone = dataclasses.replace(session, threads=1) if device.type == "cpu" else session
    stop = threading.Event()

    def one(run: Run, total: Progress) -> None:
        part = dataclasses.replace(alone, report=_Part(session.report, run.label, total, stop))
        train(part, run.settings, begin=begin, verbose=verbose)

    images = sum(run.settings.epochs * planned.images for planned, run in runs)
    with (
        session.report.progress(f"training {len(runs)} models", images, "images") as progress,
        ThreadPoolExecutor(workers) as pool,
    ):
        shared = _Shared(progress)
        futures = {pool.submit(one, run, shared): run for _, run in runs}
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            for future in futures:
                future.cancel()
        for future in done:
            error = future.exception()
            if error is not None:
                session.report.warn(f"{futures[future].label} failed; the others stop, and their states are kept")
                raise error


class _Stop(Exception):
    """Another run failed, or the user stopped all."""


class _Shared:
    """The bar of all runs, for their threads."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._lock = progress, threading.Lock()

    def __call__(self, n: float, left: float | None = None, before: bool = False) -> None:
        with self._lock:
            self._progress(n, before=before)

    def line(self, text: str) -> None:
        with self._lock:
            self._progress.line(text)

    def about(self, text: str) -> None:
        pass


class _PartProgress:
    """What one run adds to the bar of all; where all are to stop, it stops the run."""

    def __init__(self, label: str, total: Progress, counts: bool, stop: threading.Event) -> None:
        self._label, self._total, self._counts, self._stop = label, total, counts, stop

    def __call__(self, n: float, left: float | None = None, before: bool = False) -> None:
        if self._stop.is_set():
            raise _Stop
        if self._counts:
            self._total(n, before=before)

    def line(self, text: str) -> None:
        self._total.line(f"{self._label}: {text}")

    def about(self, text: str) -> None:
        pass


class _Part(Silent):
    """The reporter of one run: its lines carry its label, its images count for all."""

    def __init__(self, report: Reporter, label: str, total: Progress, stop: threading.Event) -> None:
        self._report, self._label, self._total, self._stop = report, label, total, stop

    def note(self, text: str) -> None:
        self._report.note(f"{self._label}: {text}")

    def warn(self, text: str) -> None:
        self._report.warn(f"{self._label}: {text}")

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None = None, unit: str = "") -> Iterator[_PartProgress]:
        yield _PartProgress(self._label, self._total, unit == "images", self._stop)
