"""What a stopped job left: a line that says the form, a line with the digest of the rest, and a `.pt` file."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

from advmix_cli import files
from advmix_cli.artifacts import archives
from advmix_cli.errors import DamagedError

_FORM = b"advmix-state 1\n"


def state_bytes(content: dict[str, Any]) -> bytes:
    """Plain tensors and values, sealed."""
    import torch

    buffer = io.BytesIO()
    buffer.write(_FORM + bytes(64) + b"\n")
    begin = buffer.tell()
    torch.save(content, buffer)
    with buffer.getbuffer() as view:  # in place: what is kept may be as large as the images
        view[len(_FORM) : begin - 1] = hashlib.sha256(view[begin:]).hexdigest().encode()
    return buffer.getvalue()


def read_state(path: Path) -> dict[str, Any]:
    """What was sealed, its tensors on the CPU. Raises DamagedError for anything else, another form's included."""
    raw = files.read(path)
    sealed, data = raw[len(_FORM) : len(_FORM) + 65], raw[len(_FORM) + 65 :]
    if not raw.startswith(_FORM) or sealed != hashlib.sha256(data).hexdigest().encode() + b"\n":
        raise DamagedError(f"{path} is damaged, or of another version", "begin again")
    content = archives.of(path, data).plain()
    if not isinstance(content, dict):
        raise DamagedError(f"{path} is damaged: it holds no state", "begin again")
    return content
