"""What a long job leaves behind when it is stopped, so that the same command continues."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from advmix_cli import artifacts
from advmix_cli.errors import DamagedError, NotFoundError, StateError
from advmix_cli.store import Store
from advmix_cli.workflows.session import Session

_EVERY_S = 10
_MOST = 1_000_000

_FIELDS = {"key": str, "forced": bool, "number": int, "seconds": float, "pieces": list}

Piece = dict[str, Any]
Done = TypeVar("Done")


class Unfinished:
    """The state of the job that makes the artifact `name`, in pieces; of use only for that `key`.

    A piece is plain tensors and values. What becomes known is added, so that a write is as large as what is new.
    Processes that share the job keep their own pieces, and read all.
    """

    def __init__(self, session: Session, name: str, key: str) -> None:
        self._session, self._name, self._key = session, name, key
        self._store = Store(session.store.root)  # also of ranks whose session writes nothing else
        self._pending: list[Piece] = []
        self._files, self._next = session.store.unfinished(name), 0
        self._before, self._began = 0.0, time.monotonic()
        self._written = self._began

    @property
    def seconds(self) -> float:
        """How long the job has taken, over all sittings."""
        return self._before + time.monotonic() - self._began

    def resumed(self, work: Callable[[list[Piece]], Done]) -> Done:
        """`work` on the pieces that are there; on none where there are none, --force begins again, or they are damaged.

        Damage is said. What only the work can tell it raises as `StateError`.
        """
        pieces, self._before, self._next = self._session.ranks.agreed(lambda: (self._read(), self._before, self._next))
        if pieces:
            try:
                return work(pieces)
            except StateError:
                self._warn()
        self._delete(self._files)
        self._before = 0.0
        return work([])

    def _warn(self) -> None:
        folder = self._session.store.root / "unfinished"
        self._session.report.warn(f"the state of an interrupted run in {folder} is damaged: beginning again")

    def _read(self) -> list[Piece]:
        found: list[Piece] = []
        try:
            for file in self._files:
                kept = artifacts.read_state(file)
                if kept.keys() != _FIELDS.keys() or not all(type(kept[name]) is kind for name, kind in _FIELDS.items()):
                    raise DamagedError(f"{file} is no state", "begin again")
                if not (0 <= kept["seconds"] < math.inf and 0 <= kept["number"] < _MOST):
                    raise DamagedError(f"{file} is no state", "begin again")
                if kept["key"] != self._key or (self._session.force and not kept["forced"]):
                    return []
                found += kept["pieces"]
                self._before, self._next = max(self._before, kept["seconds"]), max(self._next, kept["number"] + 1)
        except (DamagedError, NotFoundError):
            self._warn()
            return []
        return found

    def add(self, piece: Piece) -> None:
        """Keep a piece; it is written with others, a while after the last."""
        self._pending.append(piece)
        if time.monotonic() - self._written >= _EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write what was added."""
        if self._pending:
            self._write(self._pending)
            self._pending = []

    def replace(self, piece: Piece) -> None:
        """Let this piece be the whole state."""
        before = list(self._files)
        self._write([piece])
        for file in before:
            self._store.delete(file)
        self._files = self._files[len(before) :]

    def _write(self, pieces: list[Piece]) -> None:
        content = {
            "key": self._key, "forced": self._session.force, "number": self._next, "seconds": self.seconds,
            "pieces": pieces,
        }  # fmt: skip
        path = self._store.unfinished_piece(self._name, self._next, self._session.part.lane)
        self._store.write(path, artifacts.state_bytes(content))
        self._files.append(path)
        self._next += 1
        self._written = time.monotonic()

    def delete(self) -> None:
        """The job is done: what all processes have kept of it goes."""
        self._delete([*self._files, *self._store.unfinished(self._name)])

    def _delete(self, kept: Sequence[Path]) -> None:
        if self._session.ranks.first:
            for file in kept:
                self._store.delete(file)
        self._files = []
