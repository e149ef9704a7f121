"""What others may watch while models learn: a line an epoch in a file, and TensorBoard's event files."""

from __future__ import annotations

import dataclasses
import importlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advmix_cli import files
from advmix_cli.errors import UsageError
from advmix_cli.settings import require


@dataclasses.dataclass
class Watching:
    """Where the epochs of a command's runs are told: `log`, a file of JSON lines, and the folder `tensorboard`.

    A command's log holds all epochs of all its runs, those of a run that is continued or found in the store too, so
    that it is the same whether or not the command was interrupted.
    """

    log: Path | None = None
    tensorboard: Path | None = None
    _told: dict[str, int] = dataclasses.field(default_factory=dict)
    _writers: dict[str, Any] = dataclasses.field(default_factory=dict)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def check(self) -> None:
        """Raise UsageError or NotFoundError where something cannot be written."""
        if self.log is not None:
            require(self.log.suffix == ".jsonl", f"--log {self.log} must end in .jsonl", "it is a JSON object a line")
            files.check_folder(self.log)
        if self.tensorboard is not None:
            folder = self.tensorboard
            require(folder.is_dir() or not folder.exists(), f"--tensorboard {folder} is no folder", "name a folder")
            files.check_folder(folder)
            try:
                importlib.import_module("torch.utils.tensorboard")
            except ImportError:
                raise UsageError(
                    "--tensorboard needs the package tensorboard", "pip install 'advmix[tensorboard]'", code="missing"
                ) from None

    def tell(self, checkpoint: str, rows: Sequence[dict[str, Any]]) -> None:
        """Write the epochs of a run that have not been told. Raises AdvmixError where the system refuses."""
        with self._lock:
            new = [row for row in rows if row["epoch"] > self._told.get(checkpoint, 0)]
            first = not self._told
            if not new:
                return
            self._told[checkpoint] = new[-1]["epoch"]
            if self.log is not None:
                try:
                    with self.log.open("w" if first else "a") as file:
                        file.writelines(json.dumps({"checkpoint": checkpoint, **row}) + "\n" for row in new)
                except OSError as error:
                    raise files.cannot_write(self.log.absolute().parent, error, ours=False) from error
            if self.tensorboard is not None:
                try:
                    self._draw(self.tensorboard / checkpoint, new)
                except OSError as error:
                    raise files.cannot_write(self.tensorboard, error, ours=False) from error

    def _draw(self, folder: Path, rows: Sequence[dict[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        writer = self._writers.get(folder.name)
        if writer is None:  # what an earlier command wrote there of the same epochs is not shown twice
            writer = self._writers[folder.name] = SummaryWriter(folder, purge_step=1)
        for row in rows:
            for name, value in row.items():
                split, _, what = name.partition("_")
                tag = f"{what}/{split}" if split in ("train", "validation", "test") else name
                if name != "epoch":
                    writer.add_scalar(tag, float(value), row["epoch"])
        writer.flush()
