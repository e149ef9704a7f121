"""Sample caches: `.pt` files with the field's keys `adv_inputs`, `labels` and `save_type`.

One more string, `advmix`, holds the sealed record, and `index` which images of the split they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from advmix_cli import data
from advmix_cli.artifacts import archives
from advmix_cli.artifacts.digests import tensors_digest
from advmix_cli.artifacts.records import DAMAGED_HINT, METADATA_KEY, Record, check, sealed, unseal
from advmix_cli.errors import DamagedError, UsageError

if TYPE_CHECKING:
    import torch


def samples_writer(
    adv_inputs: torch.Tensor, labels: torch.Tensor, index: torch.Tensor, record: Record
) -> Callable[[BinaryIO], None]:
    """What writes a sample cache into a file, without holding it in memory once more.

    `adv_inputs` float32 (N,C,H,W) in [0,1], `labels` int64 (N,), and which images of the split they are, `index` int64
    (N,); the record gains `digest`.
    """
    import torch

    tensors = {
        "adv_inputs": adv_inputs.detach().cpu().float().contiguous(),
        "labels": labels.detach().cpu().long(),
        "index": index.detach().cpu().long(),
    }
    record = record | {"digest": tensors_digest(tensors)}
    content = {**tensors, "save_type": "float", METADATA_KEY: sealed(record)}

    def write(file: BinaryIO) -> None:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # what torch makes of a full disk
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    return write


def samples_record(path: Path, *, whole: bool = True) -> Record | None:
    """The record of a sample cache after a check of the file's checksums (`whole`; else the record's alone).

    None in a file made by others. Needs no torch. Raises NotFoundError, DamagedError or UnsafeError.
    """
    return _record_of(archives.read_archive(path)) if whole else _record(path, archives.value_of(path))


def _record_of(archive: archives.Archive) -> Record | None:
    if archive.foreign:
        raise archive.unsafe()
    archive.check(archive.value)
    return _record(archive.path, archive.value)


def _record(path: Path, content: Any) -> Record | None:
    text = content.get(METADATA_KEY) if isinstance(content, dict) else None
    return None if text is None else check(unseal(text if isinstance(text, str) else "", path), "samples", path)


def samples_tensors(path: Path, digest: str | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`adv_inputs` float32 (N,C,H,W), `labels` and `index` int64 (N,) of a sample cache, ours or torchattacks'.

    `index` says which images of the split they are; a file of others does not, and counts from 0.

    With a `digest`, that of a record read before, they must be the very ones it is of.
    8-bit images (`save_type` "int") are divided by 255. Raises NotFoundError, DamagedError, UnsafeError for a file
    that holds more than plain tensors and values, and UsageError for one that holds no attacked images.
    """
    import torch

    archive = archives.read_archive(path)
    record, content = _record_of(archive), archive.value
    if not isinstance(content, dict) or not {"adv_inputs", "labels"} <= content.keys():
        raise UsageError(f"{path} holds no adv_inputs and labels", "give a sample cache: advmix store list")
    given = archive.loaded({name: content.get(name) for name in ("adv_inputs", "labels", "index")})
    inputs, labels, index = given["adv_inputs"], given["labels"], given["index"]
    if not isinstance(inputs, torch.Tensor) or not isinstance(labels, torch.Tensor):
        raise UsageError(f"{path}: adv_inputs and labels are no tensors", "give a sample cache: advmix store list")
    if record is not None and (not isinstance(index, torch.Tensor) or tensors_digest(given) != record["digest"]):
        raise DamagedError(f"{path} is damaged: its images are not what was written", DAMAGED_HINT)
    if digest is not None and (record or {}).get("digest") != digest:
        raise DamagedError(f"{path} was replaced while it was being used", "run the command again")
    whole = not labels.is_floating_point() and labels.dtype != torch.bool
    if inputs.ndim != 4 or not inputs.numel() or labels.shape != inputs.shape[:1] or not whole:
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
    labels = labels.long()
    if record is None:
        return inputs, labels, torch.arange(len(labels))
    size = record.get("of") or data.info(record["dataset"]).sizes[record["split"]]
    fits = len(labels) == record["n"] and index.shape == labels.shape and index.dtype == torch.int64
    if not fits or int(index.min()) < 0 or int(index.max()) >= size or len(index.unique()) != len(index):
        raise DamagedError(f"{path} is damaged: it does not hold the images that its record speaks of", DAMAGED_HINT)
    return inputs, labels, index
