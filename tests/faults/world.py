"""Odd environments, most of real processes: streams, alphabets, homes, limits, dates; stores that cannot be written."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from checks import CODES, Files, ended, mended, spoken
from family import Family, listed, one_by_one
from scenarios import Bench
from shim import CHANGES, FAIL_ON, Fault

_LIMIT_S = 60
_LINES = (
    "store list", "store list --json", "store show v", "store verify", "store remove nothing",
    "attack v --limit 6 --steps 3", "eval v --samples c -q", "train --limit 60 --epochs 2",
    "train --limit 60 --epochs 1 --seed 9 --name new", "--help", "nonsense",
)  # fmt: skip
_STORED = (
    "store list", "store show v", "store path c", "store verify", "attack v --limit 6 --steps 3", "eval v --samples c",
    "train --limit 600 --epochs 3 --lr 0.02 --batch-size 20", "visualize curves t", "eval v --samples c --json",
)  # fmt: skip
"""What the store answers: also where it cannot be written."""

_REDIRECTED = {
    **{
        f"closed-{''.join(map(str, closed))}": " ".join(("<&-", ">&-", "2>&-")[stream] for stream in closed)
        for many in (1, 2, 3)
        for closed in itertools.combinations(range(3), many)
    },
    "full": "> /dev/full",
    "full-both": "> /dev/full 2> /dev/full",
    "full-err": "2> /dev/full",
    "unread": "| true",
    "head": "| head -c 1 > /dev/null",
    "stdin-folder": "< /",
}
_ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "ascii": {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "ADVMIX_HOME": "{home}/hömé-🙂"},
    "posix": {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "ADVMIX_HOME": "{home}/hömé-🙂"},
    "latin": {"PYTHONIOENCODING": "latin-1", "ADVMIX_HOME": "{home}/hömé-🙂"},
    "no-home": {"HOME": None, "ADVMIX_HOME": None},
    "home-nowhere": {"HOME": "/nowhere", "ADVMIX_HOME": None},
    "home-empty": {"ADVMIX_HOME": ""},
    "home-relative": {"ADVMIX_HOME": "some/where"},
    "home-tilde": {"ADVMIX_HOME": "~nouser/x"},
    "home-long": {"ADVMIX_HOME": "{home}/" + "x" * 300},
    "home-deep": {"ADVMIX_HOME": "{home}/" + "y/" * 150 + "z"},
    "home-endless": {"ADVMIX_HOME": "{home}/" + "y/" * 3000 + "z"},
    "home-file": {"ADVMIX_HOME": "{home}/schema"},
    "home-below-file": {"ADVMIX_HOME": "{home}/schema/x"},
    "home-device": {"ADVMIX_HOME": "/dev/null"},
    "home-proc": {"ADVMIX_HOME": "/proc"},
    "home-escape": {"ADVMIX_HOME": "{home}/\x1b[31m"},
    "home-newline": {"ADVMIX_HOME": "{home}/a\nb"},
    "home-not-text": {"ADVMIX_HOME": "{home}/\udcff\udcfe"},
    "home-markup": {"ADVMIX_HOME": "{home}/[bold]$x_{$"},
    "data-nowhere": {"ADVMIX_DATA": "/nowhere"},
    "data-tilde": {"ADVMIX_DATA": "~nouser/x"},
    "device": {"ADVMIX_DEVICE": "tpu"},
    "threads": {"OMP_NUM_THREADS": "many"},
    "no-columns": {"COLUMNS": "0"},
    "columns": {"COLUMNS": "wide"},
    "narrow": {"COLUMNS": "3"},
    "warnings": {"PYTHONWARNINGS": "error::UserWarning"},
    "no-path": {"PATH": ""},
    "hash": {"PYTHONHASHSEED": "7"},
}  # fmt: skip
_LIMITS: dict[str, tuple[int, int]] = {
    **{f"memory-{mb}": (resource.RLIMIT_AS, mb << 20) for mb in (120, 250, 500, 1000, 2000, 4000)},
    **{f"files-{number}": (resource.RLIMIT_NOFILE, number) for number in (8, 12, 20, 40)},
    **{f"stack-{kb}": (resource.RLIMIT_STACK, kb << 10) for kb in (512,)},
    **{f"seconds-{number}": (resource.RLIMIT_CPU, number) for number in (1,)},
}
_TIMES = {"before": -(10**9), "zero": 0, "far": 10**12, "beyond": 2**62 // 10**9, "year-10000": 253402300800}


def start(
    bench: Bench,
    line: str,
    redirected: str = "",
    environment: dict[str, str | None] | None = None,
    limit: tuple[int, int] | None = None,
) -> subprocess.Popen[bytes]:
    """A real process that heeds Ctrl-C, by a shell where it is redirected."""
    changed = {"ADVMIX_HOME": "{home}", "ADVMIX_DEVICE": "cpu", **(environment or {})}
    given = dict(os.environ)
    for name, value in changed.items():
        given.pop(name, None)
        if value is not None:
            given[name] = value.replace("{home}", str(bench.home))
    program = [sys.executable, "-m", "advmix_cli", *line.split()]
    if redirected:
        program = ["/bin/bash", "-c", f"{' '.join(program)} {redirected}; exit ${{PIPESTATUS[0]}}"]

    def first() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if limit is not None:
            resource.setrlimit(limit[0], (limit[1], limit[1]))

    return subprocess.Popen(
        program, env=given, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=bench.out,
        preexec_fn=first,
    )  # fmt: skip


def finish(process: subprocess.Popen[bytes], also: Sequence[int] = ()) -> list[str]:
    """What is wrong with its end; it may also end with the codes `also`."""
    try:
        out, err = process.communicate(timeout=_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return ["hang"]
    problems = spoken(out.decode(errors="replace"), ours(err.decode(errors="replace")))
    if process.returncode not in (*CODES, *also):
        problems.append(f"exit {process.returncode}: {err.decode(errors='replace').strip()[-150:]}")
    return problems


def ours(err: str) -> str:
    """What was said, but for a traceback of an interpreter that had not come to the program yet."""
    return err if "in main" in err or "Traceback" not in err else ""


def _kept(bench: Bench, before: Files) -> list[str]:
    """What became of the files that were there: whatever the surroundings, none is changed, but refs."""
    now = bench.now()
    lost = [name for name in before if now.get(name) != before[name] and not name.startswith("refs/")]
    problems = [f"{name} is {'changed' if name in now else 'gone'}" for name in lost]
    return problems + ended(bench.runner.run(["store", "verify"], bench.home))


def _prepared(bench: Bench) -> Files:
    bench.fresh("full")
    return bench.now()


def _redirected(bench: Bench, name: str, line: str) -> list[str]:
    before = _prepared(bench)
    return finish(start(bench, _LINES[int(line)], _REDIRECTED[name])) + _kept(bench, before)


def _environment(bench: Bench, name: str, line: str) -> list[str]:
    before = _prepared(bench)
    return finish(start(bench, _LINES[int(line)], environment=_ENVIRONMENTS[name])) + _kept(bench, before)


def _limited(bench: Bench, name: str, line: str) -> list[str]:
    before = _prepared(bench)
    process = start(bench, _LINES[int(line)], limit=_LIMITS[name])
    no_room, no_time = 127, (-signal.SIGXCPU, -signal.SIGKILL)
    return finish(process, no_time if name.startswith("seconds") else (no_room,)) + _kept(bench, before)


def _read_only(bench: Bench, name: str, line: str) -> list[str]:
    """The store answers though nothing in it can be written."""
    before = _prepared(bench)
    fault = Fault(FAIL_ON, 1, getattr(errno, name), CHANGES)
    ran = bench.runner.run(_STORED[int(line)].split(), bench.home, fault=fault)
    problems = ended(ran)
    if ran.code != 0:
        problems.append(f"what is stored is not answered: exit {ran.code}: {ran.err.strip()[-150:]}")
    return problems + mended(before, bench.now())


def _dated(bench: Bench, name: str, line: str) -> list[str]:
    _prepared(bench)
    for path in [*bench.home.rglob("*.*"), *bench.home.glob("refs/*")]:
        os.utime(path, (_TIMES[name], _TIMES[name]))
    ran = bench.runner.run(_LINES[int(line)].split(), bench.home)
    return ended(ran)


def _named(bench: Bench, name: str, line: str) -> list[str]:
    """Files whose names are no text, or as long as they may be."""
    before = _prepared(bench)
    raw = {"not-text": b"\xff\xfe", "long": b"x" * 240, "escape": b"\x1b[31m", "blank": b" a b "}[name]
    folder = os.fsencode(bench.out)
    for suffix in (b".pt", b".safetensors"):
        source = bench.files / ("foreign.pt" if suffix == b".pt" else "other.safetensors")
        with open(os.path.join(folder, raw + suffix), "wb") as file:
            file.write(source.read_bytes())
    given = Path(os.fsdecode(os.path.join(folder, raw)))
    arguments = [part.replace("{path}", str(given)) for part in _WITH_FILES[int(line)].split()]
    return ended(bench.runner.run(arguments, bench.home)) + _kept(bench, before)


_WITH_FILES = (
    "import {path}.pt --dataset glyphs", "import {path}.safetensors --dataset glyphs", "eval {path}.safetensors",
    "visualize curves t --out {path}.png", "eval v --limit 5 --report {path}.html", "store show {path}.pt",
)  # fmt: skip
_SORTS: dict[str, tuple[Callable[[Bench, str, str], list[str]], Sequence[str], Sequence[str]]] = {
    "streams": (_redirected, tuple(_REDIRECTED), _LINES),
    "environment": (_environment, tuple(_ENVIRONMENTS), _LINES),
    "limit": (_limited, tuple(_LIMITS), _LINES),
    "read-only": (_read_only, ("EROFS", "EACCES"), _STORED),
    "dated": (_dated, tuple(_TIMES), _LINES),
    "named": (_named, ("not-text", "long", "escape", "blank"), _WITH_FILES),
}


def _check(bench: Bench, case: str) -> list[str]:
    sort, name, line = case.split()
    return _SORTS[sort][0](bench, name, line)


FAMILIES = (
    Family(
        "world", "odd streams, environments, limits, dates, file names; stores that cannot be written",
        listed(lambda bench: [f"{sort} {name} {line}" for sort, (_, names, lines) in _SORTS.items() for name in names
                              for line in range(len(lines))]), one_by_one(_check), few=4,
    ),
)  # fmt: skip
