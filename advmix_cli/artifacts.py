"""Checkpoints and sample caches to and from bytes, with records that need no torch to read.

A checkpoint is a safetensors file. Its tensors are the chosen ("best") weights under their plain names and, where
they differ, the last epoch's under `last/`. One metadata key, `advmix`, holds the record and its checksum.
A sample cache is a `.pt` file with the field's keys `adv_inputs`, `labels` and `save_type`, and one more string,
`advmix`, with the record. `.pt` files are only ever read with `weights_only=True`, and their records by
scanning the pickle's opcodes, which executes nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickletools
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli.errors import AdvmixError, DamagedError, NotFoundError, UnsafeError, UsageError
from advmix_cli.settings import SCHEMA, canonical_json, digest

if TYPE_CHECKING:
    import torch

Record = dict[str, Any]
Tensors = dict[str, "torch.Tensor"]

METADATA_KEY = "advmix"
_LAST = "last/"
_DTYPES = {
    "F32": "float32",
    "F64": "float64",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "U8": "uint8",
}
_DAMAGED_HINT = "make or fetch it again; in the store: the same command with --force, or advmix store remove"


def sealed(record: Record) -> str:
    """A record as text, with its own checksum."""
    return canonical_json({"record": record, "sha256": digest(record)})


def unseal(text: str | bytes, path: Path) -> Record:
    """The record in `text`. Raises DamagedError when it is not what was sealed, or of another schema."""
    try:
        sealed = json.loads(text)
        record: Record = sealed["record"]
        intact = digest(record) == sealed["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise DamagedError(f"{path} is damaged: its record is not what was written", _DAMAGED_HINT)
    if record.get("schema") != SCHEMA:
        raise DamagedError(
            f"{path} has the schema {record.get('schema')!r}, this version reads {SCHEMA}",
            "it was made by another version of advmix: make it again, or take its weights over with advmix import",
            code="unknown-schema",
        )
    return record


_Part = tuple[str, str, tuple[int, ...], bytes | memoryview]


def _digest_of(parts: Iterable[_Part]) -> str:
    """SHA-256 over (name, dtype, shape, little-endian bytes) of tensors, in the order of their names."""
    total = hashlib.sha256()
    for name, dtype, shape, data in sorted(parts, key=lambda part: part[0]):
        total.update(canonical_json([name, dtype, list(shape)]).encode())
        total.update(data)
    return total.hexdigest()


def tensors_digest(tensors: Tensors) -> str:
    """The digest that checkpoints and caches carry: of names, types, shapes and values, wherever they lie."""
    import torch

    def part(name: str, tensor: torch.Tensor) -> _Part:
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), flat.numpy().data

    return _digest_of(part(name, tensor) for name, tensor in tensors.items())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {path}", "see advmix store list") from None
    except OSError as error:
        raise NotFoundError(f"cannot read {path}: {error.strerror}", "check its permissions") from error


# Checkpoints


def checkpoint_bytes(best: Tensors, last: Tensors, record: Record) -> bytes:
    """A safetensors file of `best` and, where it differs, `last`; the record gains `digests`. Deterministic."""
    from safetensors.torch import save

    digests = {"best": tensors_digest(best), "last": tensors_digest(last)}
    tensors = {name: t.detach().cpu().contiguous() for name, t in best.items()}
    if digests["last"] != digests["best"]:
        tensors |= {_LAST + name: t.detach().cpu().contiguous() for name, t in last.items()}
    return save(tensors, {METADATA_KEY: sealed(record | {"digests": digests})})


def _safetensors_header(data: bytes, path: Path) -> tuple[dict[str, Any], memoryview]:
    try:
        (length,) = struct.unpack("<Q", data[:8])
        if length > len(data) - 8:
            raise ValueError("truncated")
        header: dict[str, Any] = json.loads(data[8 : 8 + length])
        body = memoryview(data)[8 + length :]
        end = max((info["data_offsets"][1] for name, info in header.items() if name != "__metadata__"), default=0)
        if end != len(body):
            raise ValueError("truncated")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        if isinstance(error, ValueError) and zipfile.is_zipfile(io.BytesIO(data)):
            raise UnsafeError(
                f"{path} is not a safetensors file but a pickle", "take it in with advmix import"
            ) from None
        raise DamagedError(f"{path} is damaged: not a whole safetensors file", _DAMAGED_HINT) from None
    return header, body


def checkpoint_record(path: Path) -> Record:
    """The record of a checkpoint, after its digests were verified. Needs no torch.

    Raises NotFoundError, DamagedError (truncated, a flipped bit, an unknown schema), or UsageError for a
    safetensors file of others, which has no record.
    """
    header, body = _safetensors_header(_read(path), path)
    text = (header.get("__metadata__") or {}).get(METADATA_KEY)
    if text is None:
        raise UsageError(
            f"{path} was not made by advmix: it does not say which architecture it belongs to",
            f"take it in with: advmix import {path} --dataset DATASET --arch ARCH",
        )
    record = unseal(text, path)
    tensors = {name: info for name, info in header.items() if name != "__metadata__"}
    last = {name: info for name, info in tensors.items() if name.startswith(_LAST)}
    best = {name: info for name, info in tensors.items() if name not in last}

    def actual(group: dict[str, Any]) -> str:
        return _digest_of(
            (
                name.removeprefix(_LAST),
                _DTYPES.get(info["dtype"], info["dtype"]),
                tuple(info["shape"]),
                body[info["data_offsets"][0] : info["data_offsets"][1]],
            )
            for name, info in group.items()
        )

    if {"best": actual(best), "last": actual(last or best)} != record.get("digests"):
        raise DamagedError(f"{path} is damaged: its weights are not what was written", _DAMAGED_HINT)
    return record


def check_safetensors(path: Path) -> None:
    """Raise NotFoundError, DamagedError or UnsafeError unless the file is a whole safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = _read(path)
    _safetensors_header(data, path)
    try:
        load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DamagedError(f"{path} is damaged: {_first_line(error)}", _DAMAGED_HINT) from None


def checkpoint_weights(path: Path, which: str) -> Tensors:
    """The `best` or `last` weights of a checkpoint, on the CPU. Call `checkpoint_record` first: it verifies."""
    from safetensors.torch import load

    tensors = load(_read(path))
    last = {name.removeprefix(_LAST): t for name, t in tensors.items() if name.startswith(_LAST)}
    if which == "last" and last:
        return last
    return {name: t for name, t in tensors.items() if not name.startswith(_LAST)}


# Sample caches


def samples_bytes(adv_inputs: torch.Tensor, labels: torch.Tensor, index: torch.Tensor, record: Record) -> bytes:
    """A sample cache: `adv_inputs` float32 (N,C,H,W) in [0,1], `labels` int64 (N,), and which images of the split they
    are, `index` int64 (N,); the record gains `digest`."""
    import torch

    tensors = {
        "adv_inputs": adv_inputs.detach().cpu().float().contiguous(),
        "labels": labels.detach().cpu().long(),
        "index": index.detach().cpu().long(),
    }
    record = record | {"digest": tensors_digest(tensors)}
    buffer = io.BytesIO()
    torch.save({**tensors, "save_type": "float", METADATA_KEY: sealed(record)}, buffer)
    return buffer.getvalue()


def samples_record(path: Path) -> Record | None:
    """The record of a sample cache after a check of the file's checksums; None in a file made by others.

    Needs no torch and executes nothing. Raises NotFoundError or DamagedError.
    """
    data = _read(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            bad = archive.testzip()
            if bad is not None:
                raise DamagedError(f"{path} is damaged in {bad}", _DAMAGED_HINT)
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            text = _pickled_string(archive.read(names[0]), METADATA_KEY) if names else None
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, IndexError, NotImplementedError, RuntimeError):
        raise DamagedError(f"{path} is damaged: not a whole .pt file", _DAMAGED_HINT) from None
    return None if text is None else unseal(text, path)


def _pickled_string(pickled: bytes, key: str) -> str | None:
    """The string that follows the string `key` in a pickle, found without unpickling."""
    strings = iter([arg for op, arg, _ in pickletools.genops(pickled) if "UNICODE" in op.name])
    for text in strings:
        if text == key:
            return next(strings, None)
    return None


def samples_tensors(path: Path, digest: str | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`adv_inputs` float32 (N,C,H,W), `labels` and `index` int64 (N,) of a sample cache, ours or torchattacks'.

    `index` says which images of the split they are; a file of others does not, and counts from 0.

    With a `digest`, that of a record read before, they must be the very ones it is of.
    8-bit images (`save_type` "int") are divided by 255. Raises NotFoundError, DamagedError, UnsafeError for a file
    that holds more than plain tensors and values, and UsageError for one that holds no attacked images.
    """
    import torch

    record = samples_record(path)
    content = load_plain(path)
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), torch.Tensor) for name in ("adv_inputs", "labels")
    ):
        raise UsageError(f"{path} holds no adv_inputs and labels", "give a sample cache: advmix store list")
    inputs, labels, index = content["adv_inputs"], content["labels"], content.get("index")
    ours = {"adv_inputs": inputs, "labels": labels, "index": index}
    if record is not None and (index is None or tensors_digest(ours) != record.get("digest")):
        raise DamagedError(f"{path} is damaged: its images are not what was written", _DAMAGED_HINT)
    if digest is not None and (record or {}).get("digest") != digest:
        raise DamagedError(f"{path} was replaced while it was being used", "run the command again")
    if inputs.ndim != 4 or not len(inputs) or labels.shape != inputs.shape[:1] or labels.is_floating_point():
        raise UsageError(
            f"{path}: adv_inputs {tuple(inputs.shape)} and labels {tuple(labels.shape)} do not fit together",
            "adv_inputs are (N,C,H,W) and labels (N,) integers",
        )
    inputs = inputs.float().div(255) if content.get("save_type") == "int" else inputs.float()
    low, high = float(inputs.min()), float(inputs.max())
    if not (low >= 0 and high <= 1):  # also catches NaN
        raise UsageError(
            f"{path}: adv_inputs leave [0,1]: {low:.6g} to {high:.6g}",
            'attacked images are floats in [0,1], or uint8 with save_type "int"',
        )
    return inputs, labels.long(), torch.arange(len(labels)) if record is None or index is None else index


# Files of others


class _Skipped:
    """Stands where a file names a class that is not a tensor: it takes anything and does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> _Skipped:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def load_plain(path: Path, *, skip_foreign: bool = False) -> Any:
    """The content of a `.pt` file, on the CPU, with torch's restricted unpickler.

    Raises UnsafeError when it names classes that are not tensors or plain values; with `skip_foreign` each of their
    objects is replaced by an inert stand-in instead, and never constructed. Raises DamagedError.
    """
    import pickle

    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    data = _read(path)
    foreign: list[str] = []
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):
            foreign = get_unsafe_globals_in_checkpoint(io.BytesIO(data))
        if foreign and not skip_foreign:
            raise _unsafe(path, foreign)
        stand_ins: list[Any] = [(_Skipped, name) for name in foreign]
        with safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle protocols that it does read
            return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "WeightsUnpickler" in str(error):
            raise _unsafe(path, foreign) from None
        raise DamagedError(f"{path} is damaged: it cannot be unpickled", "fetch or make it again") from None
    except AdvmixError:
        raise
    except Exception as error:  # there is no telling what bytes that are no pickle make of an unpickler
        raise DamagedError(
            f"{path} is damaged: not a whole .pt file ({_first_line(error)})", "fetch or make it again"
        ) from None


def _unsafe(path: Path, foreign: list[str]) -> UnsafeError:
    named = f": it holds {', '.join(sorted(foreign)[:4])}" if foreign else ""
    return UnsafeError(
        f"{path} would have to be executed to be read{named}",
        "only plain tensors and values are read; ask its author for a safetensors file or a plain state dict",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
