"""What every command works with and no result depends on: the store, the data folder, the device, the reporter."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from advmix_cli import data, world
from advmix_cli.config import check_machine
from advmix_cli.settings import require
from advmix_cli.store import Follower, Store, default_root
from advmix_cli.workflows.watching import Watching
from advmix_cli.world import World

if TYPE_CHECKING:
    import torch

    from advmix_cli.data import DatasetInfo, ImageSet
    from advmix_cli.judging import HeldOut
    from advmix_cli.results import Table
    from advmix_cli.workflows.datasets import Opened


class Progress(Protocol):
    """A running bar: call it with the number of units done; `line` says what is worth a line, `about` how it stands."""

    def __call__(self, n: float, left: float | None = None, before: bool = False) -> None:
        """`n` more units are done, and so many left where that was not said beforehand.

        `before`: they were done in no time of this run, and say nothing of its speed.
        """

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

    def progress(
        self, what: str, total: int | None = None, unit: str = ""
    ) -> contextlib.AbstractContextManager[Progress]:
        """A bar of `total` units; None: each call says what is left, in units of no name."""

    def live(self) -> contextlib.AbstractContextManager[Callable[[Table], bool]]:
        """What shows a table in place of the one before it, and says whether there is anyone to look at the next."""


class _SilentProgress:
    def __call__(self, n: float, left: float | None = None, before: bool = False) -> None:
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
    def progress(self, what: str, total: int | None = None, unit: str = "") -> Iterator[Progress]:
        """Nothing."""
        yield _SilentProgress()

    @contextlib.contextmanager
    def live(self) -> Iterator[Callable[[Table], bool]]:
        """Nobody looks."""
        yield lambda table: False


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
    skip_damaged: bool = False
    sync_bn: bool = False
    """Batch norm takes the mean over all ranks' images."""
    watching: Watching = dataclasses.field(default_factory=Watching)
    """Where the epochs of training are told."""
    stored_only: bool = False
    """Nothing is made: what the store does not have is an error."""
    part: World = world.ALONE
    """Which samples are attacked: those of this rank, or of the shard that was asked for."""
    opened: dict[str, Opened] = dataclasses.field(default_factory=dict)
    """The data sets that were opened, by their full names."""

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
        skip_damaged: bool = False,
        home: Path | None = None,
        shard: str | None = None,
        sync_bn: bool = False,
        watching: Watching | None = None,
    ) -> Session:
        """A session on the store `home`, else the one that the environment names. Refuses one of another schema.

        Of several ranks the first alone writes; `shard` is one of the parts of the samples.
        """
        require(
            batch_size is None or batch_size > 0, f"--batch-size must be positive, not {batch_size}", "or leave it out"
        )
        check_machine(device, threads)
        watching = watching or Watching()
        watching.check()
        ranks = world.current()
        require(shard is None or not ranks.joined, "--shard is for processes that do not share a job", "leave it out")
        require(ranks.joined or not sync_bn, "--sync-bn is for several ranks", "start them by torchrun")
        part = ranks if shard is None else world.shard(shard)
        store = (Store if ranks.first else Follower)(home or default_root())
        store.check_schema()
        root = data.default_root(store.root)
        return cls(
            store, root, report or Silent(), device, threads, batch_size, force, command, skip_damaged, sync_bn,
            watching, part=part,
        )  # fmt: skip

    @property
    def ranks(self) -> World:
        """The processes that share this job."""
        return world.current()

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

    def dataset(self, name: str) -> DatasetInfo:
        """What is known of a data set; another's is prepared where it has not been."""
        from advmix_cli.workflows import datasets

        return datasets.about(self, name)

    def images(self, name: str, split: str, held: HeldOut | None = None) -> ImageSet:
        """A split, or what a run held out, on the CPU."""
        from advmix_cli.workflows import datasets

        return datasets.images(self, name, split, held)

    def fingerprint(self, name: str, *, fresh: bool = False) -> str:
        """The fingerprint of a data set: computed once and kept beside the store until its files change."""
        from advmix_cli.workflows import datasets

        return datasets.opened(self, name, fresh=fresh).fingerprint
