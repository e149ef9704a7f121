"""What work costs: how many images pass through a model, forward and backward."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Mapping


@dataclasses.dataclass
class Passes:
    """So many images went forward, and so many gradients came back."""

    forward: int = 0
    backward: int = 0

    @property
    def cost(self) -> float:
        """In forward passes without a gradient; one takes about two more."""
        return self.forward + 2.0 * self.backward

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


class Work:
    """How much of several jobs is done and left, each somebody's and of a kind, in forward passes.

    `tell` gets what was done since, and `left`; with `before`, what was done before it could be watched. Jobs of a kind
    are taken to cost what the first of them cost.
    """

    def __init__(self, tell: Callable[..., None], foreseen: Mapping[tuple[str, str], float]) -> None:
        self._tell, self._left = tell, dict(foreseen)
        self._done = dict.fromkeys(foreseen, 0.0)
        self._begun = set[tuple[str, str]]()

    def __call__(self, whose: str, kind: str, done: float, left: float | None = None) -> None:
        """So much more of a job is done, and so much left: what was foreseen where that is not said.

        A job that says what is left says so first of what was done before: where it continues, by those before it.
        """
        job = whose, kind
        before = left is not None and job not in self._begun
        self._begun.add(job)
        self._done[job] += done
        self._left[job] = max(self._left[job] - done, 0.0) if left is None else left
        if not self._left[job]:
            alike = (other for other in self._left if other[1] == kind and not self._done[other])
            self._left |= dict.fromkeys(alike, self._done[job])
        self._tell(done, left=sum(self._left.values()), before=before)
