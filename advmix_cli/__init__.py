"""advmix: train image classifiers with mixup and manifold mixup, attack them, believe the robust accuracy.

The public surface is `load(ref)`, which gives a stored model to any other library; everything else is
reached through the command line (`advmix --help`).
"""

from __future__ import annotations

import os
import sys

from advmix_cli._version import __version__

TYPE_CHECKING = False  # as typing has it, whose import is a moment in which Ctrl-C would show a traceback
if TYPE_CHECKING:
    from torch import nn

__all__ = ["__version__", "load"]

# OpenMP threads spin at barriers by default: with another process on one of the cores an attack then takes
# twenty times as long. OpenMP reads this once, when torch is first imported.
if "torch" not in sys.modules:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def load(ref: str = "latest", *, device: str = "cpu") -> nn.Module:
    """The model that a reference names, in eval mode, ready for any other library.

    It maps float images in [0,1], shape (N,C,H,W) as `advmix store show REF` gives it, to logits (N,classes);
    normalisation is inside. `ref` is a path, a name, a unique prefix, an alias or `latest`, with `@best` or
    `@last` to pick the weights. Raises `NotFoundError` (unknown or ambiguous) or `DamagedError`.
    """
    from advmix_cli.workflows.references import load_model, resolve_model
    from advmix_cli.workflows.session import Session

    session = Session.open()
    return load_model(resolve_model(session, ref), device)
