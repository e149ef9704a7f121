"""Parts of an experiment as jobs: on SLURM, or in processes of this machine, by submitit."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from advmix_cli.errors import AdvmixError, UsageError
from advmix_cli.experiments import carrying
from advmix_cli.experiments.carrying import Found
from advmix_cli.experiments.plan import Part
from advmix_cli.results import counted
from advmix_cli.store import JOBS, Store
from advmix_cli.workflows.session import Progress, Session, Silent

WHERE = ("local", "slurm", "debug")
"""Processes of this machine, SLURM, or this process under a debugger."""

_POLL_S = 0.5
_SPARE = 3.0
"""How many times what it is estimated to take a job may take."""
_LEAST_MIN = 20


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where parts are carried out as jobs, how many at a time, and what SLURM is told beside."""

    where: str
    workers: int
    slurm: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Job:
    """One part, carried out in a process of its own: all it needs is in the store."""

    home: Path
    data_root: Path
    device: str
    threads: int | None
    part: Part
    found: Found

    def __call__(self) -> str:
        """Carry it out. What it makes is in the store; it gives back why it could not, or nothing."""
        session = Session(Store(self.home), self.data_root, Silent(), self.device, self.threads)
        try:
            with session.store.lock(f"part-{self.part.key}", on_wait=lambda: None):
                carrying.carry_out_part(session, self.part, self.found)
        except AdvmixError as error:
            return error.message
        return ""

    def checkpoint(self) -> Any:
        """Where the job is preempted, the same again: it continues from its state in the store."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def carry_out(
    session: Session,
    parts: Sequence[Part],
    on: Cluster,
    *,
    seconds: Callable[[Part], float],
    keep_going: bool = False,
) -> Found:
    """Do all parts as jobs, each after those it needs; what the store has is not sent.

    On `local` no more than `workers` at a time; on SLURM those that can go together are arrays of that width. Raises
    AdvmixError for the first job that fails, after those that run have ended; with `keep_going` it goes on.
    """
    sent = _Sent(session, on, seconds, carrying.stored(session, parts))
    done = len(parts) - len(sent.left)
    with session.report.progress("parts", len(parts), "parts") as progress:
        progress(done, before=True)
        while sent.left or sent.running:
            if sent.failed and not keep_going:
                sent.left.clear()
            sent.hand_over(progress)
            progress.about(f"{len(sent.running)} running, {len(sent.left)} waiting")
            sent.collect(progress)
            if sent.running:
                time.sleep(_POLL_S)
    if sent.failed and not keep_going:
        raise next(iter(sent.failed.values()))
    session.report.note(f"{counted(len(parts) - done - len(sent.failed), 'part')} computed, {done} were in the store")
    return sent.found


class _Sent:
    """What is `left` to send, what is `running`, what has `failed`, and what was `found` of the rest."""

    def __init__(self, session: Session, on: Cluster, seconds: Callable[[Part], float], found: Found) -> None:
        self.session, self.on, self.found, self._seconds = session, on, found, seconds
        self._executor = _executor(session, on)
        self.left = dict.fromkeys(found.failed)
        self.running: dict[Part, Any] = {}
        self.failed: dict[Part, AdvmixError] = {}
        found.failed = self.failed

    def hand_over(self, progress: Progress) -> None:
        """Send what can go now."""
        for part in [*self.left]:
            if any(need in self.failed for need in part.needs):
                self.failed[part] = AdvmixError("what it needs failed", "see above")
                del self.left[part]
        pending = {*self.left, *self.running}
        ready = [part for part in self.left if pending.isdisjoint(part.needs)]
        now = ready[: self.on.workers - len(self.running)] if self.on.where == "local" else ready
        if not now:
            return
        self._executor.update_parameters(timeout_min=max(map(self._minutes, now)))
        session, needed = self.session, Found(dict(self.found.models), dict(self.found.caches))
        with self._executor.batch():
            handed = [
                self._executor.submit(
                    Job(session.store.root, session.data_root, session.device_name, session.threads, part, needed)
                )
                for part in now
            ]
        for part, job in zip(now, handed, strict=True):
            progress.line(f"{part.kind} {part}: job {job.job_id}")
            self.running[part] = job
            del self.left[part]

    def collect(self, progress: Progress) -> None:
        """Take what those that ended have put into the store; what a job that failed wrote stays."""
        for part, job in [*self.running.items()]:
            if not job.done():
                continue
            del self.running[part]
            problem = _problem(job)
            if problem:
                self.failed[part] = AdvmixError(f"{part.kind} {part} failed: {problem}", f"see {job.paths.stderr}")
                self.session.report.warn(self.failed[part].message)
                continue
            stored = dataclasses.replace(self.session, stored_only=True, report=Silent())
            carrying.carry_out_part(stored, part, self.found)
            _clear(job)
            progress(1)

    def _minutes(self, part: Part) -> int:
        """What a job may take."""
        try:
            return max(_LEAST_MIN, math.ceil(_SPARE * self._seconds(part) / 60))
        except AdvmixError:  # it is the job that is to fail, and to say so
            return _LEAST_MIN


def _executor(session: Session, on: Cluster) -> Any:
    """What jobs are handed to. Raises UsageError where there is none."""
    try:
        import submitit
    except ImportError:
        raise UsageError("--on needs submitit", "pip install 'advmix[cluster]'") from None
    try:
        found = submitit.AutoExecutor(folder=session.store.root / JOBS, cluster=on.where)
    except RuntimeError as error:
        raise UsageError(f"there is no {on.where} here: {error}", "take --on local") from None
    given = {"gpus_per_node": int(session.device().type == "cuda"), "cpus_per_task": session.threads}
    slurm = {"array_parallelism": on.workers, **on.slurm} if on.where == "slurm" else {}
    found.update_parameters(
        **{name: n for name, n in given.items() if n},
        tasks_per_node=1,
        name="advmix",
        **{f"slurm_{key}": value for key, value in slurm.items()},
    )
    return found


def _problem(job: Any) -> str:
    """Why a job failed; nothing where it did not."""
    error = job.exception()
    if error is not None:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return lines[-1] if lines else type(error).__name__
    return str(job.result())


def _clear(job: Any) -> None:
    """Remove what a job that succeeded was handed over by, and what it said."""
    paths = job.paths
    for path in (paths.submitted_pickle, paths.result_pickle, paths.stdout, paths.stderr, paths.submission_file):
        with contextlib.suppress(OSError):
            path.unlink()
