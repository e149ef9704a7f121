"""Records: what an artifact says of itself, sealed with a checksum, and checked key by key when it is read.

A checksum is no signature: whoever writes a record can seal it. So each kind has a shape that its record must fit, here
and nowhere else; what reads a record after that can rely on it.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advmix_cli import data, models
from advmix_cli.artifacts.agreeing import disagreements
from advmix_cli.config import SPLITS, VERDICTS, AttackSettings, EvalSettings, TrainSettings
from advmix_cli.errors import AdvmixError, DamagedError
from advmix_cli.judging import Certificate
from advmix_cli.names import is_full_name
from advmix_cli.settings import SCHEMA, Settings, canonical_json, digest
from advmix_cli.threats import Threat
from advmix_cli.ways import METHODS

Record = dict[str, Any]

METADATA_KEY = "advmix"
"""Under which files of other forms carry a sealed record."""

LARGEST = 16 << 20
"""Bytes of the largest record, and of a file that is nothing else."""

_MOST_VALUES = 1_000_000
DAMAGED_HINT = "make or fetch it again; in the store: the same command with --force, or advmix store remove"


def sealed(record: Record) -> str:
    """A record as text, with its own checksum."""
    return canonical_json({"record": record, "sha256": digest(record)})


def unseal(text: str | bytes, path: Path) -> Record:
    """The record in `text`. Raises DamagedError when it is not what was sealed, or of another schema."""
    try:
        sealed = parsed(text)
        record: Record = sealed["record"]
        intact = digest(record) == sealed["sha256"] and isinstance(record, dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise DamagedError(f"{path} is damaged: its record is not what was written", DAMAGED_HINT)
    if record.get("schema") != SCHEMA:
        raise DamagedError(
            f"{path} has the schema {str(record.get('schema'))[:20]}, this version reads {SCHEMA}",
            "it was made by another version of advmix: make it again, or take its weights over with advmix import",
            code="unknown-schema",
        )
    return record


def parsed(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The JSON in `text`, its objects made by `pairs` (None: dictionaries).

    Raises ValueError where it is none, or would come to far more memory than its bytes.
    """
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > LARGEST or sum(raw.count(mark) for mark in (b",", b"[", b"{")) > _MOST_VALUES:
        raise ValueError("too large for a record")
    return json.loads(text, object_pairs_hook=pairs)


# Shapes: a type or test for a value, a list for each of many, a tuple for any of these, a dictionary for keys


def _whole(low: int = 0) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value < 1 << 63


def _one_of(*known: str) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and value in known


def _number(low: float = -math.inf, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and abs(value) < 1e300 and low <= value <= high


def _text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and re.fullmatch(pattern, value, re.ASCII) is not None


def _settings(kind: type[Settings]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and _usable(kind.from_dict(value))


def _usable(settings: Settings) -> bool:
    """Whether what is derived from settings can be had; raises, or says no, where it cannot."""
    threats = [settings, getattr(settings, "threat", None), *getattr(settings, "threats", ())]
    for threat in threats:
        if isinstance(threat, Threat) and not (threat.label and str(threat) and max(threat.passes)):
            return False
    return bool(getattr(settings, "label", "none"))


def _each(*shapes: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A list of as many values as there are shapes, each of its own."""
    return lambda value: (
        type(value) is list and len(value) == len(shapes) and all(map(lambda s, v: s(v), shapes, value))
    )


COUNT, SOME = _whole(), _whole(1)
PERCENT, NUMBER, POSITIVE = _number(0, 100), _number(), _number(0)
HEX = _text(r"[0-9a-f]{64}")
NAME = _text(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,240}")
WORD = _text(r".{1,400}")
SPLIT = _one_of(*SPLITS)


def DATASET(value: Any) -> bool:
    """The full name of a data set."""
    return is_full_name(value, data.DATASETS)


def ARCH(value: Any) -> bool:
    """The full name of a network."""
    with contextlib.suppress(AdvmixError):
        return type(value) is str and value.isprintable() and bool(models.kind_of(value))
    return False


CLASSES = [_text(r"[^\x00-\x1f\x7f-\x9f]{1,250}")]
THREAT = _settings(Threat)

_MADE = {
    "advmix": str, "torch": str, "python": str, "device": str, "gpu": (str, None), "threads": SOME,
    "batch_size": (SOME, None), "not_deterministic": [str], "command": str, "date": str, "seconds": POSITIVE,
    "ranks?": SOME, "sync_bn?": bool,
}  # fmt: skip
_LINEAGE = {
    "name": NAME, "weights": _one_of("best", "last", "ema"), "digest": HEX, "arch": ARCH, "trained_against?": THREAT,
    "method?": _one_of(*METHODS), "path?": str,
}  # fmt: skip
_UNTRAINED = {"name": NAME, "weights": "untrained", "seed": COUNT, "arch": ARCH}
_RUN = {"id": _text(r"[0-9a-f]{16,64}"), "seeds": [COUNT]}
_COMMON = {"schema": SCHEMA, "name": NAME, "key": HEX, "made": _MADE}
_EPOCH = {
    "epoch": SOME, "lr": NUMBER, "train_loss": NUMBER, "test_loss": NUMBER, "test_accuracy": PERCENT,
    "train_accuracy": PERCENT, "validation_accuracy?": PERCENT, "validation_loss?": NUMBER,
    "validation_robust_accuracy?": PERCENT, "validation_certified_accuracy?": PERCENT,
    "validation_fgsm_accuracy?": PERCENT, "rolled_back?": bool, "recycled?": SOME, "linf_max?": POSITIVE,
}  # fmt: skip
_METRICS = {
    "best_epoch": SOME, "chosen_by": WORD, "test_accuracy": PERCENT, "test_loss": NUMBER,
    "last_test_accuracy": PERCENT, "last_test_loss": NUMBER, "validation_accuracy?": PERCENT,
    "test_robust_accuracy?": PERCENT, "last_test_robust_accuracy?": PERCENT, "test_threat?": THREAT,
    "linf_max?": POSITIVE,
}  # fmt: skip
_AUDIT = {
    "n": SOME, "verdict": _one_of(*VERDICTS), "chance": PERCENT,
    "robust": {"attack": str, "n": SOME, "correct": COUNT, "accuracy": PERCENT, "accuracy_ci95": [PERCENT]},
    "checks": [{"name": str, "verdict": str, "value": (NUMBER, None), "unit": str, "advice": str}],
    "by_eps": [_each(NUMBER, NUMBER)], "by_steps": [_each(NUMBER, NUMBER)],
    "landscape": {
        "image": COUNT, "label": COUNT, "axis": [NUMBER], "loss": [[(NUMBER, None)]], "margin?": [[(NUMBER, None)]],
    },
}  # fmt: skip
_STAGE = _each(WORD, COUNT)
_CELL = {
    "n": SOME, "correct": COUNT, "loss": (NUMBER, None), "right": str, "after": [_STAGE],
    "change": ({"linf_max": POSITIVE, "l2_max": POSITIVE}, None), "note?": str, "by_class?": [_each(COUNT, COUNT)],
    "passes?": [_each(COUNT, COUNT)],
}  # fmt: skip
_ROW = {
    "label": str, "lineage": _LINEAGE, "run": (_RUN, None), "reliability": [_each(COUNT, NUMBER, NUMBER)],
    "audit": (_AUDIT, None), "proved?": [_each(NUMBER, PERCENT)],
}  # fmt: skip
_COLUMN = {
    "kind": _one_of("clean", "samples", "attack", "worst", "certified"), "label": str, "threat": (THREAT, None),
    "bound": ("upper", "lower", None), "source": (NAME, None), "joint": bool, "of": [COUNT], "further": bool,
    "proved?": (_settings(Certificate), None),
}  # fmt: skip
_CHECKPOINT = _COMMON | {
    "kind": "checkpoint", "arch": ARCH, "dataset": DATASET, "shape": [SOME], "classes": SOME, "epochs": COUNT,
    "digests": {"best": HEX, "last": HEX, "ema?": HEX}, "network?": _settings(models.Network), "class_names?": CLASSES,
    "normalisation?": ({"mean": [NUMBER], "std": [NUMBER]}, None),
}  # fmt: skip
_IMPORTED = _CHECKPOINT | {"origin": "import", "source": str, "metrics": dict}
_TRAINED = _CHECKPOINT | {
    "origin": _one_of("train", "advtrain"), "init": (_LINEAGE, None), "fingerprint": HEX, "preset": WORD,
    "settings": _settings(TrainSettings), "run": _RUN, "metrics": _METRICS, "epochs": SOME, "history?": [_EPOCH],
    "history_sha256?": HEX, "images": {"train": SOME, "validation": COUNT, "test": SOME},
}  # fmt: skip
_SHAPES: dict[str, Any] = {
    "checkpoint": (_IMPORTED, _TRAINED),
    "samples": _COMMON | {
        "kind": "samples", "preset": WORD, "settings": _settings(AttackSettings), "dataset": DATASET,
        "fingerprint": HEX, "split": SPLIT, "threat": THREAT, "seed": COUNT, "model": (_LINEAGE, _UNTRAINED),
        "n": SOME, "clean_correct": COUNT, "robust_correct": COUNT, "linf_max": POSITIVE, "l2_max": POSITIVE,
        "after": [_STAGE], "digest": HEX, "class_names?": CLASSES, "of?": SOME,
        "passes?": [_each(COUNT, COUNT)],
    },
    "evaluation": _COMMON | {
        "kind": "evaluation", "settings": _settings(EvalSettings), "fingerprint": HEX, "rows": [_ROW],
        "columns": [_COLUMN], "cells": [[_CELL]], "classes?": CLASSES,
    },
    "figure": {
        "schema": SCHEMA, "kind": "figure", "name": NAME, "key": HEX, "picture": WORD, "shows": dict,
        "svg_sha256": HEX, "made": dict,
    },
    "fingerprint": {"schema": SCHEMA, "kind": "fingerprint", "name": DATASET, "fingerprint": HEX, "stamp": dict},
    "dataset": {
        "schema": SCHEMA, "kind": "dataset", "name": DATASET, "title": str, "fingerprint": HEX, "stamp": HEX,
        "classes": CLASSES, "sizes": {"train": SOME, "test": SOME}, "shape": _each(*(_whole(1),) * 3),
        "mean": [NUMBER], "std": [POSITIVE], "skipped": COUNT,
    },
}  # fmt: skip


def check(record: Record, kind: str, path: Path) -> Record:
    """The record, if it is one of that kind. Raises DamagedError that says what of it is not."""
    try:
        misfit = _misfit(record, _SHAPES[kind]) or next(disagreements(record, kind), None)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError, RecursionError, AdvmixError):
        misfit = "content"
    if misfit:
        raise DamagedError(f"{path} is damaged: its record is not what one of {kind} is ({misfit[:60]})", DAMAGED_HINT)
    return record


def history(content: bytes, path: Path) -> list[Record]:
    """The rows of a history that is a file of its own, a line each. Raises DamagedError."""
    try:
        rows = [parsed(line) for line in content.splitlines()]
    except (ValueError, RecursionError):
        rows = [None]
    if not rows or _misfit(rows, [_EPOCH]) is not None:
        raise DamagedError(f"{path} is damaged: it holds no epochs", DAMAGED_HINT)
    return rows


def _misfit(value: Any, shape: Any, where: str = "content") -> str | None:
    """Where `value` does not fit, None where it does."""
    if isinstance(shape, tuple):
        found = [_misfit(value, each, where) for each in shape]
        return None if None in found else max(found, key=lambda at: len(at or ""))
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return where
        for name, inner in shape.items():
            key = name.removesuffix("?")
            at = f"{where}.{key}".removeprefix("content.")
            missing = at if key == name else None
            found_at = _misfit(value[key], inner, at) if key in value else missing
            if found_at:
                return found_at
        return None
    if isinstance(shape, list):
        if not isinstance(value, list):
            return where
        return next(filter(None, (_misfit(each, shape[0], where) for each in value)), None)
    if isinstance(shape, type):
        return None if type(value) is shape else where
    fits = shape(value) if callable(shape) else type(value) is type(shape) and value == shape
    return None if fits else where
