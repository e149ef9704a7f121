"""The preloaded library that lets file operations go wrong: built on the spot, armed through ctypes."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

KINDS = (
    "open", "create", "read", "write", "sync", "rename", "unlink", "mkdir", "link", "truncate", "listing", "lock",
    "stat", "close",
)  # fmt: skip
"""The kinds of operation, in the order of their bits in shim.c."""

ALL = (1 << len(KINDS)) - 1
COUNT, FAIL, FAIL_ON, SHORT_WRITE, BEFORE, AFTER = range(6)
ACTIONS = {"fail": FAIL, "fail-on": FAIL_ON, "short": SHORT_WRITE, "before": BEFORE, "after": AFTER}


def mask(*kinds: str) -> int:
    """The bits of these kinds."""
    return sum(1 << KINDS.index(kind) for kind in kinds)


CHANGES = mask("create", "write", "sync", "rename", "unlink", "mkdir", "link", "truncate")
"""What changes a disk, or promises that it did: between two of them a kill leaves the same files."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """At the `nth` operation of the kinds in `mask`: an action, with its errno or signal."""

    action: int = COUNT
    nth: int = 0
    number: int = 0
    mask: int = ALL


def missing() -> str:
    """Why there can be no such library here, else nothing."""
    if not sys.platform.startswith("linux"):
        return "a preloaded library needs Linux"
    return "" if shutil.which("cc") else "there is no C compiler"


def build(folder: Path) -> Path:
    """The library, compiled into `folder`."""
    library = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


class Shim:
    """The library as it is in this process, which was started with it preloaded."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.fault_count.restype = ctypes.c_long
        self._library.fault_seen.restype = ctypes.POINTER(ctypes.c_ushort)
        self._library.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_int]

    def arm(self, fault: Fault, folders: Sequence[Path]) -> None:
        """From now on count operations below `folders`, and let the one that is meant go wrong."""
        below = b"\n".join(os.fsencode(folder) for folder in folders)
        self._library.fault_arm(below, fault.nth, fault.action, fault.number, fault.mask)

    def disarm(self) -> list[int]:
        """Count no more; the kinds of the operations that there were, in order."""
        counted = min(int(self._library.fault_count()), 65536)
        self._library.fault_disarm()
        return list(self._library.fault_seen()[:counted])

    @staticmethod
    def die_with_parent() -> None:
        """A forked process ends with the one that forked it."""
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
