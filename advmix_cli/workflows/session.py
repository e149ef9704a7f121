"""What every command works with and no result depends on: the store, the data folder, the device, the reporter."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from advmix_cli import artifacts, data, files
from advmix_cli.config import check_machine
from advmix_cli.errors import AdvmixError
from advmix_cli.settings import SCHEMA, require
from advmix_cli.store import Store, default_root

if TYPE_CHECKING:
    import torch

    from advmix_cli.data import ImageSet


class Progress(Protocol):
    """A running bar: call it with the number of units done; `line` says what is worth a line, `about` how it stands."""

    def __call__(self, n: int) -> None:
        """`n` more units are done."""

    def line(self, text: str) -> None:
        """Say something that stays."""

    def about(self, text: str) -> None:
        """Say beside the bar how things stand."""


class Reporter(Protocol):
    """Where a workflow says what it does. The result itself goes another way: it is returned."""

    def note(self, text: str) -> None:
        """Something to know, such as what a reference resolved to."""

    def warn(self, text: str) -> None:
        """Something to mind."""

    def progress(self, what: str, total: int, unit: str) -> contextlib.AbstractContextManager[Progress]:
        """A bar of `total` units."""


class _SilentProgress:
    def __call__(self, n: int) -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def about(self, text: str) -> None:
        pass


class Silent:
    """The reporter of library use: it says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Progress]:
        """Nothing."""
        yield _SilentProgress()


@dataclasses.dataclass(frozen=True)
class Session:
    """What every command works with and no result depends on: the store, the data folder, the device, the reporter."""

    store: Store
    data_root: Path
    report: Reporter
    device_name: str = "auto"
    threads: int | None = None
    batch_size: int | None = None
    force: bool = False
    command: str = ""

    @classmethod
    def open(
        cls,
        report: Reporter | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        batch_size: int | None = None,
        force: bool = False,
        command: str = "",
    ) -> Session:
        """A session on the store and data folder that the environment names. Refuses a store of another schema."""
        require(
            batch_size is None or batch_size > 0, f"--batch-size must be positive, not {batch_size}", "or leave it out"
        )
        check_machine(device, threads)
        store = Store(default_root())
        store.check_schema()
        root = data.default_root(store.root)
        return cls(store, root, report or Silent(), device, threads, batch_size, force, command)

    def check_device(self) -> None:
        """Raise UsageError where a device was asked for that is not here. Asks torch only where it has to."""
        if self.device_name.startswith(("cuda", "mps")):
            self.device()

    def device(self) -> torch.device:
        """The device to compute on, with threads and determinism set up."""
        from advmix_cli import runtime

        where = runtime.device(self.device_name)
        runtime.configure(self.threads, where)
        return where

    def images(self, dataset: str, split: str) -> ImageSet:
        """A split, on the CPU. Says so when it has to be fetched."""
        if not data.present(dataset, self.data_root):
            self.report.note(f"{dataset} is not in {self.data_root}: fetching it")
        return data.load(dataset, split, self.data_root)

    def fingerprint(self, dataset: str, *, fresh: bool = False) -> str:
        """The fingerprint of a data set: computed once and kept beside the store until its files change."""
        path = self.store.root / "datasets" / f"{data.info(dataset).name}.json"
        now = data.stamp(dataset, self.data_root)
        if now and not fresh:
            with contextlib.suppress(AdvmixError):
                kept = fingerprint_record(path)
                if kept["stamp"] == now:
                    return str(kept["fingerprint"])
        if not data.present(dataset, self.data_root):
            self.report.note(f"{dataset} is not in {self.data_root}: fetching it")
        value = data.fingerprint(dataset, self.data_root)
        now = data.stamp(dataset, self.data_root)
        record = {"schema": SCHEMA, "kind": "fingerprint", "name": dataset, "fingerprint": value, "stamp": now}
        with contextlib.suppress(AdvmixError):  # a store may be read alone; then it is computed each time
            self.store.write(path, artifacts.sealed(record).encode())
        return value


def fingerprint_record(path: Path) -> artifacts.Record:
    """What is kept of a data set's fingerprint. Raises NotFoundError or DamagedError."""
    return artifacts.check(artifacts.unseal(files.read(path, artifacts.LARGEST), path), "fingerprint", path)
