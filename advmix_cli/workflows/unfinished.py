"""What a long job leaves behind when it is stopped, so that the same command continues."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

from advmix_cli import artifacts
from advmix_cli.errors import DamagedError
from advmix_cli.workflows.common import Session

_EVERY_S = 10


class Unfinished:
    """The state of the job that makes the artifact `name`: plain tensors and values, of use only for that `key`."""

    def __init__(self, session: Session, name: str, key: str) -> None:
        self._session, self._key = session, key
        self._path = session.store.unfinished(name)
        self._written = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """The state; None where there is none, or where --force has yet to begin again. Damage is said, and passed."""
        if not self._path.exists():
            return None
        try:
            artifacts.samples_record(self._path)  # the archive's checksums
            kept: dict[str, Any] = artifacts.load_plain(self._path)
            if kept["key"] != self._key or (self._session.force and not kept["forced"]):
                return None
            state: dict[str, Any] = kept["state"]
        except (DamagedError, KeyError, TypeError):
            self._session.report.warn(f"the state of an interrupted run in {self._path} is damaged: beginning again")
            return None
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state, in one step."""
        import torch

        buffer = io.BytesIO()
        torch.save({"key": self._key, "forced": self._session.force, "state": state}, buffer)
        self._session.store.write(self._path, buffer.getvalue())
        self._written = time.monotonic()

    def now_and_then(self, make: Callable[[], dict[str, Any]]) -> None:
        """Write the state that `make` gives, unless one was written a moment ago."""
        if time.monotonic() - self._written >= _EVERY_S:
            self.write(make())

    def delete(self) -> None:
        """The job is done."""
        self._session.store.delete(self._path)
