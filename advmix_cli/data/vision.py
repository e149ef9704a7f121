"""The usual small sets through torchvision, which verifies what it downloads."""

from __future__ import annotations

import contextlib
import importlib
import socket
import sys
from pathlib import Path
from typing import Any

import torch
from torchvision import datasets

from advmix_cli.errors import AdvmixError

_TIMEOUT_S = 20.0


def mnist(split: str, root: Path, download: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST (LeCun and Cortes): uint8 (N,1,28,28) and int64 (N,)."""
    return _grey(datasets.MNIST, "mnist", "MNIST/raw", split, root, download)


def fashion_mnist(split: str, root: Path, download: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): uint8 (N,1,28,28) and int64 (N,)."""
    return _grey(datasets.FashionMNIST, "fashion-mnist", "FashionMNIST/raw", split, root, download)


def kmnist(split: str, root: Path, download: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Kuzushiji-MNIST (Clanuwat et al. 2018): uint8 (N,1,28,28) and int64 (N,)."""
    return _grey(datasets.KMNIST, "kmnist", "KMNIST/raw", split, root, download)


def cifar10(split: str, root: Path, download: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """CIFAR-10 (Krizhevsky 2009): uint8 (N,3,32,32) and int64 (N,)."""
    return _colour(datasets.CIFAR10, "cifar10", "cifar-10-batches-py", split, root, download)


def cifar100(split: str, root: Path, download: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """CIFAR-100 (Krizhevsky 2009), fine labels: uint8 (N,3,32,32) and int64 (N,)."""
    return _colour(datasets.CIFAR100, "cifar100", "cifar-100-python", split, root, download)


def svhn(split: str, root: Path, download: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """SVHN, cropped digits (Netzer et al. 2011): uint8 (N,3,32,32) and int64 (N,). Needs scipy."""
    try:
        importlib.import_module("scipy.io")
    except ImportError:
        raise AdvmixError(
            "svhn is a file of MATLAB's, which needs scipy", "install it: pip install scipy", code="missing-library"
        ) from None
    data = open_set(datasets.SVHN, "svhn", "", root, download, split=split)
    return torch.from_numpy(data.data), torch.from_numpy(data.labels).long()


def _grey(
    kind: Any, name: str, folder: str, split: str, root: Path, download: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    data = open_set(kind, name, folder, root, download, train=split == "train")
    return data.data[:, None], data.targets


def _colour(
    kind: Any, name: str, folder: str, split: str, root: Path, download: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    data = open_set(kind, name, folder, root, download, train=split == "train")
    return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


def open_set(kind: Any, name: str, folder: str, root: Path, download: bool, **which: Any) -> Any:
    """torchvision's set, from `folder` below `root` or fetched there. Raises AdvmixError where it is neither."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints while it downloads
            try:
                return kind(str(root), download=False, **which)
            except RuntimeError:  # not there, or not what it should be
                if not download:
                    raise
            before = socket.getdefaulttimeout()
            socket.setdefaulttimeout(_TIMEOUT_S)
            try:
                return kind(str(root), download=True, **which)
            finally:
                socket.setdefaulttimeout(before)
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise AdvmixError(
            f"{name} is not in {root / folder} and could not be fetched: {reason}",
            f"put torchvision's files of {name} into {root / folder}, or set ADVMIX_DATA to the folder that holds "
            f"{folder.split('/')[0] or 'them'}; offline, use --dataset glyphs",
            code="data-unavailable",
        ) from error
