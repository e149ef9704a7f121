"""What work costs: how many images pass through a model, forward and backward."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass
class Passes:
    """So many images went forward, and so many gradients came back."""

    forward: int = 0
    backward: int = 0

    def add(self, other: Passes) -> None:
        """These too."""
        self.forward += other.forward
        self.backward += other.backward


_COUNTING: contextvars.ContextVar[Passes | None] = contextvars.ContextVar("passes", default=None)


@contextlib.contextmanager
def counted() -> Iterator[Passes]:
    """What this thread counts within; what counts around it does not."""
    own = Passes()
    token = _COUNTING.set(own)
    try:
        yield own
    finally:
        _COUNTING.reset(token)


def count(passes: Passes) -> None:
    """So many more, where anybody counts."""
    counting = _COUNTING.get()
    if counting is not None:
        counting.add(passes)
