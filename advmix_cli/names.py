"""How data sets and networks are called: in full, in names of files, and in keys. Needs nothing."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from advmix_cli import files
from advmix_cli.errors import UsageError
from advmix_cli.settings import require

SOURCES = ("folder", "npz", "torchvision")
"""Prefixes of the sets that are not known by name."""

_SIZED = re.compile(r"(.+)@([0-9]{1,4})", re.DOTALL)
_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MOST_TEXT = 4000
_SMALLEST, _LARGEST = 8, 1024


def parted(name: str) -> tuple[str, int | None]:
    """A name without its size, and the size: `mnist@28` is mnist at 28 pixels."""
    found = _SIZED.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, None)


def kind_of(name: str) -> str:
    """`folder`, `npz` or `torchvision`; `named` for what is known by name."""
    prefix, colon, rest = name.partition(":")
    return prefix if colon and rest and prefix in SOURCES else "named"


def full_name(name: str, image_size: int | None = None) -> str:
    """What a set is called in records: with the whole path, and with its size where that was asked for.

    Raises UsageError where two sizes are given, or one that no network takes.
    """
    base, size = parted(name)
    if size is not None and image_size not in (None, size):
        raise UsageError(f"{name} has a size, and --image-size {image_size} is another", "give one of them")
    size = size if image_size is None else image_size
    require(
        size is None or _SMALLEST <= size <= _LARGEST,
        f"--image-size must be from {_SMALLEST} to {_LARGEST}, not {size}",
        "try 32 or 64",
    )
    require(len(base) < _MOST_TEXT, "the name of the data set is too long", "give a shorter path")
    kind = kind_of(base)
    if kind in ("folder", "npz"):
        path = files.home(Path(base.partition(":")[2]))
        base = f"{kind}:{path.absolute()}"
    require(not _STEERING.search(base), f"{base!r} is no name of a data set", "name a path that is plain UTF-8 text")
    return base if size is None else f"{base}@{size}"


def short_name(name: str) -> str:
    """How a set is called in names of files: of a path its last part."""
    base, size = parted(name)
    if kind_of(base) != "named":
        path = base.partition(":")[2].rstrip("/")
        base = path.rpartition("/")[2].removesuffix(".npz").lower()
    base = re.sub(r"[^A-Za-z0-9.]+", "-", base).strip("-.")[:60] or "images"
    return base if size is None else f"{base}-{size}"


def portable(name: str) -> str:
    """What of a name goes into keys: of a path only what sort of set it is, for its images are in the key."""
    base, size = parted(name)
    kind = kind_of(base)
    base = kind if kind in ("folder", "npz") else base
    return base if size is None else f"{base}@{size}"


def is_full_name(value: object, known: Collection[str]) -> bool:
    """Whether it is the full name of a data set, one of `known` or another's: as a record may have it."""
    if not isinstance(value, str) or len(value) > _MOST_TEXT + 16 or _STEERING.search(value):
        return False
    base, size = parted(value)
    kind = kind_of(base)
    if size is not None and not _SMALLEST <= size <= _LARGEST:
        return False
    if kind == "named":
        return base in known
    return kind == "torchvision" or Path(base.partition(":")[2]).is_absolute()


def short_arch(arch: str) -> str:
    """How a network is called in names of files and in keys: a file's by its factory, another's by its own name."""
    return arch.rpartition(":")[2].rpartition("/")[2]
