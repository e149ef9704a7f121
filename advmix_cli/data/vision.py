"""MNIST and CIFAR-10 through torchvision, which verifies what it downloads."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path
from typing import Any

import torch
from torchvision import datasets
from torchvision.transforms.v2 import functional

from advmix_cli.errors import AdvmixError

_TIMEOUT_S = 20.0


def mnist(split: str, root: Path, download: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST (LeCun and Cortes): uint8 (N,1,32,32), resized bilinearly on uint8 as the report did, and int64 (N,)."""
    data = _open(datasets.MNIST, "mnist", "MNIST/raw", split, root, download)
    return functional.resize(data.data[:, None], [32, 32]), data.targets


def cifar10(split: str, root: Path, download: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """CIFAR-10 (Krizhevsky 2009): uint8 (N,3,32,32) and int64 (N,)."""
    data = _open(datasets.CIFAR10, "cifar10", "cifar-10-batches-py", split, root, download)
    return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


def _open(kind: Any, name: str, folder: str, split: str, root: Path, download: bool) -> Any:
    train = split == "train"
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints while it downloads
            try:
                return kind(str(root), train=train, download=False)
            except RuntimeError:  # not there, or not what it should be
                if not download:
                    raise
            before = socket.getdefaulttimeout()
            socket.setdefaulttimeout(_TIMEOUT_S)
            try:
                return kind(str(root), train=train, download=True)
            finally:
                socket.setdefaulttimeout(before)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AdvmixError(
            f"{name} is not in {root / folder} and could not be fetched: {reason}",
            f"put torchvision's files of {name} into {root / folder}, or set ADVMIX_DATA to the folder that holds "
            f"{folder.split('/')[0]}; offline, use --dataset glyphs",
            code="data-unavailable",
        ) from error
