"""The data sets: what they are (needs no torch), their images, and the fingerprint of those images.

A new data set is one entry in `DATASETS` and one function that gives its pixels.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import files
from advmix_cli.errors import AdvmixError, DamagedError, known_name

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
    files: dict[str, str] = dataclasses.field(default_factory=dict)  # path below the data folder -> SHA-256
    version: int = 1  # grows when the same files or seed come to other pixels


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
            {
                "MNIST/raw/train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "MNIST/raw/train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "MNIST/raw/t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "MNIST/raw/t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            },
        ),
        DatasetInfo(
            "cifar10",
            "colour photographs of ten kinds of things",
            (3, 32, 32),
            {"train": 50_000, "test": 10_000},
            ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
            "preactresnet18",
            "advmix_cli.data.vision:cifar10",
            {
                f"cifar-10-batches-py/{batch}": known
                for batch, known in (
                    ("data_batch_1", "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd"),
                    ("data_batch_2", "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8"),
                    ("data_batch_3", "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9"),
                    ("data_batch_4", "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b"),
                    ("data_batch_5", "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154"),
                    ("test_batch", "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831"),
                )
            },
        ),
    )
}  # fmt: skip


def identity(name: str, fingerprint: str) -> dict[str, Any]:
    """What a data set is known by in keys: its pixels and labels, and the version of what made them."""
    return {"fingerprint": fingerprint, "version": info(name).version}


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
    return files.home(Path(given)).absolute() if given else home / "data"


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
    """SHA-256 of all pixels (as the models see them) and labels, training then test.

    Raises DamagedError when a file is not the one that is known: torchvision checks MNIST's only when it fetches them.
    """
    total = hashlib.sha256()
    for split in ("train", "test"):
        images = load(name, split, root, download=download)
        for file, known in info(name).files.items():
            if split == "train" and hashlib.sha256((root / file).read_bytes()).hexdigest() != known:
                raise DamagedError(
                    f"{root / file} is not the file that {name} is known by",
                    f"remove it and fetch it again: advmix data fetch {name}",
                )
        total.update(images.x.numpy().data)
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
