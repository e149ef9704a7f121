"""What a set of pictures of the user's own is, and what all kinds of sources share. Needs no torch."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import os
import stat as modes
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from advmix_cli import files
from advmix_cli.errors import NotFoundError, UsageError

SPLITS = ("train", "test")
SIZES = (32, 48, 64, 96, 128, 160, 224)
"""The sizes that are suggested for pictures of many sizes, in pixels."""

_SEED = b"advmix 1"  # another one would divide every set anew
_CONTROLS = ("Cc", "Cs", "Zl", "Zp")


@dataclasses.dataclass(frozen=True)
class Damaged:
    """A picture that cannot be read: its row in its split, its path as it can be shown, and why, in a few words."""

    row: int
    path: str
    reason: str


class Source(Protocol):
    """Pictures of named classes in two splits, "train" and "test". Their pixels are read when they are wanted."""

    classes: tuple[str, ...]
    """The names of the classes, in the order of their labels."""
    labels: dict[str, np.ndarray]
    """The labels of each split, int64 (N,) in 0..len(classes)-1."""
    native: tuple[int, int, int] | None
    """(C,H,W) that all pictures have; None where their sizes differ."""
    channels: int
    """1 where every picture is grey, else 3."""
    notes: tuple[str, ...]
    """What to say to the user, a line each: how the set was divided, what was left out."""
    sizes: str
    """The sizes of the pictures in words, width x height in pixels: "28x28", "from 40x60 to 500x375"."""
    suggested: int
    """An image size that suits the pictures, one of `SIZES`."""

    def fill(self, split: str, pixels: np.ndarray, on_images: Callable[[int], None]) -> list[Damaged]:
        """Write a split's pictures into `pixels`, uint8 (N,C,H,W), each resized and cropped to H and W.

        `on_images` gets the number of pictures that came in since its last call. The rows of pictures that cannot be
        read stay as they are, and come back in order. Raises AdvmixError.
        """

    def stamp(self) -> str:
        """SHA-256 (hex) of what can be read off without opening files, as it was when the source was made."""


def stamp(path: Path) -> str:
    """The stamp of a folder of pictures or of an `.npz` file, in no time: names, sizes and times, no file is opened.

    Files and folders whose names begin with a dot do not count. Raises NotFoundError, UsageError for links in a
    circle, and AdvmixError for what may not be read.
    """
    total, status = hashlib.sha256(), status_of(path)
    if not modes.S_ISDIR(status.st_mode):
        total.update(b"%d %d" % (status.st_size, status.st_mtime_ns))
        return total.hexdigest()
    for folder, entries in walk(path):
        lines = [f"{folder}/"]
        for entry in entries:
            try:
                status = entry.stat()
                lines.append(f"{entry.name}\0{status.st_size}\0{status.st_mtime_ns}")
            except OSError:  # a link to nothing
                lines.append(f"{entry.name}\0-")
        total.update(os.fsencode("\0\0".join([*lines, ""])))
    return total.hexdigest()


def status_of(path: Path) -> os.stat_result:
    """What the system says of a path. Raises NotFoundError, and AdvmixError for what it does not let see."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null character
        raise NotFoundError(f"there is no {shown(str(path))}", "check the path of the data set") from None
    except OSError as error:
        raise files.cannot_read(path, error) from error


def walk(root: Path) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Each folder at and below `root`, as its path from there ("" or "a/b"), and the entries that are no folders.

    Folders come by name, the entries of each by name; hidden ones do not come. Links to folders are followed. Raises
    UsageError for links in a circle, and AdvmixError for a folder that may not be read.
    """
    status = status_of(root)
    stack: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ((status.st_dev, status.st_ino),))]
    while stack:
        relative, above = stack.pop()
        rest, below = [], []
        for entry in visible(root / relative if relative else root):
            if is_folder(entry):
                status = entry.stat()
                here = (status.st_dev, status.st_ino)
                if here in above:
                    raise UsageError(
                        f"the folders go in a circle: {shown(entry.path)} links to a folder that it lies in",
                        "remove that link",
                    )
                below.append((f"{relative}/{entry.name}" if relative else entry.name, (*above, here)))
            else:
                rest.append(entry)
        yield relative, rest
        stack += reversed(below)


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder by name, without those whose names begin with a dot. Raises AdvmixError."""
    return sorted((e for e in files.entries(folder) if not e.name.startswith(".")), key=lambda entry: entry.name)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one. A link that leads to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def divided(label: str, names: Sequence[bytes]) -> np.ndarray:
    """Which of a class's pictures are for the test, bool (N,): one in five, by a hash of their names and a fixed seed.

    Each picture is drawn by itself, so that others that come or go do not move it; but at least one goes to each
    split. Raises UsageError for a class, `label`, with one picture only.
    """
    if len(names) < 2:
        raise UsageError(
            f"the class {label!r} has one picture only, which cannot be divided into training and test",
            "add pictures to it, or remove it",
        )
    hashes = [hashlib.sha256(_SEED + b"\0" + name).digest() for name in names]
    drawn = np.array([int.from_bytes(value[:8]) / 2**64 for value in hashes])
    chosen = drawn < 0.2
    chosen[drawn.argmin()], chosen[drawn.argmax()] = True, False
    return np.asarray(chosen)


def divided_note(labels: dict[str, np.ndarray]) -> str:
    """What to say of a set that came without splits."""
    return f"no splits: divided by a seed, {len(labels['train'])} to train, {len(labels['test'])} to test"


def check_classes(names: Sequence[str]) -> None:
    """Raise UsageError unless these can be the names of the classes: two or more, none twice, printable text."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            escaped = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            raise UsageError(f"the name of the class {escaped} is not UTF-8", "rename it") from None
        if not name or any(unicodedata.category(character) in _CONTROLS for character in name):
            raise UsageError(f"a class has a name of no or of control characters: {name!a}", "rename it")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"two classes are called {twice[0]!r}", "rename one of them")
    if len(names) == 1:
        raise UsageError(f"there is one class only, {names[0]!r}", "a classifier needs at least two")


def check_same(train: Sequence[str], test: Sequence[str], where: Sequence[str] = SPLITS) -> None:
    """Raise UsageError for a class that is in one split and not in the other, with the nearest name if it is close."""
    for here, there, own, other in ((train, test, *where), (test, train, *reversed(where))):
        alone, unmatched = sorted(set(here) - set(there)), sorted(set(there) - set(here))
        if alone:
            close = difflib.get_close_matches(alone[0].lower(), [name.lower() for name in unmatched], n=1)
            meant = [name for name in unmatched if close and name.lower() == close[0]]
            more = f", and {len(alone) - 1} more" if len(alone) > 1 else ""
            raise UsageError(
                f"the class {alone[0]!r}{more} is in {own} but not in {other}",
                f"is it {meant[0]!r} there? Give it one name" if meant else "every class needs pictures in both",
            )


def sizes_of(sizes: Counter[tuple[int, int]]) -> tuple[str, int, tuple[int, int] | None]:
    """The `sizes` and the `suggested` of a source, and the one (H,W) of all, from how often each (H,W) occurs."""
    if not sizes:
        return "unknown", SIZES[0], None
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    small, large = (f"{width}x{height}" for height, width in (ordered[0], ordered[-1]))
    sides = Counter[int]()
    for size, count in sizes.items():
        sides[min(size)] += count
    middle, seen = (sum(sizes.values()) + 1) // 2, 0
    for side in sorted(sides):
        seen += sides[side]
        if seen >= middle:
            break
    suggested = SIZES[max(0, bisect_right(SIZES, side) - 1)]
    if len(sizes) == 1:
        return small, suggested, ordered[0]
    return f"from {small} to {large}", suggested, None


def shown(text: str) -> str:
    """Text as it can be shown in one line anywhere: what cannot be printed is written as an escape."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, for a note."""
    return ", ".join(shown(name) for name in names[:most]) + (", ..." if len(names) > most else "")
