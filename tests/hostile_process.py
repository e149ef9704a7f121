"""Runs commands of the command line for `hostile.confined`, each in a child with little memory and time.

Reads a job a line, {"home": ..., "arguments": [...]}, and answers each with a line. The libraries are loaded once.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import tempfile
import traceback
from typing import Any, NoReturn

MEMORY = 6 << 30
"""Bytes of memory of its own that a child may have: more than is allowed, less than the machine's."""
CPU_S = 120
"""Seconds of processor time after which a child is ended: what hangs, not what is slow; `hostile.cheap` judges cost."""


def warm_up() -> None:
    """Load what commands load, by letting one work, so that a child's cost is that of its own work."""
    from advmix_cli.cli import main

    with tempfile.TemporaryDirectory() as home, contextlib.suppress(SystemExit), open(os.devnull, "w") as nobody:
        os.environ["ADVMIX_HOME"] = home
        with contextlib.redirect_stdout(nobody):
            main(["attack", "--untrained", "--dataset", "glyphs", "--limit", "2", "--steps", "1", "-q"])


def child(job: dict[str, Any], out: int, err: int) -> NoReturn:
    """Be the command."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.environ["ADVMIX_HOME"] = job["home"]
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 2))
        from advmix_cli.cli import main

        main(job["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def run(job: dict[str, Any]) -> dict[str, Any]:
    """A job's outcome, and what it cost."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = os.fork()
        if not process:
            child(job, out.fileno(), err.fileno())
        _, status, usage = os.wait4(process, 0)
        out.seek(0)
        err.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "out": out.read(10 << 20).decode(errors="replace"),
            "err": err.read(10 << 20).decode(errors="replace"),
            "peak_mb": usage.ru_maxrss / 1024,
            "seconds": usage.ru_utime + usage.ru_stime,
        }


def main() -> None:
    """Answer until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in ("ADVMIX_DATA", "ADVMIX_DEBUG"):
        os.environ.pop(name, None)
    os.environ |= {"ADVMIX_DEVICE": "cpu", "COLUMNS": "120"}
    warm_up()
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
