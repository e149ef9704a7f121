"""Parts of an experiment as jobs: on SLURM, or in processes of this machine, by submitit."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from advmix_cli.errors import AdvmixError, UsageError
from advmix_cli.experiments import carrying
from advmix_cli.experiments.carrying import Found
from advmix_cli.experiments.plan import Part
from advmix_cli.results import counted
from advmix_cli.store import Store
from advmix_cli.workflows.session import Session, Silent

WHERE = ("local", "slurm")

_POLL_S = 0.5
_SPARE = 3.0
"""How many times what it is estimated to take a job may take."""
_LEAST_MIN = 20


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


def executor(where: str, folder: Path, *, gpus: int, threads: int | None, slurm: dict[str, str]) -> Any:
    """What jobs are handed to. Raises UsageError where there is none."""
    try:
        import submitit
    except ImportError:
        raise UsageError("--on needs submitit", "pip install 'advmix[cluster]'") from None
    try:
        found = submitit.AutoExecutor(folder=folder, cluster=where)
    except RuntimeError as error:
        raise UsageError(f"there is no {where} here: {error}", "take --on local") from None
    given = {"gpus_per_node": gpus, "cpus_per_task": threads}
    found.update_parameters(
        **{name: n for name, n in given.items() if n},
        tasks_per_node=1,
        name="advmix",
        **{f"slurm_{key}": value for key, value in slurm.items()},
    )
    return found


def carry_out(
    session: Session,
    parts: Sequence[Part],
    where: str,
    *,
    workers: int,
    slurm: dict[str, str],
    seconds: Callable[[Part], float],
    keep_going: bool = False,
) -> Found:
    """Do all parts as jobs, each after those it needs; what the store has is not sent.

    On `local` no more than `workers` at a time; on SLURM those that can go together are arrays of that width. Raises
    AdvmixError for the first job that fails, after those that run have ended; with `keep_going` it goes on.
    """
    folder = session.store.root / "jobs"
    handing = executor(where, folder, gpus=int(session.device().type == "cuda"), threads=session.threads, slurm=slurm)
    found = carrying.stored(session, parts)
    left, failed = dict.fromkeys(part for part in parts if part in found.failed), dict[Part, AdvmixError]()
    found.failed = failed
    running: dict[Part, Any] = {}
    done = len(parts) - len(left)
    with session.report.progress("parts", len(parts), "parts") as progress:
        progress(done)
        while left or running:
            ready = [part for part in left if not any(need in left or need in running for need in part.needs)]
            for part in [part for part in ready if any(need in failed for need in part.needs)]:
                failed[part] = AdvmixError("what it needs failed", "see above")
                ready.remove(part)
                del left[part]
            if failed and not keep_going:
                left = {}
                ready = []
            room = workers - len(running) if where == "local" else len(ready)
            if ready[:room]:
                now = ready[:room]
                handing.update_parameters(timeout_min=max(_minutes(part, seconds) for part in now))
                if where == "slurm":
                    handing.update_parameters(slurm_array_parallelism=workers)
                jobs = [
                    Job(
                        session.store.root,
                        session.data_root,
                        session.device_name,
                        session.threads,
                        part,
                        _needed(found),
                    )
                    for part in now
                ]
                with handing.batch():
                    handed = [handing.submit(job) for job in jobs]
                for part, job in zip(now, handed, strict=True):
                    progress.line(f"{part.kind} {part}: job {job.job_id}")
                    running[part] = job
                    del left[part]
            progress.about(f"{len(running)} running, {len(left)} waiting")
            for part, job in [*running.items()]:
                if not job.done():
                    continue
                del running[part]
                problem = _problem(job)
                if problem:
                    failed[part] = AdvmixError(f"{part.kind} {part} failed: {problem}", f"see {job.paths.stderr}")
                    session.report.warn(failed[part].message)
                else:
                    carrying.carry_out_part(
                        dataclasses.replace(session, stored_only=True, report=Silent()), part, found
                    )
                    progress(1)
            if running:
                time.sleep(_POLL_S)
    if failed and not keep_going:
        raise next(iter(failed.values()))
    session.report.note(f"{counted(len(parts) - done - len(failed), 'part')} computed, {done} were in the store")
    return found


def _minutes(part: Part, seconds: Callable[[Part], float]) -> int:
    """What a job may take."""
    try:
        return max(_LEAST_MIN, math.ceil(_SPARE * seconds(part) / 60))
    except AdvmixError:  # it is the job that is to fail, and to say so
        return _LEAST_MIN


def _needed(found: Found) -> Found:
    """Names alone: evaluations are of no use to a job."""
    return Found(dict(found.models), dict(found.caches))


def _problem(job: Any) -> str:
    """Why a job failed; nothing where it did not."""
    error = job.exception()
    if error is not None:
        lines = [line for line in str(error).splitlines() if line.strip()]
        return lines[-1] if lines else type(error).__name__
    return str(job.result())
