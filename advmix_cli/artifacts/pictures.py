"""Figures: PNG files with a sealed record in a text chunk, which knows the digest of the SVG beside it."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

from advmix_cli import files
from advmix_cli.artifacts.records import DAMAGED_HINT, METADATA_KEY, Record, check, unseal
from advmix_cli.errors import DamagedError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def figure_record(path: Path) -> Record:
    """The record of a figure after a check of the PNG's checksums and of the SVG beside it; {} where it has none.

    Raises NotFoundError or DamagedError.
    """
    text = _chunk(path, files.read(path))
    if text is None:
        return {}
    record = check(unseal(text, path), "figure", path)
    svg = path.with_suffix(".svg")
    if hashlib.sha256(files.read(svg)).hexdigest() != record["svg_sha256"]:
        raise DamagedError(f"{svg} is damaged: it is not what was written", DAMAGED_HINT)
    return record


def _chunk(path: Path, data: bytes) -> bytes | None:
    """The text of this project's chunk in a PNG, whose chunks are all checked; None where there is none."""
    found, at = None, len(_SIGNATURE)
    kind = b""
    while data.startswith(_SIGNATURE) and kind != b"IEND" and at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if data[at + 8 + length : at + 12 + length] != struct.pack(">I", zlib.crc32(kind + content)):
            break
        name, _, text = content.partition(b"\0")
        if kind == b"tEXt" and name == METADATA_KEY.encode():
            found = text
        at += 12 + length
    else:
        if kind == b"IEND" and at == len(data):
            return found
    raise DamagedError(f"{path} is damaged: not a whole picture", DAMAGED_HINT)
