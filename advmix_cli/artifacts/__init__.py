"""Artifacts to and from bytes, with records that need no torch to read. Nothing in a file is ever executed.

What is read may come from anybody: a file is regular, and what it declares is checked before memory or time is spent
on it (`files`, `archives`, `pickles`, `checkpoints`); what a record says is checked key by key (`records`).
Each part is imported when it is first used: help needs none, and an answer from the store only one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advmix_cli.artifacts.archives import is_tensor, read_archive
    from advmix_cli.artifacts.checkpoints import (
        checkpoint_bytes,
        checkpoint_record,
        checkpoint_weights,
        is_ours,
        safetensors,
        weights_bytes,
    )
    from advmix_cli.artifacts.digests import tensors_digest
    from advmix_cli.artifacts.pictures import figure_record
    from advmix_cli.artifacts.records import LARGEST, Record, check, history, sealed, unseal
    from advmix_cli.artifacts.samples import samples_record, samples_tensors, samples_writer
    from advmix_cli.artifacts.states import read_state, state_bytes

_PARTS = {
    "archives": ("is_tensor", "read_archive"),
    "checkpoints": (
        "checkpoint_bytes",
        "checkpoint_record",
        "checkpoint_weights",
        "is_ours",
        "safetensors",
        "weights_bytes",
    ),
    "digests": ("tensors_digest",),
    "pictures": ("figure_record",),
    "records": ("LARGEST", "Record", "check", "history", "sealed", "unseal"),
    "samples": ("samples_record", "samples_tensors", "samples_writer"),
    "states": ("read_state", "state_bytes"),
}

__all__ = [  # as in `_PARTS`: linters read no other form
    "LARGEST",
    "Record",
    "check",
    "checkpoint_bytes",
    "checkpoint_record",
    "checkpoint_weights",
    "figure_record",
    "history",
    "is_ours",
    "is_tensor",
    "read_archive",
    "read_state",
    "safetensors",
    "samples_record",
    "samples_tensors",
    "samples_writer",
    "sealed",
    "state_bytes",
    "tensors_digest",
    "unseal",
    "weights_bytes",
]


def __getattr__(name: str) -> Any:
    part = next((part for part, names in _PARTS.items() if name in names), None)
    if part is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{part}"), name)
    globals()[name] = found
    return found
