"""Holding what is being made against other processes, on this machine or on those that share the store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from advmix_cli import files
from advmix_cli.errors import LockedError

LEASE_S = 60.0
"""How long nobody has heard of a lease's holder when another takes it over."""


class Locks:
    """Those of the store in `root`: the operating system's, or leases where the file `marker` says so to all.

    The system's lock frees itself when its holder is killed; its file stays, since removing it while others wait would
    give two of them the lock. A lease is a file that its holder renews, and that another takes over when it has not
    been renewed for a minute: for file systems that do not pass the system's locks on between machines.
    """

    def __init__(self, root: Path) -> None:
        self.folder, self.marker = root / "locks", root / "leases"
        self._watched: dict[str, Any] = {}  # leases of others, which know since when they have not been renewed

    @property
    def leases(self) -> bool:
        """Whether these are leases."""
        return files.there(self.marker)

    def file(self, name: str) -> Path:
        """Where the lock `name` is, or would be."""
        return self.folder / f"{name}.{'lease' if self.leases else 'lock'}"

    @contextlib.contextmanager
    def held(self, name: str, on_wait: Callable[[], None] | None) -> Iterator[None]:
        """Hold `name`. Waits, after calling `on_wait`; without it raises LockedError. Raises AdvmixError."""
        import filelock  # slow to import, and help and answers from the store need no lock

        path = self.file(name)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = self._watched.pop(name, None)
            if lock is None:
                leased = path.suffix == ".lease"
                lock = filelock.SoftFileLease(path, lease_duration=LEASE_S) if leased else filelock.FileLock(path)
            try:
                lock.acquire(timeout=0)
            except filelock.Timeout:
                if on_wait is None:
                    self._watched[name] = lock
                    raise LockedError(
                        f"{name} is being made by another process", "wait for it, or stop it, and try again"
                    ) from None
                on_wait()
                lock.acquire(poll_interval=0.1)
        except OSError as error:
            raise files.cannot_write(path.parent, error) from error
        try:
            yield
        finally:
            lock.release()
