"""The data sets: what they are, their images, and the fingerprint of those images.

What is known by name is an entry in `builtin.DATASETS`. Folders, array files and torchvision's other sets are sources
(`source.py`); they are decoded once into a file (`prepared.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import files
from advmix_cli.data.builtin import DATASETS
from advmix_cli.data.info import DatasetInfo
from advmix_cli.errors import AdvmixError, DamagedError, known_name
from advmix_cli.names import SOURCES, parted

if TYPE_CHECKING:
    import torch

    from advmix_cli.data.pixels import Pixels

__all__ = [
    "DATASETS",
    "DatasetInfo",
    "ImageSet",
    "default_root",
    "fingerprint",
    "identity",
    "info",
    "load",
    "present",
    "stamp",
]


def identity(info: DatasetInfo, fingerprint: str) -> dict[str, Any]:
    """What a data set is known by in keys: its pixels and labels, and the version of what made them."""
    return {"fingerprint": fingerprint, "version": info.version}


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """One split of a data set: `x` uint8 (N,C,H,W) in 0..255 and `y` int64 (N,), on one device.

    The pixels of a large set stay in their file and come to the device as they are indexed.
    """

    info: DatasetInfo
    split: str
    x: Pixels
    y: torch.Tensor

    def __len__(self) -> int:
        return len(self.y)

    def first(self, limit: int | None) -> ImageSet:
        """The first `limit` images (None: all)."""
        return self if limit is None else self._of(slice(limit))

    def take(self, index: torch.Tensor) -> ImageSet:
        """The images at `index`."""
        return self._of(index)

    def _of(self, index: torch.Tensor | slice) -> ImageSet:
        import torch

        x = self.x[index] if isinstance(self.x, torch.Tensor) else self.x.of(index)
        return dataclasses.replace(self, x=x, y=self.y[index])

    def to(self, device: torch.device | str) -> ImageSet:
        """The same on another device: whole, where it takes no more than a quarter of a GPU's memory."""
        import torch

        x, where = self.x, torch.device(device)
        if not isinstance(x, torch.Tensor) and where.type == "cuda":
            fits = x.nbytes <= torch.cuda.get_device_properties(where).total_memory // 4
            x = x[:] if fits else x
        return dataclasses.replace(self, x=x.to(device), y=self.y.to(device))


def info(name: str) -> DatasetInfo:
    """What is known by that name, `mnist` or `mnist@28`; UsageError, with the nearest, for anything else."""
    base, size = parted(name)
    found = DATASETS[known_name(base, (*DATASETS, *(f"{each}:..." for each in SOURCES)), "dataset")]
    if size is None or (size, size) == found.shape[1:]:
        return found
    return found.resized(size)


def default_root(home: Path) -> Path:
    """Where the data sets lie: `$ADVMIX_DATA`, else a folder in the store."""
    given = os.environ.get("ADVMIX_DATA", "").strip()
    return files.home(Path(given)).absolute() if given else home / "data"


def present(name: str, root: Path) -> bool:
    """Whether a data set that is known by name can be read without a download."""
    return all((root / file).is_file() for file in info(name).files)


def load(name: str, split: str, root: Path, *, download: bool = True) -> ImageSet:
    """A split of a set that is known by name, as uint8 tensors on the CPU, at its size.

    Reads what lies in `root`, which may be read-only; downloads what does not, with verification. Raises
    AdvmixError, with the files, the folder and what to do, where it can be neither read nor fetched.
    """
    entry = info(name)
    module, _, function = entry.source.partition(":")
    x, y = getattr(importlib.import_module(module), function)(split, root, download)
    if tuple(x.shape[1:]) != entry.native or len(x) != len(y) or len(x) != entry.sizes[split]:
        raise AdvmixError(
            f"{name} in {root} holds {len(x)} images of shape {tuple(x.shape[1:])}, "
            f"not {entry.sizes[split]} of {entry.native}",
            f"remove the folder and fetch it again: advmix data fetch {name}",
            code="damaged-data",
        )
    if entry.shape != entry.native:
        from torch.nn.functional import interpolate  # torchvision's resize, whose import takes as long as torch's

        x = interpolate(x, list(entry.shape[1:]), mode="bilinear", antialias=True)  # on uint8, as the report did
    return ImageSet(entry, split, x, y)


def fingerprint(name: str, root: Path, *, download: bool = True) -> str:
    """SHA-256 of all pixels (as the models see them) and labels, training then test, of a set known by name.

    Raises DamagedError when a file is not the one that is known: torchvision checks MNIST's only when it fetches them.
    """
    total = hashlib.sha256()
    for split in ("train", "test"):
        images = load(name, split, root, download=download)
        for file, known in info(name).files.items():
            if split == "train" and known and hashlib.sha256((root / file).read_bytes()).hexdigest() != known:
                raise DamagedError(
                    f"{root / file} is not the file that {name} is known by",
                    f"remove it and fetch it again: advmix data fetch {name}",
                )
        total.update(images.x.numpy().data)  # type: ignore[union-attr]
        total.update(images.y.numpy().data)
    return total.hexdigest()


def stamp(name: str, root: Path) -> dict[str, Any]:
    """What the fingerprint may depend on and can be read off in no time: it is computed anew when this changes."""
    from importlib.metadata import version  # slow to import, and most commands need none

    entry = info(name)
    libraries = ("torchvision",) if entry.files else ("pillow", "numpy", "torchvision")
    found: dict[str, Any] = {"version": entry.version} | {library: version(library) for library in libraries}
    for file in entry.files:
        try:
            status = (root / file).stat()
        except OSError:
            return {}
        found[file] = [status.st_size, status.st_mtime_ns]
    return found
