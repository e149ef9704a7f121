"""What a long job leaves behind when it is stopped, so that the same command continues."""

from __future__ import annotations

import io
import time
from typing import Any

from advmix_cli import artifacts
from advmix_cli.errors import DamagedError
from advmix_cli.workflows.session import Session

_EVERY_S = 10

Piece = dict[str, Any]


class Unfinished:
    """The state of the job that makes the artifact `name`, in pieces; of use only for that `key`.

    A piece is plain tensors and values. What becomes known is added, so that a write is as large as what is new.
    """

    def __init__(self, session: Session, name: str, key: str) -> None:
        self._session, self._name, self._key = session, name, key
        self._pending: list[Piece] = []
        self._files, self._next = session.store.unfinished(name), 0
        self._before, self._began = 0.0, time.monotonic()
        self._written = self._began

    @property
    def seconds(self) -> float:
        """How long the job has taken, over all sittings."""
        return self._before + time.monotonic() - self._began

    def read(self) -> list[Piece]:
        """The pieces, in their order. None where there are none or --force begins again; damage is said, and passed."""
        found: list[Piece] = []
        try:
            for file in self._files:
                artifacts.samples_record(file)  # the archive's checksums
                kept: dict[str, Any] = artifacts.load_plain(file)
                if kept["key"] != self._key or (self._session.force and not kept["forced"]):
                    found = []
                    break
                found += kept["pieces"]
                self._before, self._next = float(kept["seconds"]), int(kept["number"]) + 1
        except (DamagedError, KeyError, TypeError, ValueError):
            folder = self._session.store.root / "unfinished"
            self._session.report.warn(f"the state of an interrupted run in {folder} is damaged: beginning again")
            found = []
        if not found:
            self.delete()
            self._before = 0.0
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
            self._session.store.delete(file)
        self._files = self._files[len(before) :]

    def _write(self, pieces: list[Piece]) -> None:
        import torch

        content = {
            "key": self._key, "forced": self._session.force, "number": self._next, "seconds": self.seconds,
            "pieces": pieces,
        }  # fmt: skip
        buffer = io.BytesIO()
        torch.save(content, buffer)
        path = self._session.store.unfinished_piece(self._name, self._next)
        self._session.store.write(path, buffer.getvalue())
        self._files.append(path)
        self._next += 1
        self._written = time.monotonic()

    def delete(self) -> None:
        """The job is done, or begins again."""
        for file in self._files:
            self._session.store.delete(file)
        self._files, self._next = [], 0
