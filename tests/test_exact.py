"""Exact verdicts: what a solver decides, against enumeration, attacks, and the commands."""

from __future__ import annotations

import copy
import itertools
import sys
from typing import Any

import pytest
import torch
from conftest import Run
from torch import nn

import advmix_cli
from advmix_cli import bounds
from advmix_cli.attacks import attack_set
from advmix_cli.bounds import intervals
from advmix_cli.bounds.intervals import Ball
from advmix_cli.errors import AdvmixError
from advmix_cli.threats import Threat

exact = pytest.importorskip("advmix_cli.bounds.exact", reason="SciPy is not installed")

SIDE, CLASSES = 6, 3


class Added(nn.Module):
    """A sum of two ways, one through a ReLU, as in residual networks."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*modules)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(x)


def _network(number: int) -> nn.Sequential:
    """A tiny one of a kind: with pools before and behind a ReLU, overlapping and padded ones, and sums."""
    kinds: list[list[nn.Module]] = [
        [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 6), nn.ReLU(), nn.Linear(6, CLASSES)],
        [nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(12, CLASSES)],
        [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(), nn.Linear(8, CLASSES)],
        [nn.Conv2d(1, 2, 3, 2), Added(nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1)), nn.Flatten()],
    ]
    model = nn.Sequential(*kinds[number % len(kinds)])
    return (nn.Sequential(model, nn.ReLU(), nn.Linear(8, CLASSES)) if number % len(kinds) == 3 else model).eval()


@pytest.mark.parametrize("number", range(12))
def test_what_is_decided_is_so(number: int) -> None:
    """Just above the least margin that is found everything is decided one way, and just below the other."""
    torch.manual_seed(number)
    model, x, eps = _network(number), torch.rand(1, 1, SIDE, SIDE), 0.02 + 0.02 * (number % 5)
    with torch.no_grad():
        y = model(x).argmax(1)
    network = bounds.trace(model, x.shape[1:])
    ball = Ball(x.double(), eps)
    low, high = ball.box
    least = torch.inf
    for wrong in [each for each in range(CLASSES) if each != int(y)]:
        points = low + (high - low) * torch.rand(2000, 1, SIDE, SIDE).round()
        points = points.requires_grad_()
        for _ in range(60):
            said = network(points)
            margin = said[:, int(y)] - said[:, wrong]
            least = min(least, float(margin.detach().min()))
            (gradient,) = torch.autograd.grad(margin.sum(), points)
            points = (points - eps / 10 * gradient.sign()).clamp(low, high).detach().requires_grad_()
    with torch.no_grad():
        known = intervals.margins(network, intervals.around(network, ball), y)[0]
        search = exact.Exact(network, torch.device("cpu"))
        found = search.decide(ball, int(y), known.clamp(max=0), least + 1e-3)
        assert not found.proved
        assert found.image is not None
        assert bool((found.image >= low - 1e-6).all() and (found.image <= high + 1e-6).all())
        said = network(found.image)[0]
        others = [float(said[y] - said[each]) for each in range(CLASSES) if each != int(y)]
        assert min(others) <= least + 2e-3
        # No search of corners finds a margin much lower than the program's least.
        lower = min(others)
        assert lower <= least + 1e-5
        assert search.decide(ball, int(y), known.clamp(max=0), lower - 1e-3).proved


def test_all_corners_of_a_tiny_network_are_decided() -> None:
    """With one linear layer the least margin is at a corner: the program has it to the digit."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, CLASSES))
    x, eps = torch.rand(1, 1, 2, 2), 0.3
    with torch.no_grad():
        y = model(x).argmax(1)
        low, high = Ball(x.double(), eps).box
        corners = torch.cat(
            [torch.where(torch.tensor(c).view(1, 1, 2, 2) > 0, high, low) for c in itertools.product((0, 1), repeat=4)]
        )
        said = copy.deepcopy(model).double()(corners)
    network, at_y = bounds.trace(model, (1, 2, 2)), said[:, int(y)]
    least = min(float((at_y - said[:, each]).min()) for each in range(CLASSES) if each != int(y))
    search = exact.Exact(network, torch.device("cpu"))
    with torch.no_grad():
        for enough, proved in ((least - 1e-4, True), (least + 1e-4, False)):
            told = search.decide(Ball(x.double(), eps), int(y), torch.zeros(CLASSES), enough)
            assert told.proved == proved


def test_a_set_is_decided_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image is proved or broken, and what intervals prove is proved; without time, some are undecided."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(12, CLASSES)).eval()
    x = torch.rand(60, 1, SIDE, SIDE)
    with torch.no_grad():
        y = model(x).argmax(1)
    ibp, best, found = (bounds.certify_set(model, x, y, 0.12, bounds=kind) for kind in ("ibp", "best", "exact"))
    assert 0 < int(ibp.right.sum()) <= int(best.right.sum()) <= int(found.right.sum()) < 60
    assert bool((ibp.right <= best.right).all() and (best.right <= found.right).all())
    assert int(best.undecided.sum()) > int(found.undecided.sum()) == 0
    robust = attack_set(model, x, y, Threat.of("pgd", "linf", 0.12, steps=100, restarts=5), seed=0).robust
    assert bool((found.right <= robust).all())
    assert bool(((found.margin > 0) == found.right).all())
    standing = bounds.certify_set(model, x, y, 0.12, bounds="exact", standing=robust)
    assert torch.equal(standing.right, found.right)
    monkeypatch.setattr(exact, "SECONDS", 0.0)
    hurried = bounds.certify_set(model, x, y, 0.12, bounds="exact")
    assert torch.equal(hurried.undecided, best.undecided)
    assert torch.equal(hurried.right, best.right)


def test_what_was_known_of_a_piece_is_not_searched_again() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 8), nn.ReLU(), nn.Linear(8, CLASSES)).eval()
    x = torch.rand(300, 1, SIDE, SIDE)
    with torch.no_grad():
        y = model(x).argmax(1)
    pieces: list[dict[str, Any]] = []
    whole = bounds.certify_set(model, x, y, 0.06, bounds="exact", on_piece=pieces.append)
    assert len(pieces) > 1
    again = bounds.certify_set(model, x, y, 0.06, bounds="exact", pieces=pieces[:1])
    assert torch.equal(again.right, whole.right)
    assert torch.equal(again.undecided, whole.undecided)


def test_a_bracket_closes(certified: str, advmix: Run) -> None:
    asked = ("eval", certified, "--certify", "--bounds", "exact", "--eps", "0.05", "--limit", "40")
    told = advmix(*asked, "--json").data
    (bracket,), row = told["brackets"], told["rows"][-1]
    assert bracket["lower"] == bracket["upper"] == row["accuracy"]
    assert bracket["attacked"]
    assert row["undecided"] == 0
    assert f"the true robust accuracy is {row['accuracy']:.2f} %" in advmix(*asked).out


def test_a_network_that_is_too_large_is_said_and_the_rest_goes_on(
    certified: str, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "VALUES", 8083)
    told = advmix("eval", certified, "--certify", "--bounds", "exact", "--limit", "20", "--json")
    assert told.code == 0, told.err
    assert "no exact bounds for a network with 8,084 values" in told.data["rows"][-1]["note"]
    assert told.data["brackets"] == []


def test_exact_bounds_are_asked_for_where_there_are_some(
    trained: Any, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    l2 = advmix("eval", "a", "--certify", "--bounds", "exact", "--norm", "l2")
    assert (l2.code, "of linf alone" in l2.err) == (2, True)
    monkeypatch.setitem(sys.modules, "scipy", None)
    told = advmix("eval", "a", "--certify", "--bounds", "exact", "--json")
    assert told.errors[0]["code"] == "missing-library"
    x, y = torch.rand(4, 1, 32, 32), torch.zeros(4, dtype=torch.long)
    with pytest.raises(AdvmixError, match="needs SciPy"):
        advmix_cli.certify(advmix_cli.load("zoo:lenet5-plain"), x, y, eps=0.1, bounds="exact")
