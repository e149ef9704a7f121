"""Command lines in forked children of one process that has imported everything: a case costs the work and a fork.

The process that forks never computes, so that no pool of threads exists that a child would miss; it is started with the
library of `shim.py` preloaded. A child that takes longer than its limit is killed, and called hung.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shim import Fault, Shim

LIMIT_S = 60.0
"""How long a command may take that has nothing to wait for: the slowest takes a few seconds."""


@dataclasses.dataclass(frozen=True)
class Ran:
    """How a command ended: its exit code, or minus the signal that ended it."""

    code: int
    out: str
    err: str
    seconds: float
    peak_mb: float
    """Beyond what it had from its parent."""
    hung: bool = False
    kinds: tuple[int, ...] = ()
    """The kinds of file operations that were counted, where it lived to tell."""
    modules: tuple[str, ...] = ()


class Child:
    """A forked process under way, with its standard streams in memory."""

    def __init__(self, work: Callable[[int], int], stdin: bytes = b"") -> None:
        self._streams = [os.memfd_create(name) for name in ("in", "out", "err", "note")]
        os.write(self._streams[0], stdin)
        os.lseek(self._streams[0], 0, os.SEEK_SET)
        sys.stdout.flush()
        sys.stderr.flush()
        self._before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024
        self._began = _now()
        self.pid = os.fork()
        if self.pid == 0:
            self._be_child(work)
        self._pidfd = os.pidfd_open(self.pid)
        self._stopped = False

    def _be_child(self, work: Callable[[int], int]) -> None:
        code = 1
        try:
            Shim.die_with_parent()
            for descriptor, stream in enumerate(self._streams[:3]):
                os.dup2(stream, descriptor)
            code = work(self._streams[3])
        except KeyboardInterrupt:
            traceback.print_exc()
            code = -signal.SIGINT
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            if code < 0:
                signal.signal(-code, signal.SIG_DFL)
                os.kill(os.getpid(), -code)
            os._exit(code)

    def ends_within(self, seconds: float) -> bool:
        """Whether it has ended, or does so in that time."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(max(0, int(seconds * 1000))))

    def stops_within(self, seconds: float) -> bool:
        """Whether SIGSTOP reaches it in that time; False where it ended before, or took longer."""
        until = _now() + seconds
        while _now() < until:
            found = os.waitid(os.P_PIDFD, self._pidfd, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is not None:
                return found.si_code == os.CLD_STOPPED
            self.ends_within(0.001)
        return False

    def send(self, number: int) -> None:
        """Send it a signal."""
        signal.pidfd_send_signal(self._pidfd, number)

    def wait(self, limit: float = LIMIT_S) -> Ran:
        """Its end; it is killed where it takes longer."""
        hung = not self.ends_within(limit - (_now() - self._began))
        if hung:
            self.send(signal.SIGKILL)
        _, status, usage = os.wait4(self.pid, 0)
        seconds = _now() - self._began
        texts = []
        for stream in self._streams[1:]:
            os.lseek(stream, 0, os.SEEK_SET)
            with open(stream, "rb") as file:
                texts.append(file.read().decode(errors="replace"))
        os.close(self._streams[0])
        os.close(self._pidfd)
        note = json.loads(texts[2] or "{}")
        return Ran(
            os.waitstatus_to_exitcode(status), texts[0], texts[1], seconds,
            max(0, usage.ru_maxrss - self._before) / 1024, hung,
            tuple(note.get("kinds", ())), tuple(note.get("modules", ())),
        )  # fmt: skip


class Runner:
    """Starts command lines. Make one early, in a process with one thread."""

    def __init__(self, work: Path) -> None:
        self.work, self.shim = work, Shim()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # also for children, but for the time of the program itself
        (work / "here").mkdir()
        os.chdir(work / "here")
        self._glyphs()
        import_all()

    def _glyphs(self) -> None:
        """Have the embedded data set drawn once, by a child: drawing it takes longer than any case."""
        import numpy as np

        def draw(_: int) -> int:
            from advmix_cli.data.glyphs import glyphs

            for split in ("train", "test"):
                x, y = glyphs(split, self.work, False)
                np.savez(self.work / f"{split}.npz", x=x.numpy(), y=y.numpy())
            return 0

        if not (self.work / "test.npz").exists():
            drawn = Child(draw).wait()
            assert drawn.code == 0, drawn.err
        import torch

        from advmix_cli.data import glyphs as module

        kept = {}
        for split in ("train", "test"):
            with np.load(self.work / f"{split}.npz") as drawn_before:
                kept[split] = torch.from_numpy(drawn_before["x"]), torch.from_numpy(drawn_before["y"])
        module.glyphs = lambda split, root, download: kept[split]  # type: ignore[assignment]

    def start(
        self,
        arguments: Sequence[str],
        home: Path,
        *,
        stdin: str = "",
        fault: Fault | None = None,
        beside: Sequence[Path] = (),
        first: Sequence[Callable[[], None]] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Begin `advmix ARGUMENTS` on the store `home`. Operations in it and in the folders `beside` are counted.

        `first` is called in the child before the program.
        """

        def work(note: int) -> int:
            os.environ.update({"ADVMIX_HOME": str(home), "ADVMIX_DEVICE": "cpu", **(environment or {})})
            before = set(sys.modules)
            for each in first:
                each()
            self.shim.arm(fault or Fault(), [home, *beside])
            code = command(arguments)
            kinds = self.shim.disarm()
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            modules = sorted(set(sys.modules) - before)
            os.write(note, json.dumps({"kinds": kinds, "modules": modules}).encode())
            return code

        return Child(work, stdin.encode())

    def run(self, arguments: Sequence[str], home: Path, *, limit: float = LIMIT_S, **how: object) -> Ran:
        """`start`, and wait for its end."""
        return self.start(arguments, home, **how).wait(limit)  # type: ignore[arg-type]

    def learn(self, modules: Sequence[str]) -> None:
        """Import what a command had to import itself, so that the next one need not."""
        for name in modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        self.settle()

    @staticmethod
    def settle() -> None:
        """What is there now stays shared with all children."""
        threads = len(os.listdir("/proc/self/task"))
        assert threads == 1, f"{threads} threads, and a fork takes only one along"
        gc.collect()
        gc.freeze()


def command(arguments: Sequence[str]) -> int:
    """Call the program as its entry point does; its exit code."""
    from advmix_cli.__main__ import main

    sys.argv = ["advmix", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return 0


def import_all() -> None:
    """Every module of the program, and what its work imports late."""
    import advmix_cli

    for module in pkgutil.walk_packages(advmix_cli.__path__, "advmix_cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _now() -> float:
    import time

    return time.monotonic()
