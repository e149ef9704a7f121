"""Square: a random search with squares that needs no gradient, and so cannot be fooled by masked ones."""

from __future__ import annotations

import functools

import torch
from torch import nn

from advmix_cli import draws, graphs
from advmix_cli.attacks.common import divisors, logits, margin
from advmix_cli.attacks.standing import Standing, first_won
from advmix_cli.graphs import Tensors
from advmix_cli.passes import Passes, count, counted
from advmix_cli.runtime import generator
from advmix_cli.threats import Threat

_SHARE = 0.8
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
_MADE_FOR = 10_000

_SMALL = 1 << 28
"""Weights times pixels, as many multiplications as convolutions have at the most, of a network of which few images cost
almost what many do."""
_ON_CPU, _ON_GPU, _AHEAD = 32, 1024, 16
"""Images that cost it almost what one does, and squares that are tried at a time at the most."""


def share(query: int, queries: int, *, rescaled: bool = False) -> float:
    """What share of the pixels a square covers after so many queries: 0.8, halved at fixed points.

    The points are meant for a search of 10,000. The standard ensemble takes them as they are for its 5,000 queries;
    `rescaled` they keep their proportion. Source: Andriushchenko et al. 2020, section 3.2, with p = 0.8.
    """
    at = int(query / queries * _MADE_FOR) if rescaled else query
    return float(_SHARE / 2 ** sum(at > after for after in _HALVINGS))


def square(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    threat: Threat,
    *,
    index: torch.Tensor,
    seed: int,
    rescaled: bool = False,
    **_: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attacked images (N,C,H,W) and which have won (N,), for images x in [0,1], labels y (N,) of samples index (N,).

    After the start `queries` changes are tried, and one is kept where it raises the margin of the wrong classes. What
    differs between samples follows from `seed` and index; where the squares lie, and in Linf their signs, from `seed`
    alone: they are the same for all samples, so that no result depends on its batch.
    Source: Andriushchenko et al. 2020, Algorithms 1 to 3, as the authors' ensemble runs them.
    """
    random = generator("cpu", seed, "square")
    begin, search = (_stripes, _Squares) if threat.norm == "linf" else (_tiles, _Windows)
    with torch.no_grad():
        x_adv = begin(x, threat.eps, index, seed)
        best = margin(logits(model, x_adv), y)
        standing = Standing(model, x_adv, x=x, y=y, best=best, index=index, won=best > 0)
        standing.settle()
        change = search(model, x, threat, seed, random, rescaled)
        for number in standing.steps(threat.queries):
            if isinstance(change, _Squares) and change.apart(len(standing)):
                change.rest(standing, number - 1)
                break
            change(standing, number - 1)
        return standing.finish()


def _tried(model: nn.Module, tried: torch.Tensor, rows: Tensors) -> Tensors:
    """The rows after the images `tried` (n,C,H,W) are kept where they are better."""
    found = margin(logits(model, tried), rows["y"])
    better = found > rows["best"]
    best = torch.where(better, found, rows["best"])
    x_adv = torch.where(better.view(-1, 1, 1, 1), tried, rows["x_adv"])
    return {"x_adv": x_adv, "best": best, **first_won(best > 0, x_adv, rows["found"], rows["won"])}


def _stripes(x: torch.Tensor, eps: float, index: torch.Tensor, seed: int) -> torch.Tensor:
    """The linf start: vertical stripes of a pixel, each at +eps or -eps."""
    return (x + eps * draws.signs(index, (x.shape[1], 1, x.shape[3]), seed, "stripes")).clamp_(0, 1)


class _Squares:
    """One square goes to +eps or -eps around x, each channel with its own sign.

    As in the authors' code a square never lies at the last place there would be, nor does a window in L2.
    """

    def __init__(
        self, model: nn.Module, x: torch.Tensor, threat: Threat, seed: int, random: torch.Generator, rescaled: bool
    ) -> None:
        channels, height, width = x.shape[1:]
        shares = (share(query, threat.queries, rescaled=rescaled) for query in range(threat.queries))
        sizes = torch.tensor([min(max(round((s * height * width) ** 0.5), 1), height, width) for s in shares])
        limits = torch.stack([height - sizes, width - sizes], 1)
        corners = (torch.rand((threat.queries, 2), generator=random) * limits).floor()
        table = torch.cat([corners, sizes[:, None]], 1)
        self._places, self._table = table.tolist(), table.to(x.device)
        signs = torch.randint(0, 2, (threat.queries, channels), generator=random).float() * 2 - 1
        self._signs = signs.to(x.device)  # all at once: a copy a query would be waited for
        self._model, self._eps = model, threat.eps
        small = sum(each.numel() for each in model.parameters()) * height * width <= _SMALL
        self._recorded = graphs.records(x.device)
        self._together = (_ON_GPU if self._recorded else _ON_CPU) if small else 0

    def ahead(self, n: int) -> int:
        """How many squares are tried at a time where n images stand."""
        return max(1, min(_AHEAD, self._together // max(n, 1)))

    def apart(self, n: int) -> bool:
        """Whether each of n images has come to a square of its own: a recording cannot slice by numbers that change."""
        return self._recorded or self.ahead(n) > 1

    def __call__(self, standing: Standing, query: int) -> None:
        rows, (top, left, size) = standing.rows, map(int, self._places[query])
        window = (..., slice(top, top + size), slice(left, left + size))
        tried = rows["x_adv"].clone()
        tried[window] = (rows["x"][window] + self._eps * self._signs[query].view(1, -1, 1, 1)).clamp_(0, 1)
        standing.rows |= _tried(self._model, tried, rows)

    def rest(self, standing: Standing, query: int) -> None:
        """All squares from that one on, several at a time where few images stand: the first that helps counts.

        Each image then has come to a square of its own, and to what it would come to by one at a time. Squares behind
        one that helps only fill up a pass, and count as little as what fills up a batch.
        """
        standing.rows["query"] = torch.full_like(standing.rows["index"], query)
        while len(standing):
            ahead, before = self.ahead(len(standing)), int(standing.rows["query"].sum())
            with counted():
                for _ in range(standing.stride):
                    standing.advance(
                        ("squares", ahead), functools.partial(_squares, self._model, ahead),
                        places=self._table, signs=self._signs, eps=self._eps,
                    )  # fmt: skip
            count(Passes(int(standing.rows["query"].sum()) - before))
            standing.settle(standing.rows["query"] >= len(self._table))


def _squares(
    model: nn.Module,
    ahead: int,
    *,
    places: torch.Tensor,
    signs: torch.Tensor,
    eps: float | torch.Tensor,
    **rows: torch.Tensor,
) -> Tensors:
    """The rows after `ahead` squares of each image's own, each tried on it as it is.

    They are `places` (queries,3), top, left and size, and `signs` (queries,C), from the row `query` (n,) on.
    """
    x, query, device = rows["x"], rows["query"], rows["x"].device
    which = (query[:, None] + torch.arange(ahead, device=device)).clamp(max=len(places) - 1)  # (n,ahead)
    top, left, size = (each[:, :, None, None, None] for each in places[which].unbind(-1))
    down = torch.arange(x.shape[2], device=device).view(-1, 1)
    right = torch.arange(x.shape[3], device=device)
    inside = (down >= top) & (down < top + size) & (right >= left) & (right < left + size)
    moved = (x[:, None] + eps * signs[which][:, :, :, None, None]).clamp_(0, 1)
    tried = torch.where(inside, moved, rows["x_adv"][:, None])  # (n,ahead,C,H,W)
    with torch.no_grad():
        y = rows["y"][:, None].expand(-1, ahead)
        found = margin(logits(model, tried.flatten(0, 1)), y.flatten()).view(-1, ahead)
    helping = found > rows["best"][:, None]
    first = helping.int().argmax(1, keepdim=True)  # 0, too, where none is
    helps = helping.gather(1, first)[:, 0]
    best = torch.where(helps, found.gather(1, first)[:, 0], rows["best"])
    chosen = tried[torch.arange(len(x), device=device), first[:, 0]]
    x_adv = torch.where(helps.view(-1, 1, 1, 1), chosen, rows["x_adv"])
    query = (query + torch.where(helps, first[:, 0] + 1, ahead)).clamp(max=len(places))
    return {"x_adv": x_adv, "best": best, "query": query, **first_won(best > 0, x_adv, rows["found"], rows["won"])}


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
    return both.T if float(torch.rand(1, generator=random)) > 0.5 else both


def _tiles(x: torch.Tensor, eps: float, index: torch.Tensor, seed: int) -> torch.Tensor:
    """The l2 start: a five by five grid of bumps, each with a sign of its own."""
    random, delta = generator("cpu", seed, "tiles"), torch.zeros_like(x)
    height, width = x.shape[2:]
    size = max(height // 5, 2)
    begin = max(height - 5 * size, 0) // 2
    for i, top in enumerate(range(begin, begin + height // size * size, size)):
        for j, left in enumerate(range(begin, begin + width // size * size, size)):
            window = delta[:, :, top : top + size, left : left + size]
            if window.shape[2:] == (size, size):
                signs = draws.signs(index, (x.shape[1], 1, 1), seed, "tiles", i, j)
                window += _bump(size, random).to(x) * signs
    return (x + delta / divisors(delta) * eps).clamp_(0, 1)


class _Windows:
    """The budget of one window moves to another, where a bump is added to what is there."""

    def __init__(
        self, model: nn.Module, x: torch.Tensor, threat: Threat, seed: int, random: torch.Generator, rescaled: bool
    ) -> None:
        self._model, self._threat, self._seed, self._random, self._rescaled = model, threat, seed, random, rescaled

    def __call__(self, standing: Standing, query: int) -> None:
        rows, random, eps = standing.rows, self._random, self._threat.eps
        x = rows["x"]
        channels, height, width = x.shape[1:]
        side = (share(query, self._threat.queries, rescaled=self._rescaled) * height * width) ** 0.5
        size = max(round(side), 3)
        size = min(size + 1 - size % 2, height, width)

        def window() -> tuple[slice, slice, slice, slice]:
            down, right = torch.rand(2, generator=random).tolist()
            top, left = int(down * (height - size)), int(right * (width - size))
            return slice(None), slice(None), slice(top, top + size), slice(left, left + size)

        there, taken = window(), window()
        delta = rows["x_adv"] - x
        both = torch.zeros((1, 1, height, width), device=x.device)
        both[there] = 1
        both[taken] = 1
        whole = delta.square().flatten(1).sum(-1).view(-1, 1, 1, 1)
        union = (delta * both).square().sum((2, 3), keepdim=True)
        old = delta[there]
        signs = draws.signs(rows["index"], (channels, 1, 1), self._seed, "windows", query)
        new = _bump(size, random).to(x) * signs
        new = new + old / (old.square().sum((2, 3), keepdim=True).sqrt() + 1e-12)
        unused = (eps**2 - whole).clamp_(min=0) / channels
        new = new / (new.square().sum((2, 3), keepdim=True).sqrt() + 1e-12) * (unused + union).sqrt()
        delta[taken] = 0
        delta[there] = new
        standing.rows |= _tried(self._model, (x + delta / divisors(delta) * eps).clamp_(0, 1), rows)
