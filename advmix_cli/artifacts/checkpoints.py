"""Checkpoints: safetensors files.

The tensors are the chosen ("best") weights under their plain names and, where they differ, the last epoch's under
`last/`; where weights were averaged, the last epoch's average ("ema") under `ema/`. One metadata key, `advmix`, holds
the sealed record, in it the history of the training.
"""

from __future__ import annotations

import dataclasses
import math
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from advmix_cli import files
from advmix_cli.artifacts.digests import Part, Tensors, digest_of, tensors_digest
from advmix_cli.artifacts.records import DAMAGED_HINT, LARGEST, METADATA_KEY, Record, check, parsed, sealed, unseal
from advmix_cli.errors import DamagedError, UnsafeError, UsageError

_FOLDERS = {"last": "last/", "ema": "ema/"}
"""Under which names weights lie that are not the best."""

_SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a file is seen by its times, however coarse they are."""

_VERIFIED: set[tuple[int, ...]] = set()
"""Files whose digests this process has found right: an experiment asks for each many times."""

_PIECE = 1 << 20
_MOST_DIMENSIONS = 64
_TYPES = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2), "I64": ("int64", 8),
    "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1), "U8": ("uint8", 1), "BOOL": ("bool", 1),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A tensor as the header declares it; it lies from `begin` to `end` in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def checkpoint_bytes(best: Tensors, last: Tensors, record: Record, ema: Tensors | None = None) -> bytes:
    """A safetensors file of `best` and, where they differ, `last` and `ema`; the record gains `digests`.

    Deterministic.
    """
    from safetensors.torch import save

    given = {"best": best, "last": last, **({} if ema is None else {"ema": ema})}
    digests = {which: tensors_digest(weights) for which, weights in given.items()}
    tensors = {name: t.detach().cpu().contiguous() for name, t in best.items()}
    for which, folder in _FOLDERS.items():
        if which in given and digests[which] != digests["best"]:
            tensors |= {folder + name: t.detach().cpu().contiguous() for name, t in given[which].items()}
    return save(tensors, {METADATA_KEY: sealed(record | {"digests": digests})})


def weights_bytes(weights: Tensors) -> bytes:
    """A safetensors file of weights alone, without a record. Deterministic."""
    from safetensors.torch import save

    return save({name: t.detach().cpu().contiguous() for name, t in weights.items()})


def checkpoint_record(path: Path, *, whole: bool = True) -> Record:
    """The record of a checkpoint, after its digests were verified (`whole`; else the record's alone). Needs no torch.

    Raises NotFoundError, DamagedError (truncated, a flipped bit, an unknown schema, a wrong record), or UsageError for
    a safetensors file of others, which has no record.
    """
    with files.opened(path) as (file, size):
        metadata, entries = _header(file, size, path)
        if METADATA_KEY not in metadata:
            raise UsageError(
                f"{path} was not made by advmix: it does not say which architecture it belongs to",
                f"take it in with: advmix import {path} --dataset DATASET --arch ARCH",
            )
        record = check(unseal(metadata[METADATA_KEY], path), "checkpoint", path)
        state = _state(file)
        if not whole or state in _VERIFIED:
            return record
        parts: dict[str, list[Part]] = {"best": []}
        for entry in entries:
            parts.setdefault(_of(entry.name), []).append(_part(file, entry))
        found = {which: digest_of(each) for which, each in parts.items()}
        found = {which: found.get(which, found["best"]) for which in {**parts, **record["digests"]}}
    if found != record["digests"]:
        raise DamagedError(f"{path} is damaged: its weights are not what was written", DAMAGED_HINT)
    if state is not None:
        _VERIFIED.add(state)
    return record


def _state(file: BinaryIO) -> tuple[int, ...] | None:
    """What changes when a file does; None of one so new that its times may not."""
    stat = os.fstat(file.fileno())
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < _SETTLED:
        return None
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def is_ours(path: Path) -> bool:
    """Whether a safetensors file carries a record of this project. Raises as `checkpoint_record` does."""
    with files.opened(path) as (file, size):
        return METADATA_KEY in _header(file, size, path)[0]


def checkpoint_weights(path: Path, which: str) -> Tensors:
    """The weights of a checkpoint that are meant, on the CPU. Call `checkpoint_record` first: it verifies."""
    tensors, folder = safetensors(path), _FOLDERS.get(which, "")
    found = {name.removeprefix(folder): t for name, t in tensors.items() if _of(name) == which}
    return found or {name: t for name, t in tensors.items() if _of(name) == "best"}


def _of(name: str) -> str:
    """Which weights the tensor of that name belongs to."""
    return next((which for which, folder in _FOLDERS.items() if name.startswith(folder)), "best")


def safetensors(path: Path) -> Tensors:
    """All tensors of a safetensors file, anybody's, on the CPU. Raises NotFoundError, DamagedError or UnsafeError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    with files.opened(path) as (file, size):
        _header(file, size, path)
        file.seek(0)
        data = file.read(size)
    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DamagedError(f"{path} is damaged: {str(error).splitlines()[0][:120]}", DAMAGED_HINT) from None


def _header(file: BinaryIO, size: int, path: Path) -> tuple[dict[str, str], list[_Entry]]:
    """The metadata, and the tensors in their order: each of the size of its shape and type, end to end, to the last."""
    begin = file.read(8)
    try:
        (length,) = struct.unpack("<Q", begin)
        if length > min(size - 8, LARGEST):
            raise ValueError("the header is longer than it may be")
        header = _without_twins(file.read(length))
        entries = sorted(
            (_entry(name, header[name], 8 + length) for name in header if name != "__metadata__"),
            key=lambda entry: (entry.begin, entry.end),
        )
        ends = [8 + length, *(entry.end for entry in entries)]
        if [entry.begin for entry in entries] != ends[:-1] or ends[-1] != size:
            raise ValueError("its tensors do not lie end to end")
        metadata = header.get("__metadata__") or {}
        if not all(type(value) is str for value in metadata.values()):
            raise ValueError("its metadata is no text")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        if begin.startswith((b"PK\3\4", b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")):
            raise UnsafeError(
                f"{path} is not a safetensors file but a pickle, which would have to be executed",
                "take it in with advmix import",
            ) from None
        raise DamagedError(f"{path} is damaged: not a whole safetensors file", DAMAGED_HINT) from None
    return metadata, entries


def _without_twins(text: bytes) -> dict[str, Any]:
    """A JSON object in which no name stands twice, at any depth."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name stands twice")
        return found

    header: dict[str, Any] = parsed(text, once)
    return header


def _entry(name: str, info: dict[str, Any], start: int) -> _Entry:
    (dtype, each), shape, (begin, end) = _TYPES[info["dtype"]], info["shape"], info["data_offsets"]
    if len(shape) > _MOST_DIMENSIONS or not all(type(n) is int and 0 <= n < 1 << 48 for n in (*shape, begin, end)):
        raise ValueError("sizes are whole numbers")
    if end - begin != math.prod(shape) * each:
        raise ValueError("a tensor is not of the size of its shape")
    return _Entry(name, dtype, tuple(shape), start + begin, start + end)


def _part(file: BinaryIO, entry: _Entry) -> Part:
    def pieces() -> Iterator[bytes]:
        file.seek(entry.begin)
        left = entry.end - entry.begin
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                return  # cut off since: the digest will not be right
            left -= len(piece)
            yield piece

    return entry.name.removeprefix(_FOLDERS.get(_of(entry.name), "")), entry.dtype, entry.shape, pieces()
