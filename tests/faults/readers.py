"""Many hostile stores, one after the other, in one child: each is read by commands in process, and put right again.

What the child says of each goes through a pipe. Where it falls silent it is killed and the case called a hang; where it
dies the case it was at is named; the next child goes on from there.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import resource
import select
import shutil
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import typer
from checks import CODES, spoken
from family import Tried
from runner import Child, command
from scenarios import Bench

SILENCE_S = 12.0
"""How long a case may take: ten seconds beyond what its readers do."""

MEMORY_MB = 500
"""How much more memory than an undisturbed command the reading of a small file may take."""


@dataclasses.dataclass(frozen=True)
class Hostile:
    """What was done to the store, and which commands then read it. A reader's {path} is the file that was changed."""

    path: Path
    readers: Sequence[str]
    judge: Callable[[str, int, str, str], list[str]] = lambda reader, code, out, err: []
    """What else is wrong with how a reader ended: the command, its exit code, what it printed and said."""
    given: str = ""
    """What {path} stands for where it is no file."""


Prepare = Callable[[Bench, str], Hostile | None]
"""Makes the store in `bench.home` the one that a case means; None where that comes to nothing."""


def read_all(prepare: Prepare, store: str) -> Callable[[Bench, list[str]], Tried]:
    """Try cases on copies of that store."""

    def attempt(bench: Bench, cases: list[str]) -> Tried:
        todo = list(cases)
        while todo:
            bench.fresh(store)
            yield from _one_child(bench, todo, prepare, bench.stores[store])

    return attempt


def _one_child(bench: Bench, todo: list[str], prepare: Prepare, original: Path) -> Tried:
    """Cases from the front of `todo`, which it takes away, until the child ends."""
    receiving, sending = os.pipe()

    def work(_: int) -> int:
        os.close(receiving)
        os.environ.update({"ADVMIX_HOME": str(bench.home), "ADVMIX_DEVICE": "cpu"})
        room = _address_space() + (4 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        typer.main.get_command = functools.cache(typer.main.get_command)  # dearer than most of what is read
        before = signature(bench.home)
        for case in todo:
            problems = _one(bench, case, prepare)
            restore(bench.home, original, before)
            memory = any(problem.startswith("memory") for problem in problems)
            os.write(sending, json.dumps([case, problems]).encode() + b"\n")
            if memory:
                break  # what it took at most would be held against the next
        return 0

    child = Child(work)
    os.close(sending)
    with open(receiving, "rb", buffering=0) as answers:
        waiting = b""
        while todo:
            if not select.select([answers], [], [], SILENCE_S)[0]:
                child.send(signal.SIGKILL)
                child.wait()
                yield todo.pop(0), ["hang"]
                return
            some = answers.read(65536)
            if not some:
                break
            *lines, waiting = (waiting + some).split(b"\n")
            for line in lines:
                case, problems = json.loads(line)
                todo.remove(case)
                yield case, problems
        ran = child.wait(SILENCE_S)
    if todo and ran.code != 0:
        yield todo.pop(0), [f"the process ends with {ran.code}: {ran.err.strip()[-300:]}"]


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _one(bench: Bench, case: str, prepare: Prepare) -> list[str]:
    hostile = prepare(bench, case)
    if hostile is None:
        return []
    problems = []
    for reader in hostile.readers:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        arguments = [part.replace("{path}", hostile.given or str(hostile.path)) for part in reader.split()]
        code, out, err = in_process(arguments)
        found = spoken(out, err)
        if code not in CODES:
            found.append(f"exit {code}")
        taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most) // 1024
        if taken > MEMORY_MB:
            found.append(f"memory: {taken} MB more")
        found += hostile.judge(reader, code, out, err)
        problems += [f"{problem}, in {' '.join(reader.split()[:2])}" for problem in found]
    return problems


def in_process(arguments: Sequence[str], stdin: str = "") -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that is called in this process."""
    kept = sys.stdin, sys.stdout, sys.stderr
    out, err = io.BytesIO(), io.BytesIO()
    heard = io.TextIOWrapper(out, "utf-8"), io.TextIOWrapper(err, "utf-8", "backslashreplace")
    sys.stdin, (sys.stdout, sys.stderr) = io.StringIO(stdin), heard
    try:
        code = command(arguments)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdin, sys.stdout, sys.stderr = kept
    for stream in heard:
        stream.flush()
    return code, out.getvalue().decode(), err.getvalue().decode()


Signature = dict[str, tuple[int, int, int]]
_FOLDER = (0, 0, 0)


def signature(root: Path) -> Signature:
    """What tells whether a file of the store is still the one that it was."""
    found = {}
    for folder, folders, files in os.walk(root):
        for name in (*files, *folders):
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = _facts(path)
    return found


def _facts(path: str | Path) -> tuple[int, int, int]:
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        return _FOLDER  # its time changes with what is in it
    return status.st_ino, status.st_size, status.st_mtime_ns


def restore(home: Path, original: Path, before: Signature) -> None:
    """Make the store in `home` the copy of `original` that it was."""
    now = signature(home)
    changed = {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)}
    if any(_FOLDER in (now.get(name), before.get(name)) for name in changed):
        shutil.rmtree(home)  # folders were changed: begin anew
        shutil.copytree(original, home, symlinks=True)
        before.clear()
        before.update(signature(home))
        return
    for name in changed:
        (home / name).unlink(missing_ok=True)
        if name in before:
            shutil.copy2(original / name, home / name)
            before[name] = _facts(home / name)
