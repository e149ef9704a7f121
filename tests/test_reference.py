"""The standard ensemble's four parts are the authors': beside `pyautoattack`, from the same starts, image by image."""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any

import pytest
import torch
from conftest import on_cpu
from test_attacks import batch, lenet, taught
from torch import nn

from advmix_cli import attacks
from advmix_cli.attacks.apgd import apgd
from advmix_cli.attacks.fab import fab
from advmix_cli.attacks.square import square
from advmix_cli.threats import Threat

__all__ = ["lenet"]

reference = pytest.importorskip("pyautoattack", reason="the authors' implementation is not installed")
pytestmark = on_cpu

NORMS = {"linf": "Linf", "l2": "L2"}
EPS = {"lenet": {"linf": 0.08, "l2": 1.6}, "strided": {"linf": 0.12, "l2": 2.0}}
EPS_OF_SQUARE = {"lenet": {"linf": 0.12, "l2": 2.5}, "strided": {"linf": 0.15, "l2": 3.0}}


@pytest.fixture(scope="module")
def strided() -> nn.Sequential:
    """Another network: strided convolutions without pooling, and Softplus, whose gradients have no ties."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 4, 2), nn.Softplus(5), nn.Conv2d(8, 16, 4, 2), nn.Softplus(5), nn.Flatten(),
            nn.Linear(16 * 36, 10),
        )  # fmt: skip
    return taught(model, 60)


Case = tuple[str, nn.Module, torch.Tensor, torch.Tensor]


@pytest.fixture(params=["lenet", "strided"])
def case(request: pytest.FixtureRequest) -> Case:
    """A network and images that it classifies as they should be."""
    model = request.getfixturevalue(request.param)
    x, y = batch(64)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    assert int(right.sum()) > 50
    return request.param, model, x[right][:48], y[right][:48]


def noise_of(x: torch.Tensor, norm: str, seed: int) -> torch.Tensor:
    """What the authors' code draws first after that seed."""
    torch.manual_seed(seed)
    return 2 * torch.rand(x.shape) - 1 if norm == "linf" else torch.randn(x.shape)


def ranked(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Classes by their logits, (N,classes), the likeliest first."""
    with torch.no_grad():
        return model(x).sort(1, descending=True).indices


def same_images(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """To the bit; but of `strided`, whose convolutions round otherwise when some images have left, but for rounding."""
    if name == "lenet":
        assert torch.equal(ours, theirs)
    else:
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_is_theirs_to_the_bit(case: Case, norm: str, loss: str) -> None:
    name, model, x, y = case
    theirs = reference.autoattack.APGDAttack(
        model, n_iter=100, norm=NORMS[norm], eps=EPS[name][norm], loss=loss, device="cpu"
    )
    theirs.init_hyperparam(x)
    threat = Threat.of("apgd-ce" if loss == "ce" else "apgd-dlr", norm, EPS[name][norm])
    with attacks.frozen(model):
        noise = noise_of(x, norm, 5)
        torch.manual_seed(5)
        best, right, *_ = theirs.attack_single_run(x, y)
        ours, won = apgd(model, x, y, threat, noise=noise)
    assert torch.equal(won, ~right)
    assert 0 < int(won.sum()) < len(y)
    same_images(name, ours[~won], best[~won])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("turn", [0, 4, 8])
def test_targeted_apgd_is_theirs_to_the_bit(case: Case, norm: str, turn: int) -> None:
    name, model, x, y = case
    theirs = reference.autoattack.APGDAttack_targeted(
        model, n_iter=100, norm=NORMS[norm], eps=EPS[name][norm], device="cpu"
    )
    theirs.init_hyperparam(x)
    target = ranked(model, x)[:, turn + 1]
    theirs.y_target = target
    with attacks.frozen(model):
        noise = noise_of(x, norm, 7)
        torch.manual_seed(7)
        best, right, *_ = theirs.attack_single_run(x, y)
        ours, won = apgd(model, x, y, Threat.of("apgd-t", norm, EPS[name][norm]), noise=noise, target=target)
    assert torch.equal(won, ~right)
    same_images(name, ours[~won], best[~won])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("turn", [0, 3])
def test_fab_comes_as_near_as_theirs(case: Case, norm: str, turn: int) -> None:
    """Theirs finds the boundary by bisection over sorted sums, ours by Newton's method: they round otherwise.

    So an image is compared by how near to it a misclassified point was found.
    """
    name, model, x, y = case
    target = ranked(model, x)[:, turn + 1]
    theirs = reference.autoattack.FABAttack_PT(model, n_iter=100, norm=NORMS[norm], eps=EPS[name][norm], device="cpu")
    theirs.target_class = turn + 2
    found = theirs.attack_single_run(x, y, use_rand_start=False, is_targeted=True)
    delta = (found - x).flatten(1)
    far = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    far[model(found).argmax(1) == y] = torch.inf
    with attacks.frozen(model):
        for eps in far.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist():
            _, won = fab(model, x, y, Threat.of("fab-t", norm, eps), target=target)
            differ = won != (far <= eps)
            near = (far - eps).abs() / eps
            assert not (differ & (near > 0.01)).any(), near[differ]
            assert int(won.sum()) > 5


@pytest.mark.parametrize("norm", NORMS)
def test_square_leaves_as_many_as_theirs_over_seeds(case: Case, norm: str) -> None:
    """Both draw at random: the means over ten seeds differ by less than three of their standard errors."""
    name, model, x, y = case
    x, y = x[:32], y[:32]
    eps, queries = EPS_OF_SQUARE[name][norm], 400
    threat = dataclasses.replace(Threat.of("square", norm, eps), queries=queries)
    ours, theirs, rescaled = [], [], []
    for seed in range(10):
        attack: Any = reference.autoattack.SquareAttack(
            model, p_init=0.8, n_queries=queries, eps=eps, norm=NORMS[norm], seed=seed, resc_schedule=False,
            device="cpu",
        )  # fmt: skip
        with torch.no_grad():
            theirs.append(int((model(attack.perturb(x, y)).argmax(1) == y).sum()))
        with attacks.frozen(model):
            how = {"index": torch.arange(len(x)), "seed": seed}
            ours.append(int((~square(model, x, y, threat, **how)[1]).sum()))
            rescaled.append(int((~square(model, x, y, threat, **how, rescaled=True)[1]).sum()))
    apart = statistics.fmean(ours) - statistics.fmean(theirs)
    error = math.sqrt((statistics.variance(ours) + statistics.variance(theirs)) / 10)
    assert 2 < statistics.fmean(theirs) < 30
    assert abs(apart) < 3 * error, (ours, theirs)
    other = abs(statistics.fmean(rescaled) - statistics.fmean(theirs))
    assert other > 3 * error, "the rescaled schedule is another attack, and this test can tell"
