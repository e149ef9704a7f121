"""Artifacts to and from bytes, with records that need no torch to read. Nothing in a file is ever executed.

What is read may come from anybody: a file is regular, and what it declares is checked before memory or time is spent
on it (`files`, `archives`, `pickles`, `checkpoints`); what a record says is checked key by key (`records`).
"""

from advmix_cli.artifacts.archives import Archive, is_tensor
from advmix_cli.artifacts.archives import read as read_archive
from advmix_cli.artifacts.checkpoints import (
    checkpoint_bytes,
    checkpoint_record,
    checkpoint_weights,
    is_ours,
    safetensors,
)
from advmix_cli.artifacts.digests import Tensors, tensors_digest
from advmix_cli.artifacts.pictures import figure_record
from advmix_cli.artifacts.records import LARGEST, METADATA_KEY, Record, check, history, sealed, unseal
from advmix_cli.artifacts.samples import samples_bytes, samples_record, samples_tensors
from advmix_cli.artifacts.states import read_state, state_bytes

__all__ = [
    "LARGEST",
    "METADATA_KEY",
    "Archive",
    "Record",
    "Tensors",
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
    "samples_bytes",
    "samples_record",
    "samples_tensors",
    "sealed",
    "state_bytes",
    "tensors_digest",
    "unseal",
]
