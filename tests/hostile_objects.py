"""What torch itself would save though it is no plain array of numbers: code, classes, and tensors of other kinds."""

from __future__ import annotations

import argparse
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hostile_pickles import IMAGE, saved

# Code


class Harmful:
    """Would call `function` if it were unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


def harmful(mark: Path) -> dict[str, tuple[Harmful, str]]:
    """Objects that would write the file `mark`, and what each would run, as it may be called."""
    return {
        "system": (Harmful(os.system, f"touch {mark}"), "system"),
        "eval": (Harmful(eval, f"open({str(mark)!r}, 'w')"), "eval"),
        "open": (Harmful(open, str(mark), "w"), "open"),
        "getattr": (Harmful(getattr, Harmful(__import__, "os"), "system"), "getattr"),
    }


def whole_model() -> bytes:
    """A pickled network, classes and all: what `torch.save(model)` writes."""
    return saved(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 10)))


def scripted() -> bytes:
    """A TorchScript archive, which holds code."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.jit.trace(
            torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1024, 10)), torch.zeros(1, *IMAGE)
        )
        torch.jit.save(network, buffer)
    return buffer.getvalue()


def arguments() -> argparse.Namespace:
    """What training scripts leave beside the weights: harmless, but a class."""
    return argparse.Namespace(lr=0.1, epochs=3)


# Kinds of tensors


def kinds(like: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same values in forms that are no plain array of numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {
            "sparse": like.to_sparse(),
            "meta": like.to("meta"),
            "quantised": torch.quantize_per_tensor(like, 0.01, 0, torch.quint8),
            "complex": like.to(torch.complex64),
            "conjugate": like.to(torch.complex64).conj(),
            "bool": like.bool(),
            "float8": like.to(torch.float8_e4m3fn),
            "uint16": like.to(torch.uint16),
            "uint64": like.to(torch.uint64),
        }
        if like.dim() > 1:
            found["nested"] = torch.nested.nested_tensor([each.clone() for each in like], layout=torch.jagged)
        if like.dim() == 4:
            found["rows"] = like.flatten(1).to_sparse_csr()
    return found
