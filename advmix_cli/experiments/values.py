"""The options that a file may give a command, and their values as a request takes them."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advmix_cli import requests
from advmix_cli.names import kind_of
from advmix_cli.settings import fraction

COMMANDS: dict[str, type] = {
    "train": requests.Train, "advtrain": requests.AdvTrain, "attack": requests.Attack, "eval": requests.Evaluate,
}  # fmt: skip
"""The commands that an experiment is made of, and their requests, whose fields are the options."""

_NOT_OPTIONS = {"name", "verbose", "report", "fail_on", "models", "model", "samples", "init", "weights"}


def options_of(command: str) -> dict[str, Any]:
    """The options of a command that a file may say, with their types."""
    hints = typing.get_type_hints(COMMANDS[command])
    names = [field.name for field in dataclasses.fields(COMMANDS[command])]
    return {name: hints[name] for name in names if name not in _NOT_OPTIONS}


def taken(hint: Any, value: Any, base: Path) -> Any:
    """A value as an option of that type takes it; files lie below `base`. Raises ValueError, which says what it is."""
    hints = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    several = [each for each in hints if typing.get_origin(each) in (Sequence, tuple)]
    if several:
        (inner, *_) = typing.get_args(several[0])
        return tuple(taken(inner, each, base) for each in (value if isinstance(value, list) else [value]))
    if float in hints and isinstance(value, str):
        return fraction(value)
    if float in hints and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if type(value) not in hints:
        wanted = " or ".join(each.__name__ for each in hints if each is not type(None))
        raise ValueError(f"must be {wanted}, not {value!r}")
    if isinstance(value, str):
        _inside(value, base)
    return value


def _inside(value: str, base: Path) -> None:
    """No file that a shared experiment names lies outside its folder."""
    before, _, behind = value.partition(":")
    named = behind if kind_of(value) in ("folder", "npz") else before if before.endswith(".py") else ""
    if named and not Path(named).is_absolute() and not (base / named).resolve().is_relative_to(base):
        raise ValueError(f"{value} lies outside the folder of the file: copy it there")
