"""The ways of training: what a batch is prepared with, and the loss on it. What there is stands in `ways.METHODS`.

A way is a class of `base.Method` in a file of its own. `prepare` attacks, draws and schedules; `loss` is what is
recorded on a GPU. `perturbing.py` and `averaging.py` go beside any of them.
"""

from advmix_cli.methods.base import Batch, Method, Prepared, chosen

__all__ = ["Batch", "Method", "Prepared", "chosen"]
