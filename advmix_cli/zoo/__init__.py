"""The small networks that ship with the package, `zoo:NAME` wherever a model is wanted.

Each is a checkpoint with its full record; `zoo.json` has what was measured of it, and with which command. Both are made
by `benchmarks/zoo.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from advmix_cli.errors import NotFoundError, nearest

PREFIX = "zoo:"
_HERE = Path(__file__).parent


def known() -> dict[str, dict[str, Any]]:
    """What is known of each, by name: what it is, clean, lower and upper in percent, n, norm, eps, and the command."""
    found: dict[str, dict[str, Any]] = json.loads((_HERE / "zoo.json").read_text(encoding="utf-8"))
    return found


def names() -> list[str]:
    """`zoo:NAME` of all."""
    return [PREFIX + path.stem for path in sorted(_HERE.glob("*.safetensors"))]


def path(ref: str) -> Path:
    """The checkpoint that `zoo:NAME` means. Raises NotFoundError, with the nearest name."""
    found = _HERE / (ref.removeprefix(PREFIX) + ".safetensors")
    if ref not in names():
        raise NotFoundError(f"the zoo has no {ref.removeprefix(PREFIX)}", nearest(ref, names()), code="unknown-zoo")
    return found
