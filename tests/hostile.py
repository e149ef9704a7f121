"""What stands in a file's place without being one, what must hold of a command that meets it, and where it is run.

`confined` runs a command in a process of its own that can neither hang nor take the machine's memory, and says what it
cost. The hostile files themselves are in `hostile_pickles`, `hostile_archives`, `hostile_safetensors` and
`hostile_records`.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import errno
import functools
import json
import os
import select
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from conftest import Outcome

import advmix_cli

MEMORY_MB = 300
"""How much more than on a valid small file a command may take at its peak."""
SECONDS = 2.0
"""How much more processor time."""

ESCAPES = "\x1b[31m\x1b]0;owned\x07\r\x08\x00\x9b2J\u202egnp.exe\u2066\u200f"
"""What would colour, rename or wipe a terminal, or turn the order of letters about."""

_BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


# What must hold


def unclean(text: str) -> str:
    """The characters of `text` that can do more on a terminal than be read."""
    return "".join(sorted({c for c in text if (unicodedata.category(c) == "Cc" and c not in "\n\t") or c in _BIDI}))


def held(outcome: Outcome, codes: Collection[int], about: object = "") -> None:
    """The command ended with one of these codes, in words of its own and in clean text."""
    said = f"{about}: exit {outcome.code}\n{outcome.out[-1500:]}\n{outcome.err[-1500:]}"
    for trace in ("Traceback (most recent", "unexpected: ADVMIX_DEBUG", '"code": "unexpected"'):
        assert trace not in outcome.out + outcome.err, said
    assert outcome.code in codes, said
    assert not unclean(outcome.out + outcome.err), said


# A process of its own


@dataclasses.dataclass(frozen=True)
class Measured(Outcome):
    """An outcome with what it cost: the most memory that was resident, and processor time."""

    peak_mb: float = 0.0
    seconds: float = 0.0


@functools.cache
def _server() -> subprocess.Popen[str]:
    code = str(Path(advmix_cli.__file__).parents[1])
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("hostile_process.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | alone | {"PYTHONPATH": code},
    )

    def close() -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()

    atexit.register(close)
    return process


def confined(home: Path, *arguments: str | Path) -> Measured:
    """Call the command line on the store `home` in a new process, which ends by itself whatever it reads.

    A process that had to be ended for want of memory or time has the negative number of the signal as its code.
    """
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    job = {"home": str(home), "arguments": [str(argument) for argument in arguments]}
    server.stdin.write(json.dumps(job) + "\n")
    server.stdin.flush()
    return Measured(**json.loads(server.stdout.readline()))


def cheap(outcome: Measured, usual: Measured, about: object = "") -> None:
    """The command took hardly more than on a valid small file."""
    more = outcome.peak_mb - usual.peak_mb, outcome.seconds - usual.seconds
    assert more[0] <= MEMORY_MB, f"{about}: {more[0]:.0f} MB more than usual, {more[1]:.1f} s more; {outcome.err}"
    assert more[1] <= SECONDS, f"{about}: {more[0]:.0f} MB more than usual, {more[1]:.1f} s more; {outcome.err}"


# In a file's place


class Pipe:
    """A named pipe that nobody writes to, which notices a reader that waits, and lets it go with nothing."""

    def __init__(self, path: Path) -> None:
        self.path, self.waited = path, False
        os.mkfifo(path)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            try:
                end = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    continue  # nobody reads
                return  # the pipe is gone
            try:
                self.waited |= not self._left(end)
            finally:
                os.close(end)

    @staticmethod
    def _left(end: int, patience: float = 1.0) -> bool:
        """Whether the reader goes without having been given anything, as one does who only looked what it is."""
        watch, until = select.poll(), time.monotonic() + patience
        watch.register(end, select.POLLERR)
        while time.monotonic() < until:
            if watch.poll(20):
                return True
        return False

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()


@contextlib.contextmanager
def pipe(path: Path) -> Iterator[Pipe]:
    """A named pipe at `path` for the time being."""
    made = Pipe(path)
    try:
        yield made
    finally:
        made.close()


def cleared(path: Path) -> Path:
    """The path, with nothing at it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    path.unlink(missing_ok=True)
    return path


def folder(path: Path) -> None:
    """A folder where a file should be."""
    cleared(path).mkdir()


def loop(path: Path) -> None:
    """A symbolic link to itself."""
    cleared(path).symlink_to(path.name)


def nowhere(path: Path) -> None:
    """A symbolic link to what is not there."""
    cleared(path).symlink_to("not-there")


def zeros(path: Path) -> None:
    """A symbolic link to a device that never ends."""
    cleared(path).symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    """20 GB of zeros that take no room on the disk."""
    cleared(path).touch()
    os.truncate(path, 20 << 30)


def garbage(path: Path) -> None:
    """Bytes that are nothing."""
    cleared(path).write_bytes(bytes(range(256)) * 8)


def empty(path: Path) -> None:
    """Nothing."""
    cleared(path).write_bytes(b"")


PLACES: dict[str, Callable[[Path], None]] = {
    made.__name__: made for made in (folder, loop, nowhere, zeros, sparse, garbage, empty)
}
"""What can stand at a path, but for a pipe, which needs watching."""


def newest(path: Path) -> None:
    """Let the file (not what it leads to) be newer than all others."""
    later = time.time() + 10
    with contextlib.suppress(OSError):
        os.utime(path, (later, later), follow_symlinks=False)


def in_json(outcome: Outcome) -> dict[str, Any]:
    """The one error that the JSON envelope tells of."""
    (error,) = outcome.errors
    return error
