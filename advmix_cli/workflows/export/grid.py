"""Attacked images on the grid of whole pixel values, within the ball where that can be."""

from __future__ import annotations

import torch

from advmix_cli.attacks.common import TOLERANCE
from advmix_cli.threats import Threat

_LAST = 255


def rounded(x_adv: torch.Tensor, x: torch.Tensor | None, threat: Threat | None) -> torch.Tensor:
    """Images (N,C,H,W) in [0,1] as uint8 0..255: the nearest value, or the nearest within the ball around `x`.

    In Linf a value is clipped to [ceil(255 (x - eps)), floor(255 (x + eps))], with the tolerance that attacks have; in
    L2, of an image that has left the ball, the pixels that rounding carried outwards the furthest are rounded towards
    x instead. Where no value lies within, which takes an x that is none, it is the nearest to x. `x` or `threat` None,
    or the as-run variant: there is no ball.
    """
    near = (x_adv.double() * _LAST).round()
    if x is None or threat is None or threat.variant != "standard":
        return near.to(torch.uint8)
    origin = x.double() * _LAST
    origin = torch.where((origin - origin.round()).abs() < _LAST * TOLERANCE, origin.round(), origin)
    reach = _LAST * (threat.eps + TOLERANCE * max(1.0, threat.eps))
    if threat.norm == "linf":
        low, high = (origin - reach).ceil().clamp(min=0), (origin + reach).floor().clamp(max=_LAST)
        found = torch.where(low <= high, near.clamp(low, torch.maximum(low, high)), origin.round())
    else:
        found = _shortened(x_adv.double() * _LAST, near, origin, reach)
    return found.clamp(0, _LAST).to(torch.uint8)


def _shortened(exact: torch.Tensor, near: torch.Tensor, origin: torch.Tensor, reach: float) -> torch.Tensor:
    """`near`, in images longer than `reach` with as many pixels rounded towards the origin as it takes."""
    towards = torch.where(exact > origin, exact.floor().maximum(origin.round()), exact.ceil().minimum(origin.round()))
    gain = ((near - origin).square() - (towards - origin).square()).flatten(1)
    order = gain.argsort(dim=1, descending=True)
    total = (near - origin).square().flatten(1).sum(1, keepdim=True)
    after = total - gain.gather(1, order).cumsum(1)
    left = torch.cat([total, after[:, :-1]], dim=1)  # what is there before each pixel is changed
    changed = torch.zeros_like(gain, dtype=torch.bool).scatter(1, order, left > reach * reach)
    return torch.where(changed.view_as(near), towards, near)
