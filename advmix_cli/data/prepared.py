"""Sets that are not known by name, decoded once into a file of their own: all pixels, then all labels."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from advmix_cli import files
from advmix_cli.data.info import DatasetInfo, Shape, usual_arch
from advmix_cli.errors import DamagedError, UsageError
from advmix_cli.names import kind_of, parted
from advmix_cli.settings import canonical_json

if TYPE_CHECKING:
    from advmix_cli.data import ImageSet
    from advmix_cli.data.source import Damaged, Source

_IN_MEMORY = 256 << 20
"""Bytes of pixels of a split that are held in memory; more stay in their file."""

_PIECE = 8 << 20
_MEASURED = 10_000
SPLITS = ("train", "test")

Record = dict[str, Any]


def source(name: str, root: Path, *, download: bool = True) -> Source:
    """What a name of another set means. Raises AdvmixError in its many forms where it is none."""
    base, _ = parted(name)
    kind, rest = kind_of(base), base.partition(":")[2]
    if kind == "folder":
        from advmix_cli.data.folder import folder

        return folder(Path(rest))
    if kind == "npz":
        from advmix_cli.data.arrays import arrays

        return arrays(Path(rest))
    from advmix_cli.data.others import torchvision_set

    return torchvision_set(rest, root, download)


def stamp(name: str, root: Path) -> str:
    """A digest of what can be read off a source in little time: it is prepared anew when this changes."""
    base, _ = parted(name)
    kind, rest = kind_of(base), base.partition(":")[2]
    if kind == "torchvision":
        from advmix_cli.data import others

        return others.stamp(rest, root)
    from advmix_cli.data import source as sources

    return sources.stamp(Path(rest))


def fitting_shape(name: str, found: Source) -> Shape:
    """(C,H,W) of the set of that name: its size, else that of the source. Raises UsageError where it has none."""
    size = parted(name)[1]
    if size is not None:
        return found.channels, size, size
    if found.native is None:
        raise UsageError(
            f"the pictures of {name} are of several sizes, {found.sizes}", f"say one: --image-size {found.suggested}"
        )
    return found.native


def prepare(
    found: Source, path: Path, shape: Shape, *, skip_damaged: bool, on_images: Callable[[int], None]
) -> tuple[Record, list[Damaged]]:
    """Decode all of a source into `path`: what there is to know of it, and what was left out.

    Raises DamagedError for a picture that cannot be read, unless `skip_damaged`, and OSError.
    """
    labels = {split: found.labels[split] for split in SPLITS}
    counts = {split: len(labels[split]) for split in SPLITS}
    each = shape[0] * shape[1] * shape[2]
    left_out: list[Damaged] = []
    with files.replacing(path) as file:
        total = sum(counts.values()) * (each + 8)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, total)  # a full disk is an error now, and no signal later
        else:
            file.truncate(total)
        place = path.with_name(files.TEMPORARY + path.name)
        offset = 0
        for split in SPLITS:
            pixels = np.memmap(place, np.uint8, "r+", offset, (counts[split], *shape))
            damaged = found.fill(split, pixels, on_images)
            if damaged and not skip_damaged:
                raise _cannot_be_read(damaged)
            if damaged:
                left_out += damaged
                labels[split] = _without(pixels, labels[split], [one.row for one in damaged])
            pixels.flush()
            counts[split] = len(labels[split])
            offset += counts[split] * each
            del pixels
        _check_classes(found.classes, labels, left_out)
        for split in SPLITS:
            data = labels[split].astype("<i8").tobytes()
            os.pwrite(file.fileno(), data, offset)
            offset += len(data)
        file.truncate(offset)
        record = {"classes": list(found.classes), "sizes": counts, "shape": list(shape)}
        record |= {"fingerprint": fingerprint(place, record), **_spread(place, counts["train"], shape)}
    return record, left_out


def _cannot_be_read(damaged: list[Damaged]) -> DamagedError:
    first, more = damaged[0], len(damaged) - 1
    return DamagedError(
        f"{first.path} cannot be read: {first.reason}" + (f"; and {more} more" if more else ""),
        "mend or remove it, or leave out what is damaged: --skip-damaged",
        code="damaged-picture",
    )


def _without(pixels: np.ndarray, labels: np.ndarray, rows: list[int]) -> np.ndarray:
    """The labels without these rows, whose pixels are closed up."""
    kept = np.setdiff1d(np.arange(len(labels)), rows)
    for place, row in enumerate(kept.tolist()):
        if place != row:
            pixels[place] = pixels[row]
    return labels[kept]


def _check_classes(classes: tuple[str, ...], labels: dict[str, np.ndarray], left_out: list[Damaged]) -> None:
    for split in SPLITS:
        missing = sorted(set(range(len(classes))) - set(labels[split].tolist()))
        if missing and left_out:
            raise UsageError(
                f"without what is damaged no picture of {classes[missing[0]]} is left in {split}", "mend some of them"
            )
        if missing:
            raise UsageError(
                f"the class {classes[missing[0]]!r} has no pictures in {split}",
                "each class needs pictures to learn from and to test on",
            )


def fingerprint(path: Path, record: Record) -> str:
    """SHA-256 of the classes, and of all pixels and labels in the file."""
    total = hashlib.sha256(canonical_json([record["classes"], record["sizes"], record["shape"]]).encode())
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            total.update(piece)
    return total.hexdigest()


def _spread(path: Path, n: int, shape: Shape) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel in [0,1], of at most some thousand training images."""
    pixels = np.memmap(path, np.uint8, "r", 0, (n, *shape))
    rows = sorted(random.Random(n).sample(range(n), min(n, _MEASURED)))  # every kth would meet a period of the set's
    sums, squares, count = np.zeros(shape[0]), np.zeros(shape[0]), 0
    for begin in range(0, len(rows), 256):
        some = pixels[rows[begin : begin + 256]].astype(np.float32) / 255
        sums += some.sum((0, 2, 3), dtype=np.float64)
        squares += np.square(some).sum((0, 2, 3), dtype=np.float64)
        count += some[:, 0].size
    mean = sums / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0)).clip(1e-4)
    return {"mean": [round(float(each), 4) for each in mean], "std": [round(float(each), 4) for each in std]}


def info_of(record: Record) -> DatasetInfo:
    """What a record of a prepared set says."""
    shape = (record["shape"][0], record["shape"][1], record["shape"][2])
    return DatasetInfo(
        name=record["name"],
        title=record["title"],
        shape=shape,
        sizes=dict(record["sizes"]),
        classes=tuple(record["classes"]),
        arch=usual_arch(shape),
        native=shape,
        mean=tuple(record["mean"]),
        std=tuple(record["std"]),
    )


def whole(path: Path, record: Record) -> bool:
    """Whether the file is as long as its record says."""
    each = record["shape"][0] * record["shape"][1] * record["shape"][2] + 8
    try:
        return bool(path.stat().st_size == sum(record["sizes"].values()) * each)
    except OSError:
        return False


def load(path: Path, info: DatasetInfo, split: str) -> ImageSet:
    """A split of a prepared set, on the CPU; of a large one the pixels stay in the file.

    A set that lies sorted by class is taken in another order, always the same.
    """
    import torch

    from advmix_cli.data import ImageSet
    from advmix_cli.data.pixels import FilePixels

    each = info.shape[0] * info.shape[1] * info.shape[2]
    n, total = info.sizes[split], sum(info.sizes.values())
    first = 0 if split == "train" else info.sizes["train"]
    pixels = FilePixels(path, first * each, (n, *info.shape))
    with open(path, "rb") as file:
        file.seek(total * each + first * 8)
        labels = np.frombuffer(file.read(n * 8), "<i8")
    if len(labels) != n or labels.min() < 0 or labels.max() >= len(info.classes):
        raise DamagedError(f"{path} is damaged: its labels are not what was written", "remove it")
    y = torch.from_numpy(labels.astype(np.int64))
    if bool((y.diff() >= 0).all()):  # class by class: the first images of such a set would be of one class alone
        order = list(range(n))
        random.Random(f"{split} {n}").shuffle(order)
        pixels, y = pixels.of(torch.tensor(order)), y[order]
    return ImageSet(info, split, pixels if pixels.nbytes > _IN_MEMORY else pixels[:], y)
