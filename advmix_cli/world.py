"""The processes that share a job, and which part of it is this one's.

torchrun, or srun, starts the same command in several processes that can talk: *ranks*. Without that, `--shard I/N` says
which part of the samples a process attacks; what it finds is put together later.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from advmix_cli.errors import AdvmixError, UsageError

if TYPE_CHECKING:
    import torch

Value = TypeVar("Value")

_WAIT = datetime.timedelta(hours=12)
"""How long a process waits for another that is alive: until it has evaluated what the first has, say."""

_MEET = datetime.timedelta(minutes=10)
"""How long ranks that begin wait for each other."""

_LOST = ("connection closed", "connection reset", "connection refused", "broken pipe", "timed out", "gloo/", "nccl")
"""Words of errors that say that another process is gone."""


class PeerError(AdvmixError):
    """Another process of the same job ended, and this one cannot go on."""

    code = "peer"


@dataclasses.dataclass(frozen=True)
class World:
    """Which of `size` processes this is: `rank`, and `local` among those of its machine.

    `joined`: they can talk. `idle`: its part is nothing; it puts together what the others have found.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    joined: bool = False
    idle: bool = False

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and prints."""
        return self.rank == 0 or not self.joined

    @property
    def continues(self) -> bool:
        """Whether what there is of a job was made by the same processes: of a shard it may be the others'."""
        return self.joined or self.size == 1

    @property
    def lane(self) -> str:
        """What tells its unfinished pieces from those of the others; nothing for a process alone."""
        return "" if self.size == 1 else f"{self.rank}of{self.size}-"

    def range(self, n: int) -> range:
        """Which of n samples are its part."""
        return range(0) if self.idle else range(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    # What ranks say to each other: of a process alone its own word. All of them must call these in the same order.

    def agreed(self, say: Callable[[], Value]) -> Value:
        """What the first rank says; the others do not ask."""
        if not self.joined:
            return say()
        from torch import distributed

        said = [say() if self.rank == 0 else None]
        with peers(self):
            distributed.broadcast_object_list(said, 0)
        return said[0]  # type: ignore[return-value]

    def told(self, value: Value) -> list[Value]:
        """What each rank says, to the first; to the others nothing."""
        if not self.joined:
            return [value]
        from torch import distributed

        found: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with peers(self):
            distributed.gather_object(value, found)
        return found or []

    def all(self, value: Value) -> list[Value]:
        """What each rank says, to all."""
        if not self.joined:
            return [value]
        from torch import distributed

        found: list[Any] = [None] * self.size
        with peers(self):
            distributed.all_gather_object(found, value)
        return found

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean over ranks, in place."""
        if self.joined:
            from torch import distributed

            with peers(self):
                distributed.all_reduce(tensor)
            tensor /= self.size
        return tensor

    # Batches

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """The rows of a batch (N,...) that are its part: one at least, so that it takes part in each step."""
        own = self.range(len(index))
        return index[own.start : max(own.stop, own.start + 1)] if own.start < len(index) else index[-1:]

    def weight(self, n: int) -> float:
        """What the mean over its rows of a batch of n weighs: the mean over ranks is then that over the batch."""
        return len(self.range(n)) * self.size / n


ALONE = World()

_current = ALONE
_words: Any = None
"""Where ranks leave word for each other."""
_ENDED = "ended"
_HEARD_S = 1.0
"""How long the first rank's last word can be read."""


def current() -> World:
    """The ranks that this process is one of; alone where it is none."""
    return _current


def of_environment(environment: Mapping[str, str]) -> World:
    """The ranks that torchrun or srun speak of."""

    def number(name: str) -> int | None:
        text = environment.get(name, "")
        return int(text) if text.isdecimal() else None

    for size, rank, local in (("WORLD_SIZE", "RANK", "LOCAL_RANK"),
                              ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID")):  # fmt: skip
        many, mine = number(size), number(rank)
        if many is not None and mine is not None and many > 1:
            return World(mine, many, number(local) or 0, True)
    return ALONE


def shard(text: str) -> World:
    """`I/N`: part I, from 0, of N. Raises UsageError."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None or not int(match[1]) < int(match[2]):
        raise UsageError(f"--shard {text!r} is no part", "give I/N with I from 0 to N-1, such as 0/3, 1/3 and 2/3")
    return World(int(match[1]), int(match[2]))


def join() -> World:
    """Meet the other ranks, where the environment speaks of any."""
    global _current, _words
    found = of_environment(os.environ)
    if found.joined and _current is ALONE:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # that a peer is gone is said in one line
        import torch
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        for name, value in _rendezvous(os.environ).items():
            os.environ.setdefault(name, value)
        signal.signal(signal.SIGTERM, _stopped)
        with peers(found):
            try:
                _words, _, _ = next(rendezvous("env://", found.rank, found.size, timeout=_MEET))
            except ValueError as error:
                raise UsageError(
                    f"RANK and WORLD_SIZE speak of {found.size} processes, which have nowhere to meet: {error}",
                    "start them by torchrun, or unset both",
                ) from None
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                store=_words, rank=found.rank, world_size=found.size, timeout=_WAIT,
            )  # fmt: skip
        _current = found
    return _current


def word(error: AdvmixError) -> AdvmixError | None:
    """What this process is to say of an error, None: nothing. Of several ranks one says it, and whose it is."""
    ranks = _current
    if not ranks.joined:
        return error if of_environment(os.environ).first else None
    lost = isinstance(error, PeerError)
    with contextlib.suppress(Exception):  # the first has the words, and may be gone
        if not ranks.first:
            if lost:
                return None if _words.check([_ENDED]) else error
            _words.set(f"{_ENDED} {ranks.rank}", error.message)
            return None
        if not lost:
            _words.set(_ENDED, error.message)
            time.sleep(_HEARD_S)
            return error
        for rank in range(1, ranks.size):
            if _words.check([f"{_ENDED} {rank}"]):
                message = _words.get(f"{_ENDED} {rank}").decode()
                return PeerError(f"rank {rank}: {message}", "the same command continues")
    return error


def leave() -> None:
    """Wait for the others, and part."""
    global _current
    if _current.joined:
        from torch import distributed

        _current.all(None)
        distributed.destroy_process_group()
        _current = ALONE


def end(code: int) -> None:
    """End a process that was one of several: torch's threads may outlive the interpreter, and would abort it then."""
    if _words is not None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)


@contextlib.contextmanager
def peers(world: World) -> Iterator[None]:
    """Within, another rank's end is an AdvmixError."""
    try:
        yield
    except RuntimeError as error:
        if not world.joined or not any(word in f"{type(error).__name__} {error}".lower() for word in _LOST):
            raise
        raise PeerError(
            f"another of the {world.size} processes ended", "see what it said; the same command continues"
        ) from error


def _stopped(number: int, frame: FrameType | None) -> None:
    raise PeerError(
        "this process was told to end", "another ended, or the job was cancelled; the same command continues"
    )


def _rendezvous(environment: Mapping[str, str]) -> dict[str, str]:
    """Where ranks meet that srun started: on the first machine of the job, at a port that follows from its number."""
    nodes, job = environment.get("SLURM_STEP_NODELIST", ""), environment.get("SLURM_JOB_ID", "0")
    first = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    if first is None:
        return {}
    return {"MASTER_ADDR": first[1] + (first[2] or ""), "MASTER_PORT": str(20000 + int(job) % 20000)}
