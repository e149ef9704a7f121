"""Exact verdicts by mixed-integer programs. Source: Tjeng, Xiao and Tedrake 2019 (MIPVerify).

A network is written down as linear constraints: for a ReLU or a window of a pool that its bounds do not settle there
are variables of 0 or 1 that say which value is the largest. Whether an image of the ball has a margin that is no more
than asked for is then left to HiGHS, by way of SciPy.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from advmix_cli.bounds import intervals, linear
from advmix_cli.bounds.intervals import Ball
from advmix_cli.bounds.layers import Affine, MaxPool, ReLU, Sum, Tensor
from advmix_cli.bounds.trace import Traced
from advmix_cli.errors import UsageError

Array = np.ndarray[Any, np.dtype[Any]]

SECONDS = 20.0
"""Before a margin is left undecided: what was decided does not depend on it."""

VALUES = 30_000
"""Before ReLUs and pools in all, of the largest network that is read: LeNet5 has 8,084."""

_ROWS = 256
"""Values that go through a layer at a time where its matrix is read."""

_NONE = -1
"""The place of a value that there is not: a ReLU's 0, and what is beyond the edge of a pool."""

_INFEASIBLE = 2
"""What SciPy says of a program without a solution."""


class Found(NamedTuple):
    """Whether no image of the ball has a margin that low; else one (1,C,H,W) that has, None where none is known."""

    proved: bool
    image: Tensor | None = None


class Values(NamedTuple):
    """N values, linear in a program's variables: rows, sparse (N,variables), and constants (N,)."""

    rows: Any
    constants: Array


class Windows(NamedTuple):
    """The largest of N windows of K values at the place `of`: `values` (N,K) are their places there; for those that
    there are not stands 0 where `relu`."""

    of: int
    values: Array
    relu: bool

    def ends(self, ends: list[tuple[Array, Array]]) -> tuple[Array, Array]:
        """The lower and upper ends (N,K) of the values, from those of all places."""
        none = 0.0 if self.relu else -np.inf
        low, high = (np.where(self.values == _NONE, none, end[self.values]) for end in ends[self.of])
        return low, high


class Exact:
    """Decides for a network on a device; what does not depend on the image is read once.

    Raises UsageError, code `no-bound`, for one of more than `VALUES` values before ReLUs and pools.
    """

    def __init__(self, network: Traced, device: torch.device) -> None:
        bent = [
            math.prod(network.before(each.inputs[0])) for each in network.layers if isinstance(each, ReLU | MaxPool)
        ]
        if sum(bent) > VALUES:
            raise UsageError(
                f"there are no exact bounds for a network with {sum(bent):,} values before ReLUs and pools",
                f"they are for at most {VALUES:,}: use --bounds best",
                code="no-bound",
            )
        self._network = network
        self._matrices, self._windows = dict[int, tuple[Any, Array]](), dict[int, Windows]()
        for place, layer in enumerate(network.layers, 1):
            before, shape = layer.inputs[0], network.before(layer.inputs[0])
            if isinstance(layer, Affine):
                self._matrices[place] = _matrix(layer, shape, device)
            elif isinstance(layer, MaxPool):
                places = torch.arange(math.prod(shape), dtype=torch.float64).view(1, *shape)
                found = layer.windows(places).movedim(2, 3).flatten(0, 2).clamp(min=_NONE)
                self._windows[place] = Windows(before, found.long().numpy(), relu=False)
            elif isinstance(layer, ReLU):
                # Of what is pooled first, all is one window: fewer of its values can be the largest.
                pooled = self._windows.get(before, Windows(before, np.arange(math.prod(shape))[:, None], relu=False))
                values = (
                    pooled.values if pooled.relu else np.pad(pooled.values, ((0, 0), (0, 1)), constant_values=_NONE)
                )
                self._windows[place] = Windows(pooled.of, values, relu=True)

    def decide(self, ball: Ball, y: int, known: Tensor, enough: float) -> Found:
        """Whether logit y exceeds each other by more than `enough` in the Linf ball around one image.

        `known` (classes,) are bounds of these margins so far: those of 0 and less have a program solved.
        """
        given = intervals.around(self._network, ball)
        for slopes in linear.SLOPES:
            given = linear.refined(self._network, ball, given, slopes)
        ends = [(low[0].flatten().cpu().numpy(), high[0].flatten().cpu().numpy()) for low, high in given]
        for wrong in known.argsort().tolist():
            if wrong != y and known[wrong] <= 0:
                proved, image = self._program(ends, y, wrong).below(enough)
                if not proved:
                    return Found(False, None if image is None else torch.as_tensor(image).to(ball.x).view_as(ball.x))
        return Found(True)

    def _program(self, ends: list[tuple[Array, Array]], y: int, wrong: int) -> _Program:
        """The least margin of a class, with what matters to it of the network."""
        needed, program = self._needed(ends, y, wrong), _Program(*ends[0])
        values = [Values(sparse.identity(len(ends[0][0]), format="csr"), np.zeros(len(ends[0][0])))]
        for place, layer in enumerate(self._network.layers, 1):
            first = values[layer.inputs[0]]
            if isinstance(layer, Affine):
                matrix, constants = self._matrices[place]
                values.append(Values(matrix @ first.rows, matrix @ first.constants + constants))
            elif isinstance(layer, Sum):
                other = values[layer.inputs[1]]
                values.append(Values(program.wide(first) + program.wide(other), first.constants + other.constants))
            else:
                windows = self._windows[place]
                values.append(program.largest(values[windows.of], windows, windows.ends(ends), needed[place]))
        one, other = (_picked(values[-1], np.array([each])) for each in (y, wrong))
        program.margin = Values(program.wide(one) - program.wide(other), one.constants - other.constants)
        return program

    def _needed(self, ends: list[tuple[Array, Array]], y: int, wrong: int) -> list[Array]:
        """Which values of each place matter to the difference of two logits, bool (N,)."""
        needed = [np.zeros(len(low), dtype=bool) for low, _ in ends]
        needed[-1][[y, wrong]] = True
        for place in range(len(self._network.layers), 0, -1):
            layer, mine = self._network.layers[place - 1], needed[place]
            if place in self._matrices:
                found, of = np.unique(self._matrices[place][0][mine].indices), layer.inputs
            elif place in self._windows:
                windows = self._windows[place]
                found, of = windows.values[mine][_alive(*windows.ends(ends))[mine]], (windows.of,)
                found = found[found != _NONE]
            else:
                found, of = mine.nonzero()[0], layer.inputs
            for before in of:
                needed[before][found] = True
        return needed


def _matrix(layer: Affine, shape: tuple[int, ...], device: torch.device) -> tuple[Any, Array]:
    """What an affine layer does to values of that shape: a sparse matrix (N',N) and constants (N',)."""
    n, zero = math.prod(shape), torch.zeros(1, *shape, dtype=torch.float64, device=device)
    shift, parts = layer.forward(zero).flatten(), []
    for part in torch.split(torch.arange(n), _ROWS):
        unit = torch.zeros(len(part), n, dtype=torch.float64, device=device)
        unit[torch.arange(len(part)), part] = 1
        told = layer.linear(torch.float64, False)(unit.view(len(part), *shape))
        parts.append(sparse.csr_matrix(told.detach().flatten(1).cpu().numpy()))
    return sparse.vstack(parts).T.tocsr(), shift.detach().cpu().numpy()


def _alive(low: Array, high: Array) -> Array:
    """Which values (N,K) may be the largest of their windows: all that another does not surely exceed."""
    alive: Array = high > low.max(1, keepdims=True)
    alive[np.arange(len(low)), low.argmax(1)] = True
    return alive


class _Program:
    """Variables, the image's first, with their ends and whether they are 0 or 1; constraints; the margin."""

    def __init__(self, low: Array, high: Array) -> None:
        self._low, self._high, self._whole = [low], [high], [np.zeros(len(low))]
        self._columns, self._image = len(low), len(low)
        self._constraints = list[tuple[Values, float, float]]()
        self.margin = Values(None, np.zeros(1))

    def wide(self, values: Values) -> Any:
        """Their rows, over all variables that there are now."""
        rows = values.rows.tocsr(copy=True)
        rows.resize(rows.shape[0], self._columns)
        return rows

    def largest(self, values: Values, windows: Windows, ends: tuple[Array, Array], needed: Array) -> Values:
        """The largest of the values of each window that is needed, whose ends (N,K) are given; 0 for the others."""
        (low, high), places = ends, windows.values
        alive = _alive(low, high) & needed[:, None]
        beyond = self._beyond(values, windows, ends, alive)
        settled = alive.sum(1) <= 1
        only = np.where(settled & needed, places[np.arange(len(places)), alive.argmax(1)], _NONE)
        open_ = (~settled & needed).nonzero()[0]
        out = self._variables(low[open_].max(1), high[open_].max(1))
        row, k = alive[open_].nonzero()  # of each value that may be the largest
        which = self._variables(np.zeros(len(row)), np.ones(len(row)), whole=True)
        it = _picked(values, places[open_][row, k])
        gap = np.where(alive[open_][row], beyond[open_][row, k], 0.0).max(1)  # what it may be less than the largest
        above = self._unit(out[row]) - self.wide(it)
        self._constraints.append((Values(above, -it.constants), 0.0, np.inf))
        self._constraints.append((Values(above + self._unit(which, gap), -it.constants - gap), -np.inf, 0.0))
        one = sparse.csr_matrix((np.ones(len(row)), (row, which)), shape=(len(open_), self._columns))
        self._constraints.append((Values(one, -np.ones(len(open_))), 0.0, 0.0))
        found = _picked(values, only)
        place = np.full(len(places), _NONE)
        place[open_] = np.arange(len(open_))
        new = _picked(Values(self._unit(out), np.zeros(len(open_))), place)
        return Values(self.wide(found) + new.rows, found.constants)

    def _beyond(self, values: Values, windows: Windows, ends: tuple[Array, Array], alive: Array) -> Array:
        """By how much at most each value of a window exceeds each (N,K,K), as [window, the other, the one].

        Values of a window often are of the same variables, so that less is possible than their own ends let. What
        never exceeds another is taken from `alive` (N,K).
        """
        (low, high), places, k = ends, windows.values, alive.shape[1]
        least, most = np.concatenate(self._low), np.concatenate(self._high)
        found = np.full((*alive.shape, k), -np.inf)
        for other, one in itertools.permutations(range(k), 2):
            both = (alive[:, one] & alive[:, other]).nonzero()[0]
            more, less = (_picked(values, places[both, each]) for each in (one, other))
            rows = self.wide(more) - self.wide(less)
            upper = rows.maximum(0) @ most + rows.minimum(0) @ least + more.constants - less.constants
            found[both, other, one] = np.minimum(upper, high[both, one] - low[both, other])
        for other, one in itertools.permutations(range(k), 2):
            never = found[:, other, one] <= 0 if one > other else found[:, other, one] < 0
            alive[:, one] &= ~(alive[:, other] & never & (found[:, other, one] > -np.inf))
        return found

    def below(self, enough: float) -> tuple[bool, Array | None]:
        """Whether the margin is never `enough` or less; else an image where it is, the least that was found."""
        cost = self.wide(self.margin)
        rows = [cost, *(self.wide(values) for values, _, _ in self._constraints)]
        shift = [values.constants for values, _, _ in self._constraints]
        low = [
            np.full(1, -np.inf),
            *(least - each for each, (_, least, _) in zip(shift, self._constraints, strict=True)),
        ]
        high = [enough - self.margin.constants,
                *(most - each for each, (_, _, most) in zip(shift, self._constraints, strict=True))]  # fmt: skip
        with _nothing_printed():
            answer = milp(
                cost.toarray()[0],
                integrality=np.concatenate(self._whole),
                bounds=Bounds(np.concatenate(self._low), np.concatenate(self._high)),
                constraints=LinearConstraint(sparse.vstack(rows, "csr"), np.concatenate(low), np.concatenate(high)),
                options={"time_limit": SECONDS},
            )
        image = None if answer.x is None else answer.x[: self._image]
        return answer.status == _INFEASIBLE, image

    def _variables(self, low: Array, high: Array, *, whole: bool = False) -> Array:
        """The places of new ones with these ends."""
        self._low.append(low)
        self._high.append(high)
        self._whole.append(np.full(len(low), float(whole)))
        self._columns += len(low)
        return np.arange(self._columns - len(low), self._columns)

    def _unit(self, places: Array, by: Array | float = 1.0) -> Any:
        """Rows that are these variables, each times a number."""
        n = len(places)
        return sparse.csr_matrix((np.broadcast_to(by, n), (np.arange(n), places)), shape=(n, self._columns))


def _picked(values: Values, places: Array) -> Values:
    """The values at these places, 0 where there is none."""
    there = (places != _NONE).nonzero()[0]
    pick = sparse.csr_matrix((np.ones(len(there)), (there, places[there])), shape=(len(places), len(values.constants)))
    return Values(pick @ values.rows, pick @ values.constants)


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """Within, standard output goes nowhere: HiGHS prints there beside its log, and answers belong there."""
    flush = getattr(ctypes.CDLL(None), "fflush", None) if os.name == "posix" else None
    sys.stdout.flush()
    with open(os.devnull, "w") as nowhere:
        kept = os.dup(1)
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            if flush is not None:
                flush(None)  # what it printed may still lie in a buffer
            os.dup2(kept, 1)
            os.close(kept)
