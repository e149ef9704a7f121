"""The fault campaign: what advmix does when it is killed, interrupted, refused, crowded, and handed damaged files.

python tests/faults/campaign.py --minutes 60 --workers 2 --out faults.md
python tests/faults/campaign.py --case "kills train-named after 12"
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def main() -> int:
    """Try, and print the table; 1 where anything did not hold, 2 where the campaign itself broke down."""
    asked = _arguments()
    if asked.share is not None:
        return _work(asked)
    with tempfile.TemporaryDirectory(prefix="faults-", dir=_fast_folder()) as folder:
        return _lead(asked, Path(folder))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="how long, all families together")
    parser.add_argument("--workers", type=int, default=1, help="processes beside each other")
    parser.add_argument("--family", action="append", help="only this family; may be given several times")
    parser.add_argument("--case", action="append", help="only this case, as a failure names it: FAMILY and its words")
    parser.add_argument("--short", action="store_true", help="a few of each family, for the tests")
    parser.add_argument("--seed", type=int, default=0, help="for all random choices")
    parser.add_argument("--out", type=Path, help="write the table (.md), or all of it (.json)")
    parser.add_argument("--share", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _fast_folder() -> str | None:
    """Memory, where there is some to write to: most cases copy a store and sync it."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# Who leads: it starts the workers and counts


def _lead(asked: argparse.Namespace, folder: Path) -> int:
    import shim

    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT), "COLUMNS": "120",
        "PYTHONUTF8": "1", "TERM": "dumb", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    for name in ("ADVMIX_DATA", "ADVMIX_DEBUG", "ADVMIX_HOME"):
        environment.pop(name, None)
    if not shim.missing():
        environment["LD_PRELOAD"] = str(shim.build(folder))
    workers = []
    for number in range(asked.workers):
        own = folder / str(number)
        own.mkdir()
        share = ["--share", f"{number}/{asked.workers}", "--folder", str(own)]
        worker = subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], *share],
            env=environment | {"FAULT_CONFINE": str(own)}, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
            start_new_session=True, text=True,
        )  # fmt: skip
        workers.append(worker)
    from table import Table

    table, broken = Table(), []
    try:
        broken = _collect(workers, table)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; so far:\n")
    finally:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    sys.stdout.write(table.markdown())
    if asked.out is not None:
        asked.out.write_text(table.json() if asked.out.suffix == ".json" else table.markdown())
    return 2 if broken else int(bool(table.failures()))


def _collect(workers: list[subprocess.Popen[str]], table: object) -> list[int]:
    """What the workers say, until all have ended; those that broke down."""
    waiting = selectors.DefaultSelector()
    for worker in workers:
        waiting.register(worker.stdout, selectors.EVENT_READ, worker)
    while waiting.get_map():
        for ready, _ in waiting.select():
            line = ready.fileobj.readline()
            if line:
                table.add(json.loads(line))
            else:
                waiting.unregister(ready.fileobj)
    return [worker.wait() for worker in workers if worker.wait() != 0]


# Who works


def _families() -> dict[str, object]:
    import chains
    import crowds
    import damage
    import disk
    import foreign
    import hostile
    import reading
    import records
    import sweeps
    import world

    modules = (sweeps, damage, records, reading, hostile, foreign, crowds, disk, world, chains)
    return {family.name: family for module in modules for family in module.FAMILIES}


def _work(asked: argparse.Namespace) -> int:
    """Try this worker's share of the cases, and say each as a line of JSON."""
    from runner import Runner
    from scenarios import Bench

    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**what: object) -> None:
        said.write(json.dumps(what) + "\n")
        said.flush()

    number, of = map(int, asked.share.split("/"))
    families = _families()
    chosen = {case.split()[0] for case in asked.case or ()} or set(asked.family or families)
    if chosen - set(families):
        sys.exit(f"no family {', '.join(chosen - set(families))}; there are {', '.join(families)}")
    possible = []
    for name in (name for name in families if name in chosen):
        reason = families[name].skip()
        say(family=name, title=families[name].title, skip=reason)
        possible += [] if reason else [families[name]]
    if not possible:
        return 0
    bench = Bench(Runner(asked.folder))
    bench.prepare()
    until = time.monotonic() + 60 * asked.minutes
    turns = []
    for family in possible:
        if asked.case:
            cases = iter([case.partition(" ")[2] for case in asked.case if case.split()[0] == family.name])
        else:
            most = family.few if asked.short else None
            cases = itertools.islice(family.cases(bench, random.Random(asked.seed)), most)
        own = (case for case in cases if zlib.crc32(case.encode()) % of == number)
        turns.append([family, own, 0.0])
    while turns and time.monotonic() < until:
        turn = min(turns, key=lambda each: each[2])  # the family that had the least time so far
        family, cases, _ = turn
        some = list(itertools.islice(cases, family.batch))
        if not some:
            turns.remove(turn)
        began = time.monotonic()
        for case, problems in family.attempt(bench, some):
            now = time.monotonic()
            say(family=family.name, case=case, problems=problems, seconds=now - began)
            turn[2] += now - began
            began = now
    return 0


if __name__ == "__main__":
    sys.exit(main())
