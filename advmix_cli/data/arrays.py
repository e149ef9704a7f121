"""Sets of pictures in `.npz` files. Nothing is unpickled, and pixels pass in pieces, however many there are."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import math
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from advmix_cli import files
from advmix_cli.data import decoding, source
from advmix_cli.data.source import Damaged, shown
from advmix_cli.errors import DamagedError, UnsafeError, UsageError

_LAYOUTS = (
    ("x_train", "y_train", "x_test", "y_test"),  # Keras
    ("train_images", "train_labels", "test_images", "test_labels"),  # MedMNIST
    ("x", "y"),
    ("images", "labels"),
)
_NAMES = ("class_names", "classes")
_LARGEST = 1 << 42  # bytes of a file
_PIECE = 4 << 20  # bytes of pixels that pass at a time
_MOST_PIXELS = 1 << 26  # of one picture
_MOST_NAMES = 16 << 20  # bytes of all names of classes
_HEADER = 10_000  # bytes of an array's header, as numpy has it
_RATIO = 1040  # deflate makes nothing smaller than to a 1032nd
_NO_ZIP = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError, struct.error)


@dataclasses.dataclass(frozen=True)
class _Array:
    """What the header of an array says."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    fortran: bool  # whether its first index runs fastest


@dataclasses.dataclass(frozen=True)
class _Pictures:
    """An array of pictures, uint8: how many, (C,H,W), and where the channels stand."""

    name: str
    count: int
    shape: tuple[int, int, int]
    last: bool  # whether the channels are the last axis of the file


class Arrays(source.Source):
    """A source of the pictures in an `.npz` file."""

    def __init__(self, path: Path) -> None:
        """Reads the headers and labels. Raises what `arrays` says."""
        self._path = path
        self._stamp = source.stamp(path)
        with _archive(path) as archive:
            names = {info.filename.removesuffix(".npy") for info in archive.infolist()}
            layout = _layout(path, names)
            pictures = [_pictures(path, _header(archive, path, name)) for name in layout[::2]]
            labels = [
                _labels(archive, path, _header(archive, path, name), of)
                for name, of in zip(layout[1::2], pictures, strict=True)
            ]
            given = next((name for name in _NAMES if name in names), None)
            named = _classes(archive, path, _header(archive, path, given)) if given else None
        self._pictures = dict(zip(source.SPLITS, pictures * (3 - len(pictures)), strict=True))
        self.classes = _checked(labels, layout[1::2], named)
        unused = sorted(names - {*layout, given})
        notes = [f"left out: {source.listed(unused)}"] if unused else []
        self._rows: dict[str, np.ndarray] | None = None
        if len(layout) == 2:
            self._rows = _divided(labels[0], self.classes)
            self.labels = {split: labels[0][rows] for split, rows in self._rows.items()}
            notes.insert(0, source.divided_note(self.labels))
        else:
            self.labels = dict(zip(source.SPLITS, labels, strict=True))
        self.notes = tuple(notes)
        self.channels = max(of.shape[0] for of in pictures)
        sizes = Counter({of.shape[1:]: 0 for of in pictures})
        for of in pictures:
            sizes[of.shape[1:]] += of.count
        self.sizes, self.suggested, size = source.sizes_of(sizes)
        self.native = (self.channels, *size) if size else None

    def fill(self, split: str, pixels: np.ndarray, on_images: Callable[[int], None]) -> list[Damaged]:
        """As `source.Source` has it. Raises DamagedError for what is not whole; no single picture is damaged."""
        pictures = self._pictures[split]
        wanted = np.arange(pictures.count) if self._rows is None else self._rows[split]
        channels, height, width = pictures.shape
        step = max(1, _PIECE // math.prod(pictures.shape))
        done = 0
        with _archive(self._path) as archive, _member(archive, self._path, pictures.name) as (file, _):
            for start in range(0, pictures.count, step):
                count = min(step, pictures.count - start)
                block = np.frombuffer(_exactly(file, count * math.prod(pictures.shape)), np.uint8)
                if pictures.last:
                    block = block.reshape(count, height, width, channels).transpose(0, 3, 1, 2)
                else:
                    block = block.reshape(count, channels, height, width)
                end = int(np.searchsorted(wanted, start + count))
                _put(block[wanted[done:end] - start], pixels[done:end])
                on_images(end - done)
                done = end
            _ended(file)
        return []

    def stamp(self) -> str:
        """As `source.stamp` gives it, before the file was read."""
        return self._stamp


def arrays(path: Path) -> Arrays:
    """The pictures in an `.npz` file, uint8 and grey or RGB, of one of these pairs of arrays, and their labels.

    `x_train, y_train, x_test, y_test` (Keras), `train_images, train_labels, test_images, test_labels` (MedMNIST), or
    `x, y` or `images, labels`, which a seed divides. Labels are 0..K-1; `class_names` or `classes` may name them.
    Raises NotFoundError where there is nothing, UsageError for arrays that are no such set (the message says what is
    wrong), UnsafeError for pickled objects and DamagedError for a file that is not whole.
    """
    return Arrays(path)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The file as a zip, with what goes wrong in the block as DamagedError."""
    source.status_of(path)
    with files.opened(path, _LARGEST) as (file, _):
        try:
            with zipfile.ZipFile(file) as archive:
                names = [info.filename for info in archive.infolist()]
                if len(set(names)) < len(names):
                    raise DamagedError(f"{shown(str(path))} holds two arrays of one name", "make it again")
                yield archive
        except _NO_ZIP as error:
            raise _damaged(path, str(error) or "it ends too early") from error
        except OSError as error:
            if error.errno != errno.EINVAL:  # that is a place before the beginning of the file
                raise
            raise _damaged(path, "it names places that it does not have") from error


def _damaged(path: Path, reason: str) -> DamagedError:
    return DamagedError(f"{shown(str(path))} is not a whole .npz file: {shown(reason)[:100]}", "fetch or make it again")


def _layout(path: Path, names: set[str]) -> tuple[str, ...]:
    """The names of the pictures and labels, in turn."""
    for layout in _LAYOUTS:
        there = [name for name in layout if name in names]
        if there and len(there) < len(layout):
            missing = [name for name in layout if name not in names]
            raise UsageError(
                f"{shown(str(path))} has {', '.join(there)}, but no {', '.join(missing)}",
                "save them together: numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)",
            )
        if there:
            return layout
    found = f"but {source.listed(sorted(names))}" if names else "nor anything else"
    raise UsageError(
        f"{shown(str(path))} holds no pictures by a name that is known, {found}",
        f"call the arrays {'; or '.join(', '.join(layout) for layout in _LAYOUTS)}",
    )


@contextlib.contextmanager
def _member(archive: zipfile.ZipFile, path: Path, name: str) -> Iterator[tuple[IO[bytes], _Array]]:
    """An array, from its first value on, and what its header says, which agrees with the sizes in the archive."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        raise DamagedError(f"{name} in {shown(str(path))} is no array of numpy's", "save it with numpy.savez") from None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _damaged(path, f"{name} is compressed in a way that numpy does not use")
    with archive.open(info) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that an old Python wrote
        shape, fortran, dtype = _read_header(file, path, name)
        if dtype.hasobject:
            raise UnsafeError(
                f"{name} in {shown(str(path))} is an array of pickled objects, which would have to be executed",
                "save numbers as numbers and names as text: numpy.asarray(names, dtype=str)",
            )
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or file.tell() + size != info.file_size:
            raise _damaged(path, f"the header of {name} does not agree with its size")
        if info.file_size > info.compress_size * _RATIO + _HEADER:
            raise _damaged(path, f"{name} is said to be larger than its bytes can become")
        yield file, _Array(name, tuple(shape), dtype, fortran)


def _read_header(file: IO[bytes], path: Path, name: str) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(file, max_header_size=_HEADER)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(file, max_header_size=_HEADER)
    except Exception as error:  # numpy parses it as Python's literals, and raises what that raises
        raise _damaged(path, f"{name} has no header of an array") from error
    raise _damaged(path, f"{name} has a header of version {version[0]}.{version[1]}")


def _header(archive: zipfile.ZipFile, path: Path, name: str) -> _Array:
    with _member(archive, path, name) as (_, array):
        return array


def _exactly(file: IO[bytes], size: int) -> bytearray:
    content = bytearray(size)
    with memoryview(content) as view:
        done = 0
        while done < size:
            count = file.readinto(view[done:])  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            done += count
    return content


def _ended(file: IO[bytes]) -> None:
    """Read to the end of a member: there its checksum is compared."""
    if file.read(1):
        raise ValueError("an array is longer than its header says")


def _values(archive: zipfile.ZipFile, path: Path, array: _Array) -> np.ndarray:
    with _member(archive, path, array.name) as (file, _):
        values = np.frombuffer(_exactly(file, math.prod(array.shape) * array.dtype.itemsize), array.dtype)
        _ended(file)
    return values


def _pictures(path: Path, array: _Array) -> _Pictures:
    name, shape = f"{array.name} in {shown(str(path))}", array.shape
    if array.dtype != np.uint8:
        raise UsageError(
            f"{name} holds {array.dtype}, not uint8",
            "convert it, from 0..1 with (255 * x).round().astype('uint8'), from 0..255 with x.astype('uint8')",
        )
    if len(shape) == 3:
        count, channels, height, width, last = shape[0], 1, *shape[1:], False
    elif len(shape) == 4 and shape[1] in (1, 3) and shape[3] in (1, 3):
        raise UsageError(f"{name} has the shape {shape}: its channels may be the second or the last axis", "resize it")
    elif len(shape) == 4 and shape[3] in (1, 3):
        count, height, width, channels, last = *shape, True
    elif len(shape) == 4 and shape[1] in (1, 3):
        count, channels, height, width, last = *shape, False
    else:
        raise UsageError(f"{name} has the shape {shape}", "pictures are (N,H,W), (N,H,W,C) or (N,C,H,W), C 1 or 3")
    if not count or not height or not width:
        raise UsageError(f"{name} holds no pictures: its shape is {shape}", "save it with pictures")
    if height * width > _MOST_PIXELS:
        raise UsageError(f"{name} holds pictures of {width}x{height}, which is too large", "resize them")
    if array.fortran:
        raise UsageError(f"{name} is in Fortran's order", "save numpy.ascontiguousarray(x)")
    return _Pictures(array.name, count, (channels, height, width), last)


def _labels(archive: zipfile.ZipFile, path: Path, array: _Array, pictures: _Pictures) -> np.ndarray:
    """The labels of those pictures, int64 (N,)."""
    name, shape = f"{array.name} in {shown(str(path))}", array.shape
    if len(shape) == 2 and shape[1] > 1 and shape[0] == pictures.count:
        raise UsageError(f"{name} has the shape {shape}, as one-hot labels have", "save y.argmax(axis=1)")
    if array.dtype.kind not in "iu":
        raise UsageError(f"{name} holds {array.dtype}, not whole numbers", "save y.astype('int64')")
    if shape not in ((pictures.count,), (pictures.count, 1)):
        raise UsageError(
            f"{name} has the shape {shape}, but {pictures.name} holds {pictures.count} pictures",
            "each picture needs one label: (N,) or (N,1)",
        )
    values = _values(archive, path, array)
    least, most = values.min(), values.max()
    if least < 0 or most > 2**62:
        raise UsageError(f"{name} holds the label {least if least < 0 else most}", "labels are 0, 1, ... K-1")
    return values.astype(np.int64)


def _classes(archive: zipfile.ZipFile, path: Path, array: _Array) -> tuple[str, ...]:
    name = f"{array.name} in {shown(str(path))}"
    if array.dtype.kind != "U" or len(array.shape) != 1:
        raise UsageError(f"{name} is no list of names", "save numpy.asarray(names, dtype=str)")
    if math.prod(array.shape) * array.dtype.itemsize > _MOST_NAMES:
        raise UsageError(f"the names of {name} are too long", "shorten them")
    return tuple(str(value) for value in _values(archive, path, array))


def _checked(labels: list[np.ndarray], names: tuple[str, ...], named: tuple[str, ...] | None) -> tuple[str, ...]:
    """The classes that the labels, of arrays called `names`, come to. Raises UsageError for what does not fit."""
    present = [np.unique(values) for values in labels]
    everywhere = np.unique(np.concatenate(present))
    top = int(everywhere[-1])
    if named is not None and top >= len(named):
        raise UsageError(f"there is a label {top}, but only {len(named)} names of classes", "name each class once")
    count = top + 1 if named is None else len(named)
    if len(everywhere) < count:
        gap = next(i for i in range(count) if i >= len(everywhere) or everywhere[i] != i)
        raise UsageError(f"no picture has the label {gap}, of 0 to {count - 1}", "number the classes without gaps")
    classes = named or tuple(str(label) for label in range(count))
    source.check_classes(classes)
    if len(present) == 2:
        train, test = ([classes[label] for label in values] for values in present)
        source.check_same(train, test, names)
    return classes


def _divided(labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The rows of each split, in their order. A picture's name is its row."""
    test = np.zeros(len(labels), dtype=bool)
    order = np.argsort(labels, kind="stable")
    for name, rows in zip(
        classes, np.split(order, np.searchsorted(labels[order], range(1, len(classes)))), strict=True
    ):
        test[rows] = source.divided(name, [b"%d" % row for row in rows])
    return {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}


def _put(block: np.ndarray, pixels: np.ndarray) -> None:
    """Write pictures, uint8 (N,C,H,W), into as many rows of `pixels`, resized where they have to be."""
    _, channels, height, width = pixels.shape
    if block.shape[2:] == (height, width) and block.shape[1] <= channels:
        pixels[:] = block
        return
    for row, each in enumerate(block):
        image = Image.fromarray(each[0] if len(each) == 1 else np.ascontiguousarray(each.transpose(1, 2, 0)))
        pixels[row] = decoding.picture(image, channels, (height, width))
