"""Device, threads, precision, work side by side, and generators made from one seed."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import hashlib
import os
import random
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from advmix_cli import world
from advmix_cli.config import check_machine
from advmix_cli.errors import UsageError

Part = TypeVar("Part")
Done = TypeVar("Done")


def device(name: str) -> torch.device:
    """The device of that name; `auto` takes cuda, then mps, then cpu. Raises UsageError where there is none."""
    check_machine(name, None)
    base, _, index = name.partition(":")
    ranks = world.current()
    if ranks.joined and name in ("auto", "cuda") and torch.cuda.is_available():
        name, base, index = f"cuda:{ranks.local}", "cuda", str(ranks.local)
        torch.cuda.set_device(ranks.local)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if base == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if available[kind]))
    if not available[base] or (index and int(index) >= torch.cuda.device_count()):
        raise UsageError(f"there is no device {name} here", "use --device cpu, or auto")
    return torch.device(name)


def configure(threads: int | None, where: torch.device) -> None:
    """Set determinism and the CPU threads: None for the cores this process may use, or what OMP_NUM_THREADS says."""
    _keep_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(available_cores())
    if where.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)  # networks of others may hold what has no such form
        _note_what_is_not()
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False  # float32 means float32; torch's own default does not, in convolutions
        torch.backends.cuda.matmul.allow_tf32 = False


NOT_DETERMINISTIC: set[str] = set()
"""Operations that ran on CUDA without a deterministic form, as torch warned: they stand in records."""


def _note_what_is_not() -> None:
    shown = warnings.showwarning
    if getattr(shown, "notes", False):
        return

    def show(message: Warning | str, *more: Any, **how: Any) -> None:
        text = str(message)
        if "does not have a deterministic implementation" in text:
            NOT_DETERMINISTIC.add(text.split()[0])
        shown(message, *more, **how)

    show.notes = True  # type: ignore[attr-defined]
    warnings.showwarning = show


def _keep_memory() -> None:
    """Let glibc keep freed memory: else each activation is returned to the system, and paid for again at its first use.

    Elsewhere there is no such function, and nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 1 << 30)
        mallopt(mmap_threshold, 1 << 30)


class _Left(BaseException):
    """Nobody waits for this part any more."""


_OF_THREAD = threading.local()


def _begin(left: threading.Event) -> None:
    torch.set_num_threads(1)
    _OF_THREAD.left = left


def going_on() -> None:
    """End this thread's part where nobody waits for it any more; called at every pass of a network."""
    left = getattr(_OF_THREAD, "left", None)
    if left is not None and left.is_set():
        raise _Left


def side_by_side(function: Callable[[Part], Done], parts: Iterable[Part], device: torch.device) -> Iterator[Done]:
    """`function` of each part, in order. On a CPU as many at once as torch has threads, each computing with one.

    A small network gains nothing from a second thread within one operator, and twice the speed from a second batch
    beside the first. A part is computed by one thread however many there are, so the bytes do not depend on them.
    No more parts are begun than there are threads: memory does not grow with their number. Where the caller leaves,
    at Ctrl-C say, those that are under way end at their next `going_on`.
    """
    workers = torch.get_num_threads()
    if device.type != "cpu" or workers == 1:
        yield from map(function, parts)
        return
    torch.set_num_threads(1)  # that is MKL's; OpenMP's is each thread's own, set before torch's first large operation
    waiting: collections.deque[Future[Done]] = collections.deque()
    left = threading.Event()
    try:
        with ThreadPoolExecutor(workers, initializer=_begin, initargs=(left,)) as pool:
            try:
                for part in parts:
                    waiting.append(pool.submit(function, part))
                    if len(waiting) > workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                left.set()
                for future in waiting:
                    future.cancel()
    finally:
        torch.set_num_threads(workers)


def threads() -> int:
    """How many threads the CPU's work may use."""
    return torch.get_num_threads()


def available_cores() -> int:
    """The cores that this process may run on."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def derived(*parts: object) -> int:
    """A seed that follows from `parts`, a whole number of 63 bits."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


def generator(where: torch.device | str, *parts: object) -> torch.Generator:
    """A generator on that device, seeded by `parts` (the seed, and what it is for): no state to carry along."""
    return torch.Generator(device=where).manual_seed(derived(*parts))


def python_random(*parts: object) -> random.Random:
    """The same, for plain Python numbers."""
    return random.Random(derived(*parts))


def autocast(where: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """bf16 where asked for; float32 computes as it stands."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(where.type, dtype=torch.bfloat16, cache_enabled=False)  # a recording must not keep weights
