"""The digest of tensors, from the tensors or from the bytes that a file holds of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from advmix_cli.settings import canonical_json

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]
Part = tuple[str, str, tuple[int, ...], Iterable[bytes | memoryview]]
"""A tensor's name, type and shape, and its little-endian bytes, piece by piece."""


def digest_of(parts: Iterable[Part]) -> str:
    """SHA-256 over the parts, in the order of their names."""
    total = hashlib.sha256()
    for name, dtype, shape, pieces in sorted(parts, key=lambda part: part[0]):
        total.update(canonical_json([name, dtype, list(shape)]).encode())
        for piece in pieces:
            total.update(piece)
    return total.hexdigest()


def tensors_digest(tensors: Tensors) -> str:
    """The digest that checkpoints and caches carry: of names, types, shapes and values, wherever they lie."""
    import torch

    def part(name: str, tensor: torch.Tensor) -> Part:
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), [flat.numpy().data]

    return digest_of(part(name, tensor) for name, tensor in tensors.items())
