"""Settings as frozen dataclasses, their canonical JSON, and the keys that are made from it.

A settings object holds everything that changes a number and nothing else: the device, batch sizes, threads, progress
and paths are passed beside it. So the key of a result is the hash of its settings and of what it was made from.

A key survives growth: a field at its default leaves it as it was, so that a new option empties no store. What a key
must not survive is a mended algorithm: the version of each is in it (`versions`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Self

from advmix_cli.errors import UsageError

SCHEMA = 2
"""The form of records and of the store."""


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN or infinity (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def plain(value: Any) -> Any:
    """The same as JSON has it: lists for tuples, and null for numbers that are not finite."""
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def fraction(text: str) -> float:
    """A number as people write it: `0.3`, `8/255`. Raises ValueError for anything else, `8/0` and `nan` included."""
    try:
        above, slash, below = text.partition("/")
        value = float(above) / float(below) if slash else float(above)
    except ZeroDivisionError:
        raise ValueError(f"{text!r} divides by zero") from None
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number or fraction such as 0.3 or 8/255")
    return value


def number(value: float, *, exact: bool = False) -> str:
    """A number for tables: 0.3, and k/255 for the eps values that are meant so.

    `exact`: no other value has the same text.
    """
    k = round(value * 255)
    if 0 < k < 128 and k % 51 and (value == k / 255 if exact else abs(value * 255 - k) < 1e-9):
        return f"{k}/255"
    short = f"{value:.6g}"
    return repr(value) if exact and float(short) != value else short


def require(condition: bool, message: str, hint: str) -> None:
    """Raise UsageError unless `condition` holds."""
    if not condition:
        raise UsageError(message, hint)


def require_positive(settings: Any, *names: str) -> None:
    """Raise UsageError where one of those fields is neither None nor positive and finite."""
    for name in names:
        value = getattr(settings, name)
        option = "--" + name.replace("_", "-")
        require(
            value is None or (math.isfinite(value) and value > 0),
            f"{option} must be positive and finite, not {value}",
            f"give a value above 0, or leave {option} out for the default",
        )


def check_seed(seed: int) -> None:
    """Raise UsageError for what no generator takes."""
    require(0 <= seed < 2**63, f"--seed must be from 0 to 2^63 - 1, not {seed}", "try --seed 0")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all settings share: plain values for records, and the identity that goes into keys."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, all of them, as they go into records."""
        return json.loads(canonical_json(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises TypeError on an unknown or missing field."""
        return cls(**{name: cls._read(name, value) for name, value in values.items()})

    @classmethod
    def _read(cls, name: str, value: Any) -> Any:
        """A field from its plain value; settings within settings override it."""
        return tuple(value) if isinstance(value, list) else value

    def versions(self) -> dict[str, int]:
        """The versions of the algorithms that these settings choose."""
        return {}

    def identity(self) -> dict[str, Any]:
        """What tells these settings from others, in plain values: the fields that are not at their default.

        A default can therefore never be changed: who wants another one adds a field or a preset.
        """
        found = {
            field.name: _identified(value)
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default or type(value) is not type(field.default)
        }
        versions = self.versions()
        return found | {"versions": versions} if versions else found


def _identified(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.identity()
    return [_identified(each) for each in value] if isinstance(value, tuple) else value


def key(kind: str, settings: Settings, **made_from: Any) -> str:
    """The key (64 hex digits) of the artifact of `kind` that `settings` make from `made_from`."""
    return digest({"schema": SCHEMA, "kind": kind, "settings": settings.identity(), "from": made_from})
