"""A folder of pictures, one folder a class: with splits above the classes, or without, and then divided by a seed."""

from __future__ import annotations

import dataclasses
import os
import stat as modes
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from advmix_cli.data import decoding, source
from advmix_cli.data.decoding import Unreadable
from advmix_cli.data.source import Damaged, shown
from advmix_cli.errors import DamagedError, UsageError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
"""What the names of pictures end with, in small or capital letters."""
TESTS = ("test", "val", "valid", "validation")
"""What the folder of the test's pictures may be called; the first that is there is taken."""

_ALMOST = ("train", "training", "trainset", "testing", "testset", *TESTS)
_LAYOUT = "one folder a class, with its pictures: train/cat/1.png, train/dog/1.png, test/cat/1.png, test/dog/1.png"


@dataclasses.dataclass
class _Found:
    """What lies below the class folders of one folder, in the order of torchvision's ImageFolder."""

    pictures: dict[str, list[str]]  # class -> paths below the folder of the whole set
    others: list[str]  # files that are no pictures, such paths
    astray: list[str]  # pictures that lie in no class


class Folder(source.Source):
    """A source of the picture files below a folder."""

    def __init__(self, path: Path) -> None:
        """Lists the files and reads the headers of the pictures. Raises what `folder` says."""
        self._path = path
        self._stamp = source.stamp(path)
        above = {entry.name for entry in source.visible(path) if source.is_folder(entry)}
        notes = []
        if "train" in above:
            tests = [name for name in TESTS if name in above]
            if not tests:
                raise UsageError(
                    f"{shown(str(path))} has a folder train, but nothing to test on",
                    f"put pictures of the same classes into a folder called {', '.join(TESTS[:-1])} or {TESTS[-1]}",
                )
            train, test = _find(path, "train"), _find(path, tests[0])
            _check(train, path / "train")
            if test.pictures:
                source.check_same(list(train.pictures), list(test.pictures), ("train", tests[0]))
            _check(test, path / tests[0])
            unused = sorted(above - {"train", tests[0]})
            notes += [f"tested on {tests[0]}"] if tests[0] != "test" else []
            notes += [f"left out: {source.listed(unused)}"] if unused else []
            files = {"train": train.pictures, "test": test.pictures}
            others, astray = train.others + test.others, train.astray + test.astray
        else:
            almost = [name for name in sorted(above) if name.lower() in _ALMOST]
            if almost:
                raise UsageError(
                    f"{shown(str(path))} has a folder {almost[0]}, but none called train",
                    "call them train and test, or name the folder that the class folders lie in",
                )
            found = _find(path, "")
            _check(found, path)
            files = _divided(found.pictures)
            others, astray = found.others, found.astray
        self.classes = tuple(files["train"])
        self._files = {split: [p for name in self.classes for p in files[split][name]] for split in source.SPLITS}
        self.labels = {
            split: np.repeat(np.arange(len(self.classes)), [len(files[split][name]) for name in self.classes])
            for split in source.SPLITS
        }
        if "train" not in above:
            notes.append(source.divided_note(self.labels))
        notes += _left_out(others, "no picture", "no pictures") if others else []
        notes += _left_out(astray, "a picture in no class folder", "pictures in no class folder") if astray else []
        self.notes = tuple(notes)
        self.channels, sizes = self._inspected()
        self.sizes, self.suggested, size = source.sizes_of(sizes)
        self.native = (self.channels, *size) if size else None

    def _inspected(self) -> tuple[int, Counter[tuple[int, int]]]:
        """The channels of the pictures, and how many have each (H,W); those that cannot be read do not count."""
        grey, sizes, first = True, Counter[tuple[int, int]](), ""
        for path in (path for split in source.SPLITS for path in self._paths(split)):
            try:
                is_grey, height, width = decoding.inspect(path)
            except Unreadable as error:
                first = first or f"{shown(path)}: {error.reason}"
                continue
            grey = grey and is_grey
            sizes[height, width] += 1
        if not sizes:
            raise DamagedError(
                f"none of the pictures in {shown(str(self._path))} can be read; {first}", "fetch or make them again"
            )
        return (1 if grey else 3), sizes

    def _paths(self, split: str) -> Iterator[str]:
        """The pictures of a split, in the order of its labels."""
        root = os.fspath(self._path)
        return (os.path.join(root, path) for path in self._files[split])

    def fill(self, split: str, pixels: np.ndarray, on_images: Callable[[int], None]) -> list[Damaged]:
        """As `source.Source` has it; several processes decode."""
        return decoding.decode(list(self._paths(split)), pixels, decoding.processes(), on_images)

    def stamp(self) -> str:
        """As `source.stamp` gives it, before the files were listed."""
        return self._stamp


def folder(path: Path) -> Folder:
    """The pictures in `path`: below `train` and one of `TESTS`, or in class folders that a seed divides.

    Classes are folders, sorted by name; their pictures lie in them at any depth. Files and folders whose names begin
    with a dot are passed over. Raises NotFoundError where there is nothing, UsageError for what cannot be learned
    from (the message names it), DamagedError where no picture can be read, and AdvmixError for what the system does
    not let read.
    """
    if not modes.S_ISDIR(source.status_of(path).st_mode):
        raise UsageError(f"{shown(str(path))} is a file, not a folder of pictures", _LAYOUT)
    return Folder(path)


def _find(path: Path, split: str) -> _Found:
    """The files below `path / split`; their paths begin below `path`."""
    found = _Found({}, [], [])
    nested: dict[str, list[tuple[str, str]]] = {}  # class -> folder and name
    for below, entries in source.walk(path / split if split else path):
        name = below.split("/", 1)[0]
        if below and name not in nested:
            nested[name] = []
        prefix = "/".join(part for part in (split, below) if part)
        for entry in entries:
            whole = f"{prefix}/{entry.name}" if prefix else entry.name
            if not _is_picture(entry):
                found.others.append(whole)
            elif below:
                nested[name].append((prefix, entry.name))
            else:
                found.astray.append(whole)
    for name in sorted(nested):
        found.pictures[name] = [f"{place}/{file}" for place, file in sorted(nested[name])]
    return found


def _is_picture(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link to one or to nothing, with the name of a picture."""
    if not entry.name.lower().endswith(EXTENSIONS):
        return False
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
    except OSError:
        return True


def _check(found: _Found, where: Path) -> None:
    """Raise UsageError unless there are classes, with names, and with pictures each."""
    if not found.pictures:
        astray = f", only pictures such as {shown(found.astray[0])}" if found.astray else ""
        raise UsageError(f"there are no class folders in {shown(str(where))}{astray}", _LAYOUT)
    source.check_classes(list(found.pictures))
    empty = [name for name, files in found.pictures.items() if not files]
    if empty:
        more = f", and {len(empty) - 1} other classes have none either" if len(empty) > 1 else ""
        raise UsageError(
            f"the class {empty[0]!r} has no pictures in {shown(str(where))}{more}",
            f"put some into it, or remove the folder; pictures end with {', '.join(EXTENSIONS)}",
        )


def _divided(pictures: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """The pictures of each class for each split."""
    divided: dict[str, dict[str, list[str]]] = {split: {} for split in source.SPLITS}
    for name, paths in pictures.items():
        chosen = source.divided(name, [os.fsencode(path) for path in paths])
        for split, wanted in zip(source.SPLITS, (False, True), strict=True):
            divided[split][name] = [path for path, taken in zip(paths, chosen, strict=True) if taken == wanted]
    return divided


def _left_out(paths: list[str], one: str, many: str) -> list[str]:
    if len(paths) == 1:
        return [f"1 file that is {one} is left out: {shown(paths[0])}"]
    return [f"{len(paths)} files that are {many} are left out: {source.listed(paths)}"]
