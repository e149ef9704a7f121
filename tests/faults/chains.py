"""Real chains of commands, killed or interrupted at any time, and Ctrl-C while a process begins."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

from checks import Files, after_fault, mended, spoken
from family import Family, one_by_one, seeds
from scenarios import Bench
from world import ours, start

_CHAINS = (
    "{a} train --limit 60 --epochs 2 -q --name x | {a} attack - --limit 4 --steps 2 -q | {a} eval --samples - -q",
    "{a} attack v --limit 4 --steps 2 --seed 8 -q | {a} eval v w --samples - -q | {a} visualize matrix - -q",
    "{a} train --limit 60 --epochs 2 --seed 3,4 -q | {a} eval - --limit 20 --report {out}/report.html",
    "{a} train --limit 60 --epochs 1 --seed 6 -q | {a} advtrain --init - --limit 60 --epochs 1 -q | {a} store show -",
)
_FIRST = ("--version", "store list", "train --limit 60 --epochs 1 --seed 6", "eval v --limit 2")
_BEGIN_S = 0.1

_usual: dict[int, tuple[float, Files, Files]] = {}


def _begin(bench: Bench, number: int) -> subprocess.Popen[str]:
    line = _CHAINS[number].format(a=f"{sys.executable} -m advmix_cli", out=bench.out)
    return subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", line], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env=os.environ | {"ADVMIX_HOME": str(bench.home), "ADVMIX_DEVICE": "cpu"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        errors="replace", cwd=bench.out,
    )  # fmt: skip


def _undisturbed(bench: Bench, number: int) -> tuple[float, Files, Files]:
    if number not in _usual:
        bench.fresh("full")
        before, began = bench.now(), time.monotonic()
        _, err = (process := _begin(bench, number)).communicate()
        assert process.returncode == 0, err
        _usual[number] = (time.monotonic() - began, before, bench.now())
    return _usual[number]


def _chain(bench: Bench, case: str) -> list[str]:
    """A signal to all of a chain, and the chain again."""
    number, said, seed = case.split()
    seconds, before, undisturbed = _undisturbed(bench, int(number))
    bench.fresh("full")
    process = _begin(bench, int(number))
    time.sleep(random.Random(int(seed)).uniform(0.3, 1.0) * seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.Signals[said])
    try:
        out, err = process.communicate(timeout=seconds + 20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return ["hang"]
    problems = spoken(out, ours(err)) + after_fault(before, undisturbed, bench.now())
    verified = bench.runner.run(["store", "verify"], bench.home)
    if verified.code:
        problems.append(f"store verify: {verified.code} {verified.err.strip()[:120]}")
    _, err = (process := _begin(bench, int(number))).communicate(timeout=seconds + 60)
    if process.returncode:
        problems.append(f"again: exit {process.returncode}: {err.strip()[-200:]}")
    return problems + [f"again: {problem}" for problem in mended(undisturbed, bench.now())]


def _beginning(bench: Bench, case: str) -> list[str]:
    """Ctrl-C in the first tenth of a second, or a little after."""
    number, seed = map(int, case.split())
    bench.fresh("full")
    process = start(bench, _FIRST[number])
    time.sleep(random.Random(seed).choice((_BEGIN_S, 3 * _BEGIN_S, 1.5)) * random.Random(seed + 1).random())
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return ["hang"]
    problems = spoken(out.decode(errors="replace"), ours(err.decode(errors="replace")))
    return problems + ([] if process.returncode in (0, 130, -signal.SIGINT, 1) else [f"exit {process.returncode}"])


FAMILIES = (
    Family(
        "beginning", "Ctrl-C while a real process begins", seeds(lambda bench: [str(n) for n in range(len(_FIRST))]),
        one_by_one(_beginning), few=2,
    ),
    Family(
        "chains", "SIGKILL and Ctrl-C at any time in real chains of commands, then the same chain",
        seeds(lambda bench: [f"{n} {said}" for n in range(len(_CHAINS)) for said in ("SIGKILL", "SIGINT")]),
        one_by_one(_chain), few=0,
    ),
)  # fmt: skip
