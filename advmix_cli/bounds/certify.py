"""Verdicts: which images a network is proved to get right everywhere in a ball."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from advmix_cli.attacks import batches
from advmix_cli.attacks.common import frozen, to_float
from advmix_cli.bounds import intervals, linear
from advmix_cli.bounds.intervals import Ball
from advmix_cli.bounds.trace import Traced, trace
from advmix_cli.data.pixels import Pixels
from advmix_cli.errors import StateError, UsageError, known_name
from advmix_cli.judging import BOUNDS
from advmix_cli.passes import Passes
from advmix_cli.threats import Threat

_OUTWARD = 1e-5
"""What the margins must exceed, as a share of the largest logit: more than a network's float32 rounds away."""

_INTERVALS, _LINEAR, _ON_A_GPU = 64, 8, 16
"""Images that are bounded at a time; on a GPU as many times more."""

_LINEAR_BOUNDS: dict[str, list[tuple[str, Sequence[str]]]] = {
    "ibp": [],
    "crown": [("crown", linear.SLOPES)],
    "best": [(intermediate, [slopes]) for intermediate in ("ibp", "crown") for slopes in linear.SLOPES],
}
"""Which are tried beside intervals: by what is bounded between, and with what slopes."""

_ENDS_AND_IMAGE = 3
"""Forward passes that intervals take of an image."""

Piece = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Certified:
    """Which of N images are `right` (N,) everywhere in the ball: a lower bound on robust accuracy.

    `margin` (N,) is the least margin that was proved, in logits, `losses` (N,) what the cross-entropy, in nats, does
    not exceed anywhere in the ball. On the CPU. `left` is how many images have yet to be bounded: none, unless a range
    was asked for.
    """

    right: torch.Tensor
    margin: torch.Tensor
    losses: torch.Tensor
    left: int = 0


def margins(network: Traced, x: torch.Tensor, y: torch.Tensor, eps: float, *, norm: str, bounds: str) -> torch.Tensor:
    """Lower bounds (B,classes) of logit y minus each logit in the ball around x (B,C,H,W), 0 at y; in float64.

    They are less than what was computed by what float32 may round: no network in float32 is seen outside of them.
    `bounds` is `ibp`, `crown`, or `best`: intervals, then linear bounds over intervals, then linear bounds throughout,
    with one kind of slopes after the other, each for the images that those before have not proved.
    """
    known_name(bounds, BOUNDS, "bounds")
    ball = Ball(x.double(), eps, norm)
    with torch.no_grad():
        values = intervals.around(network, ball)
        slack = _OUTWARD * (1 + torch.maximum(*(end.abs().amax(1) for end in values[-1])))[:, None]
        found = intervals.margins(network, values, y)
        del values
        right = network(ball.x).argmax(1) == y  # of the others nothing can be proved
        for intermediate, slopes in _LINEAR_BOUNDS[bounds]:
            left = ((found - slack).scatter(1, y[:, None], torch.inf) <= 0).any(1) & right
            rows = (left if bounds == "best" else torch.ones_like(left)).nonzero()[:, 0]
            for some in torch.split(rows, _LINEAR * _more(x.device)) if len(rows) else ():
                part = Ball(ball.x[some], eps, norm)
                more = linear.margins(network, part, y[some], intermediate=intermediate, slopes=slopes)
                found[some] = found[some].maximum(more)
        return (found - slack).scatter(1, y[:, None], 0.0)


def certify_set(
    model: nn.Module,
    x: Pixels,
    y: torch.Tensor,
    eps: float,
    *,
    norm: str = "linf",
    bounds: str = "best",
    only: range | None = None,
    pieces: Sequence[Piece] = (),
    on_work: Callable[[float, float], None] = lambda done, left: None,
    on_piece: Callable[[Piece], None] = lambda piece: None,
) -> Certified:
    """Which images (N,C,H,W), uint8 or float in [0,1], with labels (N,), are proved right within eps in `norm`.

    An image counts where every margin is proved positive, which includes the image itself. `on_piece` gets what became
    known with each batch; with all those `pieces` the same call continues. `on_work` gets how many images were bounded
    since, first by `pieces`, and how many are left. `only`: bound the images of that range.
    Raises UsageError, code `no-bound`, for a network with a layer that has no bound.
    """
    found, done = torch.zeros(2, len(x), dtype=torch.float64), torch.zeros(len(x), dtype=torch.bool)
    mine = range(len(x)) if only is None else only
    try:
        for piece in pieces:
            found[:, piece["samples"]], done[piece["samples"]] = piece["proved"], True
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
        raise StateError(f"a piece of a certificate does not fit: {error}", "begin again") from None
    todo = torch.tensor([i for i in mine if not done[i]], dtype=torch.long)
    on_work(len(mine) - len(todo), len(todo))
    with frozen(model):
        network = trace(model, tuple(x.shape[1:]))
        most = min(_INTERVALS * _more(y.device), batches.suitable(model, x, None))  # large images take memory
        for these in torch.split(todo, most) if len(todo) else ():
            labels = y[these]
            proved = margins(network, to_float(x[these]), labels, eps, norm=norm, bounds=bounds)
            least = proved.scatter(1, labels[:, None], torch.inf).amin(1)
            found[:, these] = torch.stack([least, (-proved).logsumexp(1)]).cpu()
            done[these] = True
            on_work(len(labels), len(todo) - int(done[todo].sum()))
            on_piece({"samples": these.clone(), "proved": found[:, these].clone()})
    return Certified(found[0] > 0, found[0], found[1], int((~done).sum()))


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
