"""The data sets: what they are (needs no torch), their images, and the fingerprint of those images.

A new data set is one entry in `DATASETS` and one function that gives its pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.metadata
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli.errors import AdvmixError, known_name

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without reading it. `shape` is (C,H,W) as the models take it."""

    name: str
    title: str
    shape: tuple[int, int, int]
    sizes: dict[str, int]
    classes: tuple[str, ...]
    arch: str
    source: str  # module:function, called with (split, root, download), gives uint8 (N,C,H,W) and int64 (N,)
    files: tuple[str, ...] = ()


_DIGITS = tuple("0123456789")

DATASETS = {
    info.name: info
    for info in (
        DatasetInfo(
            "glyphs",
            "digits drawn with an embedded font; needs no download",
            (1, 32, 32),
            {"train": 10_000, "test": 2_000},
            _DIGITS,
            "lenet5",
            "advmix_cli.data.glyphs:glyphs",
        ),
        DatasetInfo(
            "mnist",
            "handwritten digits, 28x28 resized to 32x32",
            (1, 32, 32),
            {"train": 60_000, "test": 10_000},
            _DIGITS,
            "lenet5",
            "advmix_cli.data.vision:mnist",
            tuple(f"MNIST/raw/{part}-ubyte" for part in (
                "train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"
            )),
        ),
        DatasetInfo(
            "cifar10",
            "colour photographs of ten kinds of things",
            (3, 32, 32),
            {"train": 50_000, "test": 10_000},
            ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            "preactresnet18",
            "advmix_cli.data.vision:cifar10",
            tuple(f"cifar-10-batches-py/{part}" for part in (
                *(f"data_batch_{i}" for i in range(1, 6)), "test_batch"
            )),
        ),
    )
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """One split of a data set: `x` uint8 (N,C,H,W) in 0..255 and `y` int64 (N,), on one device."""

    info: DatasetInfo
    split: str
    x: torch.Tensor
    y: torch.Tensor

    def __len__(self) -> int:
        return len(self.y)

    def first(self, limit: int | None) -> ImageSet:
        """The first `limit` images (None: all)."""
        return self if limit is None else dataclasses.replace(self, x=self.x[:limit], y=self.y[:limit])

    def take(self, index: torch.Tensor) -> ImageSet:
        """The images at `index`."""
        return dataclasses.replace(self, x=self.x[index], y=self.y[index])

    def to(self, device: torch.device | str) -> ImageSet:
        """The same on another device."""
        return dataclasses.replace(self, x=self.x.to(device), y=self.y.to(device))


def info(name: str) -> DatasetInfo:
    """The entry of that name; UsageError, with the nearest, for an unknown one."""
    return DATASETS[known_name(name, DATASETS, "dataset")]


def default_root(home: Path) -> Path:
    """Where the data sets lie: `$ADVMIX_DATA`, else a folder in the store."""
    given = os.environ.get("ADVMIX_DATA", "").strip()
    return Path(given).expanduser().absolute() if given else home / "data"


def present(name: str, root: Path) -> bool:
    """Whether the data set can be read without a download."""
    return all((root / file).is_file() for file in info(name).files)


def load(name: str, split: str, root: Path, *, download: bool = True) -> ImageSet:
    """A split as uint8 tensors on the CPU, resized to what the models take.

    Reads what lies in `root`, which may be read-only; downloads what does not, with verification. Raises
    AdvmixError, with the files, the folder and what to do, where it can be neither read nor fetched.
    """
    entry = info(name)
    module, _, function = entry.source.partition(":")
    x, y = getattr(importlib.import_module(module), function)(split, root, download)
    if tuple(x.shape[1:]) != entry.shape or len(x) != len(y) or len(x) != entry.sizes[split]:
        raise AdvmixError(
            f"{name} in {root} holds {len(x)} images of shape {tuple(x.shape[1:])}, "
            f"not {entry.sizes[split]} of {entry.shape}",
            f"remove the folder and fetch it again: advmix data fetch {name}",
            code="damaged-data",
        )
    return ImageSet(entry, split, x, y)


def fingerprint(name: str, root: Path, *, download: bool = True) -> str:
    """SHA-256 of all pixels (as the models see them) and labels, training then test."""
    total = hashlib.sha256()
    for split in ("train", "test"):
        images = load(name, split, root, download=download)
        total.update(images.x.numpy().data)
        total.update(images.y.numpy().data)
    return total.hexdigest()


def stamp(name: str, root: Path) -> dict[str, Any]:
    """What the fingerprint may depend on and can be read off in no time: it is computed anew when this changes."""
    entry = info(name)
    if not entry.files:
        return {"pillow": importlib.metadata.version("pillow"), "numpy": importlib.metadata.version("numpy")}
    found: dict[str, Any] = {"torchvision": importlib.metadata.version("torchvision")}
    for file in entry.files:
        try:
            status = (root / file).stat()
        except OSError:
            return {}
        found[file] = [status.st_size, status.st_mtime_ns]
    return found
