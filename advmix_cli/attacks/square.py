"""Square: a random search with squares that needs no gradient, and so cannot be fooled by masked ones."""

from __future__ import annotations

import torch
from torch import nn

from advmix_cli.attacks.common import Standing, lengths, margin
from advmix_cli.config import Threat
from advmix_cli.runtime import generator

_SHARE = 0.8
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def share(query: int, queries: int) -> float:
    """What share of the pixels a square covers: halved at fixed points of a search of 10,000, in proportion for others.

    Source: Andriushchenko et al. 2020, section 3.2, with p = 0.8.
    """
    scaled = int(query / queries * 10_000)
    return float(_SHARE / 2 ** sum(scaled > after for after in _HALVINGS))


def square(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    noise: torch.Tensor | None = None,
    target: torch.Tensor | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Attacked images (N,C,H,W) for images x in [0,1] and labels y (N,), from at most `steps` queries of the model.

    A change is kept where it raises the margin of the wrong classes. The signs of the start are those of `noise`, a
    sample's own; places and signs of the squares are drawn from `seed`, for all samples alike, so that no
    result depends on its batch. Source: Andriushchenko et al. 2020, Algorithms 1 to 3.
    """
    assert noise is not None
    random = generator("cpu", seed, "square")
    search = _linf if threat.norm == "linf" else _l2
    with torch.no_grad():
        x_adv = _stripes(x, noise, threat) if threat.norm == "linf" else _tiles(x, noise, threat)
        best = margin(model(x_adv), y)
        standing = Standing(x_adv)
        standing.mark(best > 0, x_adv)
        for query in range(1, threat.steps):
            keep = standing.shrink(query - 1)
            if keep is not None:
                x, y, x_adv, best = x[keep], y[keep], x_adv[keep], best[keep]
                if not len(x):
                    break
            side = (share(query - 1, threat.steps) * x.shape[2] * x.shape[3]) ** 0.5
            tried = search(x, x_adv, side, threat, random)
            found = margin(model(tried), y)
            better = found > best
            best = torch.where(better, found, best)
            x_adv = torch.where(better.view(-1, 1, 1, 1), tried, x_adv)
            standing.mark(best > 0, x_adv)
        return standing.finish(x_adv)


def _signs(shape: tuple[int, ...], like: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    return (torch.randint(0, 2, shape, generator=random) * 2 - 1).to(like)


def _places(limit_h: int, limit_w: int, random: torch.Generator) -> tuple[int, int]:
    drawn = torch.rand(2, generator=random).tolist()
    return int(drawn[0] * (limit_h + 1)), int(drawn[1] * (limit_w + 1))


def _stripes(x: torch.Tensor, noise: torch.Tensor, threat: Threat) -> torch.Tensor:
    """The linf start: vertical stripes of a pixel, each at +eps or -eps."""
    return (x + threat.eps * torch.where(noise[:, :, :1] >= 0, 1.0, -1.0)).clamp_(0, 1)


def _linf(x: torch.Tensor, x_adv: torch.Tensor, side: float, threat: Threat, random: torch.Generator) -> torch.Tensor:
    """One square goes to +eps or -eps around x, each channel with its own sign."""
    size = min(max(round(side), 1), x.shape[2], x.shape[3])
    top, left = _places(x.shape[2] - size, x.shape[3] - size, random)
    rows, columns = slice(top, top + size), slice(left, left + size)
    tried = x_adv.clone()
    signs = _signs((1, x.shape[1], 1, 1), x, random)
    tried[:, :, rows, columns] = (x[:, :, rows, columns] + threat.eps * signs).clamp_(0, 1)
    return tried


def _bump(size: int, random: torch.Generator) -> torch.Tensor:
    """The paper's eta: two adjoining bumps of opposite sign over a square, of L2 norm 1, (size,size), either way up."""

    def half(height: int, width: int) -> torch.Tensor:
        grown = torch.zeros(height, width)
        row, column = height // 2, width // 2
        for ring in range(max(row, column) + 1):
            rows, columns = slice(max(row - ring, 0), row + ring + 1), slice(max(column - ring, 0), column + ring + 1)
            grown[rows, columns] += 1 / (ring + 1) ** 2
        return grown / grown.square().sum().sqrt()

    upper = size // 2
    both = torch.cat([half(upper, size), -half(size - upper, size)])
    both = both / both.square().sum().sqrt()
    return both.T if float(torch.rand(1, generator=random)) < 0.5 else both


def _tiles(x: torch.Tensor, noise: torch.Tensor, threat: Threat) -> torch.Tensor:
    """The l2 start: a five by five grid of bumps, each with a sign of its own."""
    size = max(min(x.shape[2], x.shape[3]) // 5, 2)
    bump, delta = _bump(size, generator("cpu", 0, "start")).to(x), torch.zeros_like(x)
    for top in range(0, x.shape[2] - size + 1, size):
        for left in range(0, x.shape[3] - size + 1, size):
            sign = torch.where(noise[:, :, top : top + 1, left : left + 1] >= 0, 1.0, -1.0)
            delta[:, :, top : top + size, left : left + size] = bump * sign
    return (x + delta * (threat.eps / lengths(delta))).clamp_(0, 1)


def _l2(x: torch.Tensor, x_adv: torch.Tensor, side: float, threat: Threat, random: torch.Generator) -> torch.Tensor:
    """The budget of one window moves to another, where a bump is added to what is there."""
    limit = min(x.shape[2], x.shape[3])
    size = min(max(round(side), 3), limit)
    size = min(size + 1 - size % 2, limit)
    there = _window(x, size, random)
    taken = _window(x, size, random)
    delta = x_adv - x
    whole = delta.square().sum((1, 2, 3), keepdim=True)
    both = torch.zeros((1, 1, *x.shape[2:]), device=x.device)
    both[there] = 1
    both[taken] = 1
    union = (delta * both).square().sum((2, 3), keepdim=True)
    old = delta[there]
    new = _bump(size, random).to(x) * _signs((1, x.shape[1], 1, 1), x, random)
    new = new + old / old.square().sum((2, 3), keepdim=True).sqrt().clamp_(min=1e-12)
    unused = (threat.eps**2 - whole).clamp_(min=0) / x.shape[1]
    new = new * ((unused + union).sqrt() / new.square().sum((2, 3), keepdim=True).sqrt().clamp_(min=1e-12))
    delta[taken] = 0
    delta[there] = new
    return (x + delta * (threat.eps / lengths(delta))).clamp_(0, 1)


def _window(x: torch.Tensor, size: int, random: torch.Generator) -> tuple[slice, slice, slice, slice]:
    top, left = _places(x.shape[2] - size, x.shape[3] - size, random)
    return slice(None), slice(None), slice(top, top + size), slice(left, left + size)
