"""Verdicts: which images a network is proved to get right everywhere in a ball."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from advmix_cli.attacks import attack_set, batches
from advmix_cli.attacks.common import frozen, to_float
from advmix_cli.bounds import intervals, linear
from advmix_cli.bounds.intervals import Ball
from advmix_cli.bounds.layers import Interval
from advmix_cli.bounds.trace import Traced, trace
from advmix_cli.data.pixels import Pixels
from advmix_cli.errors import StateError, UsageError, known_name
from advmix_cli.judging import BOUNDS
from advmix_cli.passes import Passes
from advmix_cli.threats import Threat

if TYPE_CHECKING:
    from advmix_cli.bounds.exact import Exact

_OUTWARD = 1e-5
"""What the margins must exceed, as a share of the largest logit: more than a network's float32 rounds away."""

_INTERVALS, _LINEAR, _ON_A_GPU = 64, 8, 16
"""Images that are bounded at a time; on a GPU as many times more."""

_ATTACKED = 4
"""So many times as many are attacked together, and known at a time."""

_EACH = [(intermediate, [slopes]) for intermediate in ("ibp", "crown") for slopes in linear.SLOPES]
_LINEAR_BOUNDS: dict[str, Sequence[tuple[str, Sequence[str]]]] = {
    "ibp": [],
    "crown": [("crown", linear.SLOPES)],
    "best": _EACH,
    "exact": _EACH,
}
"""Which are tried beside intervals: by what is bounded between, and with what slopes."""

_ENDS_AND_IMAGE = 3
"""Forward passes that intervals take of an image."""

_FIRST_TRIED: tuple[tuple[str, dict[str, int]], ...] = (("pma", {}), ("square-pgd", {"queries": 1000}))
"""Attacks before linear bounds, which take much longer: of what they break nothing can be proved."""

Piece = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Certified:
    """Which of N images are `right` (N,) everywhere in the ball: a lower bound on robust accuracy.

    `margin` (N,) is the least margin that was proved, in logits, `losses` (N,) what the cross-entropy, in nats, does
    not exceed anywhere in the ball. `undecided` (N,) are those that are neither proved nor known to be wrong somewhere
    in the ball. On the CPU. `left` is how many images have yet to be bounded: none, unless a range was asked for.
    """

    right: torch.Tensor
    margin: torch.Tensor
    losses: torch.Tensor
    undecided: torch.Tensor
    left: int = 0


def margins(
    network: Traced,
    x: torch.Tensor,
    y: torch.Tensor,
    eps: float,
    *,
    norm: str,
    bounds: str,
    among: torch.Tensor | None = None,
) -> torch.Tensor:
    """Lower bounds (B,classes) of logit y minus each logit in the ball around x (B,C,H,W), 0 at y; in float64.

    They are less than what was computed by what float32 may round: no network in float32 is seen outside of them.
    `bounds` is `ibp`, `crown`, or `best`, with which `exact` begins: intervals, then linear bounds over intervals, then
    linear bounds throughout, with one kind of slopes after the other, each for the images that those before have not
    proved. Of those that intervals leave, linear bounds are tried for those `among` (B,), None: all.
    """
    known_name(bounds, BOUNDS, "bounds")
    ball = Ball(x.double(), eps, norm)
    with torch.no_grad():
        values = intervals.around(network, ball)
        slack = _slack(values)[:, None]
        found = intervals.margins(network, values, y)
        del values
        left = _unproved(found - slack, y)
        tried = left & (network(ball.x).argmax(1) == y)  # of the others nothing can be proved
        tried = (tried if among is None else tried & among) | (~left & (bounds == "crown"))
        for intermediate, slopes in _LINEAR_BOUNDS[bounds]:
            rows = (tried & _unproved(found - slack, y) if bounds != "crown" else tried).nonzero()[:, 0]
            for some in torch.split(rows, _LINEAR * _more(x.device)) if len(rows) else ():
                part = Ball(ball.x[some], eps, norm)
                more = linear.margins(network, part, y[some], intermediate=intermediate, slopes=slopes)
                found[some] = found[some].maximum(more)
        return (found - slack).scatter(1, y[:, None], 0.0)


def _slack(values: list[Interval]) -> torch.Tensor:
    """By how much margins must be positive, (B,), from the bounds of all places."""
    return _OUTWARD * (1 + torch.maximum(*(end.abs().amax(1) for end in values[-1])))


def _unproved(margins: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (margins.scatter(1, y[:, None], torch.inf) <= 0).any(1)


def certify_set(
    model: nn.Module,
    x: Pixels,
    y: torch.Tensor,
    eps: float,
    *,
    norm: str = "linf",
    bounds: str = "best",
    standing: torch.Tensor | None = None,
    only: range | None = None,
    pieces: Sequence[Piece] = (),
    on_work: Callable[[float, float], None] = lambda done, left: None,
    on_piece: Callable[[Piece], None] = lambda piece: None,
) -> Certified:
    """Which images (N,C,H,W), uint8 or float in [0,1], with labels (N,), are proved right within eps in `norm`.

    An image counts where every margin is proved positive, which includes the image itself. `standing` (N,) are the
    images that attacks leave in this ball; None: where intervals do not do, it is attacked here, since of what is
    broken nothing can be proved, and linear bounds take longer. `exact`, in Linf alone, has a solver decide what `best`
    leaves (`bounds.exact`). `on_piece` gets what became known with each batch; with all those `pieces` the same call
    continues. `on_work` gets what was done since, first by `pieces`, and what is left, in forward passes. `only`: bound
    the images of that range.
    Raises UsageError, code `no-bound`, for a network with a layer that has no bound.
    """
    found, done = torch.zeros(2, len(x), dtype=torch.float64), torch.zeros(len(x), dtype=torch.bool)
    undecided, mine = torch.zeros(len(x), dtype=torch.bool), range(len(x)) if only is None else only
    try:
        for piece in pieces:
            found[:, piece["samples"]], done[piece["samples"]] = piece["proved"], True
            undecided[piece["samples"]] = piece["undecided"]
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise StateError(f"a piece of a certificate does not fit: {error}", "begin again") from None
    todo = torch.tensor([i for i in mine if not done[i]], dtype=torch.long)
    on_work(_ENDS_AND_IMAGE * (len(mine) - len(todo)), _ENDS_AND_IMAGE * len(todo))
    with frozen(model):
        network = trace(model, tuple(x.shape[1:]))
        most = min(_INTERVALS * _more(y.device), batches.suitable(model, x, None))  # large images take memory
        search, known = _Search(model, network, eps, norm, bounds, most, y.device), 0.0
        for these in torch.split(todo, _ATTACKED * most) if len(todo) else ():
            labels, stand = y[these], None if standing is None else standing[these]
            proved, left, cost = search(to_float(x[these]), labels, stand)
            least = proved.scatter(1, labels[:, None], torch.inf).amin(1)
            found[:, these] = torch.stack([least, (-proved).logsumexp(1)]).cpu()
            undecided[these], done[these] = left.cpu(), True
            known, n = known + cost, len(todo) - int(done[todo].sum())
            on_work(cost, known * n / (len(todo) - n))
            on_piece(
                {"samples": these.clone(), "proved": found[:, these].clone(), "undecided": undecided[these].clone()}
            )
    return Certified(found[0] > 0, found[0], found[1], undecided, int((~done).sum()))


class _Search:
    """What is tried of images, from the cheapest to the dearest, each for those that are not decided yet."""

    def __init__(
        self, model: nn.Module, network: Traced, eps: float, norm: str, bounds: str, most: int, device: torch.device
    ) -> None:
        self._model, self._network, self._eps, self._norm, self._bounds = model, network, eps, norm, bounds
        self._most = most
        self._further = len(_LINEAR_BOUNDS[bounds]) * linear.cost(network)
        self._exact: Exact | None = None
        if bounds == "exact":
            from advmix_cli.bounds.exact import Exact

            self._exact = Exact(network, device)

    def __call__(
        self, x: torch.Tensor, y: torch.Tensor, standing: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Margins (B,classes), as of `margins`, who is neither proved nor known to be broken, and what that took."""
        proved, cost = self._margins(x, y, "ibp"), float(_ENDS_AND_IMAGE * len(y))
        with torch.no_grad():
            left = _unproved(proved, y) & (self._model(x).argmax(1) == y)
        if standing is not None:
            left &= standing.to(left.device)
        if self._bounds == "ibp":
            return proved, left, cost
        if standing is None:
            for attack, settings in _FIRST_TRIED:
                where = left.nonzero()[:, 0]
                threat = Threat.of(attack, self._norm, self._eps, **settings)
                if len(where):
                    left[where] = attack_set(self._model, x[where], y[where], threat, seed=0).robust.to(left.device)
        cost += self._further * int(left.sum())
        where = (left | (self._bounds == "crown")).nonzero()[:, 0]
        if len(where):
            proved[where] = self._margins(x[where], y[where], self._bounds, left[where])
        left &= _unproved(proved, y)
        for row in left.nonzero()[:, 0].tolist() if self._exact is not None else ():
            left[row] = not self._decided(x[row : row + 1], y[row : row + 1], proved[row])
            cost += self._further
        return proved, left, cost

    def _margins(
        self, x: torch.Tensor, y: torch.Tensor, bounds: str, among: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As `margins`, of any number of images."""
        among = torch.ones_like(y, dtype=torch.bool) if among is None else among
        parts = zip(*(torch.split(each, self._most) for each in (x, y, among)), strict=True)
        found = [
            margins(self._network, a, b, self._eps, norm=self._norm, bounds=bounds, among=some) for a, b, some in parts
        ]
        return torch.cat(found)

    def _decided(self, x: torch.Tensor, y: torch.Tensor, proved: torch.Tensor) -> bool:
        """Whether an image (1,C,H,W) is proved, or the model wrong somewhere in the ball. Raises its margins then."""
        assert self._exact is not None
        ball = Ball(x.double(), self._eps)
        given = intervals.around(self._network, ball)
        slack = float(_slack(given)[0])
        told = self._exact.decide(ball, int(y), proved, 2 * slack)
        if told.proved:
            proved.clamp_(min=slack)[y] = 0.0
            return True
        if told.image is None:
            return False
        low, high = Ball(x, self._eps).box
        with torch.no_grad():
            return bool(self._model(told.image.to(x.dtype).clamp(low, high)).argmax(1) != y)


def proved(model: nn.Module, x: Pixels, y: torch.Tensor, threat: Threat) -> tuple[torch.Tensor, Passes]:
    """Which images (N,C,H,W) with labels (N,) intervals prove right under a threat, and what that took.

    None of a network with a layer that has no bound.
    """
    try:
        right = certify_set(model, x, y, threat.eps, norm=threat.norm, bounds="ibp").right
    except UsageError as error:
        if error.code != "no-bound":
            raise
        return torch.zeros(len(x), dtype=torch.bool), Passes()
    return right, Passes(_ENDS_AND_IMAGE * len(x))


def _more(device: torch.device) -> int:
    return _ON_A_GPU if device.type == "cuda" else 1
