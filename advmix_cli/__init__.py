"""advmix: train image classifiers with mixup and manifold mixup, attack them, believe the robust accuracy.

From Python: `attack`, `evaluate`, `audit`, `certify` and `train` take any `nn.Module` and images as tensors or
arrays; `load` gives a stored model to any other library, `datasets` the images that a name means; see `advmix_cli.api`.
All else is reached through the command line (`advmix --help`).
"""

from __future__ import annotations

import os
import sys

from advmix_cli._version import __version__

TYPE_CHECKING = False  # as typing has it, whose import is a moment in which Ctrl-C would show a traceback
if TYPE_CHECKING:
    from advmix_cli.api import attack, audit, certify, datasets, evaluate, load, train

__all__ = ["__version__", "attack", "audit", "certify", "datasets", "evaluate", "load", "train"]

# OpenMP threads spin at barriers by default: with another process on one of the cores an attack then takes
# twenty times as long. OpenMP reads this once, when torch is first imported.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> object:
    """What is public is imported when it is first asked for: the command line starts without torch."""
    if name in __all__:
        from advmix_cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
