"""Bounds hold: no point of a ball leaves them, and they are as tight as an independent implementation's."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Run, on_cpu
from torch import nn

import advmix_cli
from advmix_cli import auditing, bounds, models
from advmix_cli.bounds import intervals, linear
from advmix_cli.bounds.intervals import Ball
from advmix_cli.bounds.reading import READERS
from advmix_cli.errors import UsageError
from advmix_cli.models.normalize import Normalize
from advmix_cli.workflows.evaluation import statistics

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # of torch, about how that package is compiled
    warnings.simplefilter("ignore", DeprecationWarning)
    import bound_propagation

pytestmark = on_cpu


class Residual(nn.Module):
    """A sum of two ways, with batch norm, as residual networks have it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x)) + x)


SIDE, CLASSES = 6, 3


def _network(number: int) -> nn.Module:
    """A tiny network; of each number another, of six kinds."""
    kind = number % 6
    body: list[nn.Module] = [nn.Conv2d(1, 3, 3, stride=1 + number % 2)]
    side = (SIDE - 3) // (1 + number % 2) + 1
    if kind == 1:
        body.append(nn.MaxPool2d(2))
        side //= 2
    elif kind == 2:
        body += [nn.ReLU(), nn.AvgPool2d(2)]
        side //= 2
    elif kind == 3:
        body += [nn.BatchNorm2d(3), nn.ReLU(), Residual(3)]
    elif kind == 4:
        body += [nn.ReLU(), nn.MaxPool2d(3, 1, 1)]
    elif kind == 5:
        body += [nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
        side = 1
    model = nn.Sequential(
        Normalize((0.3,), (0.4,)), *body, nn.ReLU(), nn.Flatten(), nn.Linear(3 * side * side, 5),
        nn.ReLU(), nn.Linear(5, CLASSES),
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.2, 2)
    return model.eval()


def _points(x: torch.Tensor, eps: float, norm: str, n: int) -> torch.Tensor:
    """Points of the ball: uniform ones, and corners."""
    if norm == "linf":
        noise = torch.rand((n, *x.shape)) * 2 - 1
        noise[::2] = noise[::2].sign()
    else:
        noise = torch.randn((n, *x.shape))
        noise /= noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        noise[::4] *= torch.rand(len(noise[::4]), 1, 1, 1)
    return (x + eps * noise).clamp(0, 1)


@pytest.mark.parametrize("part", range(4))
def test_no_point_of_a_ball_leaves_its_bounds(part: int) -> None:
    """2,000 random tiny networks and balls, 500 points each: a million, corners included."""
    torch.manual_seed(part)
    tightest = 0.0
    for number in range(500):
        model, norm = _network(number), ("linf", "l2")[number // 6 % 2]
        x, y, eps = torch.rand(1, 1, SIDE, SIDE), torch.tensor([number % CLASSES]), float(torch.rand(()) * 0.3)
        network = bounds.trace(model, x.shape[1:])
        points = _points(x[0], eps, norm, 500)
        with torch.no_grad():
            said = model(points)
        margins = said[:, y] - said
        values = intervals.around(network, Ball(x, eps, norm))
        low, high = values[-1]
        assert bool(((said >= low - 1e-5) & (said <= high + 1e-5)).all())
        for kind in ("ibp", "crown") if number % 5 == 0 else ("ibp",):
            proved = bounds.margins(network, x, y, eps, norm=norm, bounds=kind)
            assert bool((margins.double() >= proved).all()), (number, norm, kind)
            tightest = max(tightest, float((proved / margins.double().amin(0)).nan_to_num(0).amax()))
    assert tightest > 0.5, "bounds that are never near what was found could be anything"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("adaptive", [True, False])
def test_linear_bounds_are_as_tight_as_an_independent_implementation(seed: int, adaptive: bool) -> None:
    torch.manual_seed(seed)
    own = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4)).double()
    image = nn.Sequential(nn.Flatten(), own)
    x, y, eps = torch.rand(3, 1, 2, 4).double(), torch.tensor([0, 1, 3]), 0.1
    ball = Ball(x, eps)
    found = linear.margins(bounds.trace(image.float(), x.shape[1:]), ball, y)
    image.double()
    factory = bound_propagation.BoundModelFactory(adaptive_relu=adaptive)
    for i in range(len(x)):
        last = own[-1]
        assert isinstance(last, nn.Linear)
        spec = torch.eye(4).double()[y[i]][None] - torch.eye(4).double()
        merged = nn.Linear(10, 4).double()
        merged.weight.data, merged.bias.data = spec @ last.weight.data, spec @ last.bias.data
        theirs = factory.build(nn.Sequential(*own[:-1], merged))
        low, high = (end[i : i + 1].flatten(1) for end in ball.box)
        oracle = theirs.crown(bound_propagation.HyperRectangle(low, high)).concretize().lower
        others = torch.arange(4) != y[i]
        assert bool((found[i, others] >= oracle[0, others] - 1e-5).all())
        ibp = theirs.ibp(bound_propagation.HyperRectangle(low, high)).lower
        ours = intervals.margins(
            bounds.trace(image.float(), x.shape[1:]), intervals.around(bounds.trace(image, x.shape[1:]), ball), y
        )
        image.double()
        torch.testing.assert_close(ours[i, others], ibp[0, others], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", range(6))
def test_with_zero_slopes_no_linear_bound_is_looser_than_intervals(kind: int) -> None:
    torch.manual_seed(kind)
    tighter = 0
    for number in range(kind, kind + 120, 6):
        model = _network(number).double()
        x, y, eps = torch.rand(4, 1, SIDE, SIDE).double(), torch.tensor([0, 1, 2, 0]), float(torch.rand(()) * 0.3)
        network, ball = bounds.trace(model, x.shape[1:]), Ball(x, eps)
        with torch.no_grad():
            ibp = intervals.margins(network, intervals.around(network, ball), y)
            for intermediate in ("ibp", "crown"):
                found = linear.margins(network, ball, y, intermediate=intermediate, slopes=["zero"])
                assert bool((found >= ibp - 1e-9).all()), (number, intermediate)
                tighter += int((found > ibp + 1e-6).sum())
    assert tighter > 0


def test_on_a_tiny_network_bounds_enclose_the_true_least_margin() -> None:
    """Of a network without a hidden layer they are exact; else no larger than the least of a fine grid."""
    torch.manual_seed(0)
    exact = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x, y, eps = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1]), 0.2
    low, high = Ball(x, eps).box
    corners = torch.stack(
        [torch.where(torch.tensor(c).view(1, 1, 2, 2) > 0, high, low) for c in itertools.product((0, 1), repeat=4)]
    )
    with torch.no_grad():
        said = exact(corners.flatten(0, 1)).view(16, 5, 3)
        least = (said.gather(2, y.view(1, 5, 1).expand(16, 5, 1)) - said).amin(0)
    for kind in ("ibp", "crown", "best"):
        proved = bounds.margins(bounds.trace(exact, (1, 2, 2)), x, y, eps, norm="linf", bounds=kind)
        torch.testing.assert_close(proved.float(), least, rtol=0, atol=1e-4)
        assert bool((proved.float() <= least).all())
    bent = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    steps = torch.linspace(0, 1, 9)
    grid = torch.stack(torch.meshgrid(*[steps] * 4, indexing="ij"), -1).view(-1, 1, 1, 2, 2)
    with torch.no_grad():
        said = bent((low + grid * (high - low)).flatten(0, 1)).view(len(grid), 5, 3)
        least = (said.gather(2, y.view(1, 5, 1).expand(len(grid), 5, 1)) - said).amin(0)
    network = bounds.trace(bent, (1, 2, 2))
    ibp, crown = (bounds.margins(network, x, y, eps, norm="linf", bounds=kind).float() for kind in ("ibp", "crown"))
    assert bool((ibp <= crown + 1e-6).all())
    assert bool((crown <= least).all())
    assert float((least - crown).mean()) < float((least - ibp).mean())


def test_in_l2_a_pixel_that_is_repeated_counts_each_time() -> None:
    """Grey repeated to three channels: the row of each output is the sum of the channels' weights."""

    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 2, 2), nn.Linear(2, 2)
            nn.init.constant_(self.conv.weight, 1.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.conv(x.expand(-1, 3, -1, -1)).flatten(1))

    model, x, eps = Repeated(), torch.full((1, 1, 2, 2), 0.5), 0.4
    _, high = intervals.around(bounds.trace(model, (1, 2, 2)), Ball(x, eps, "l2"))[2]
    with torch.no_grad():
        most = model.conv((x + eps / 2).expand(-1, 3, -1, -1))  # all four pixels, an L2 change of eps
    assert bool((high.flatten() >= most.flatten() - 1e-5).all())


@pytest.mark.parametrize("arch", models.ARCHITECTURES)
def test_every_network_that_is_built_in_has_bounds(arch: str) -> None:
    """With eps 0 they are its logits."""
    model = models.build(arch, 1)
    x = torch.rand(2, *models.info(arch).shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        said = model(x)
        low, high = intervals.around(bounds.trace(model, x.shape[1:]), Ball(x, 0.0))[-1]
    torch.testing.assert_close(low, said, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(high, said, rtol=1e-4, atol=1e-4)


class Hidden(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> Any:
        x = x.flatten(1)
        if self.kind == "sigmoid":
            return torch.sigmoid(self.linear(x))
        if self.kind == "split":
            one, other = x.chunk(2, 1)
            return self.linear(torch.cat([other, one], 1))
        if self.kind == "product":
            return self.linear(x * x)
        if self.kind == "detour":
            return self.linear(torch.tensor(x.tolist()))
        if self.kind == "batch":
            return self.linear(x - x.mean(0))
        if self.kind == "branch":
            return self.linear(x) if float(x[0, 0]) == 0 else self.linear(-x)
        if self.kind == "max":
            return torch.maximum(self.linear(x), -self.linear(x))
        if self.kind == "pair":
            return self.linear(x), x
        return x.sum(1)


@pytest.mark.parametrize("kind", ["sigmoid", "split", "product", "detour", "batch", "branch", "max", "pair", "sum"])
def test_what_has_no_bound_is_said_by_name(kind: str) -> None:
    with pytest.raises(UsageError, match="no bound for") as refused:
        bounds.trace(nn.Sequential(Hidden(kind)), (1, 4, 4))
    assert refused.value.code == "no-bound"
    if kind == "sigmoid":
        assert "sigmoid in 0" in refused.value.message


def test_a_trace_leaves_the_model_as_it_was_and_goes_on_while_it_learns() -> None:
    model = models.build("resnet18", 0).train()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    network = bounds.trace(model, (3, 32, 32))
    assert model.training
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
        x = torch.rand(2, 3, 32, 32)
        torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_set_is_certified_piece_by_piece() -> None:
    model = models.build("lenet5", 0)
    x = torch.randint(0, 256, (150, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x.float() / 255).argmax(1)
    pieces: list[dict[str, Any]] = []
    whole = bounds.certify_set(model, x, y, 1e-4, bounds="ibp", on_piece=pieces.append)
    assert 0 < int(whole.right.sum()) < 150
    assert bool((whole.right == (whole.margin > 0)).all())
    done: list[tuple[float, float]] = []
    again = bounds.certify_set(
        model, x, y, 1e-4, bounds="ibp", pieces=pieces[:1], on_work=lambda *work: done.append(work)
    )
    assert torch.equal(again.margin, whole.margin)
    first = pieces[0]["proved"].shape[1]
    assert done[0] == (3 * first, 3 * (150 - first)), "three passes an image"
    assert done[-1][1] == 0
    smaller = bounds.certify_set(model, x, y, 5e-5, bounds="ibp")
    assert bool((smaller.margin >= whole.margin).all())


def test_a_bracket_holds_what_attacks_leave(certified: str, advmix: Run) -> None:
    told = advmix("eval", certified, "--certify", "--attack", "pgd", "--eps", "0.05", "--limit", "60", "--json").data
    (bracket,), rows = told["brackets"], told["rows"]
    assert [row["bound"] for row in rows] == [None, "upper", "lower"]
    assert bracket["lower"] == rows[2]["accuracy"] > 0
    assert bracket["upper"] == rows[1]["accuracy"] >= bracket["lower"]
    assert (bracket["norm"], bracket["eps"], bracket["n"]) == ("linf", 0.05, 60)
    assert rows[2]["loss"] >= rows[1]["loss"]
    shown = advmix("eval", certified, "--certify", "--attack", "pgd", "--eps", "0.05", "--limit", "60")
    assert f"the true robust accuracy {statistics.lies(bracket)}" in shown.out
    apart = {**bracket, "lower": 88.2, "upper": 88.70}
    assert (statistics.lies(apart), statistics.lies({**apart, "lower": 88.7})) == (
        "lies between 88.20 and 88.70 %",
        "is 88.70 %",
    )
    alone = advmix("eval", certified, "--certify", "--bounds", "ibp", "--eps", "0.05", "--limit", "60")
    assert "no attack was run" in alone.out


def test_what_an_audit_leaves_of_the_same_images_closes_the_bracket(trained: Any, advmix: Run) -> None:
    asked = ("--certify", "--bounds", "ibp", "--audit", "--eps", "0.05", "--limit", "60", "--json")
    told = advmix("eval", "a", *asked).data
    (bracket,) = told["brackets"]
    assert bracket["attacked"]
    assert bracket["upper"] == told["audit"]["robust"]["accuracy"] < told["rows"][0]["accuracy"]
    assert bracket["lower"] <= bracket["upper"]


def test_an_audit_of_fewer_images_closes_no_bracket(trained: Any, advmix: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditing, "IMAGES", 20)
    told = advmix("eval", "a", "--certify", "--bounds", "ibp", "--audit", "--eps", "0.05", "--limit", "60", "--json")
    (bracket,) = told.data["brackets"]
    assert told.data["audit"]["robust"]["n"] == 20
    assert not bracket["attacked"]
    assert bracket["upper"] == told.data["rows"][0]["accuracy"]


def test_an_image_proved_and_broken_is_an_error(certified: str, advmix: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., torch.Tensor] = intervals.margins
    monkeypatch.setattr(intervals, "margins", lambda network, values, y: real(network, values, y).abs() + 9)
    told = advmix("eval", certified, "--certify", "--attack", "pgd", "--eps", "0.3", "--limit", "60", "--json")
    assert told.code == 1
    assert told.errors[0]["code"] == "unsound", told.errors


def test_a_network_without_bounds_is_said_and_the_rest_goes_on(
    certified: str, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(READERS, "conv2d", lambda call: None)
    told = advmix("eval", certified, "--certify", "--limit", "30", "--json")
    assert told.code == 0, told.err
    assert told.data["brackets"] == []
    assert told.data["rows"][-1]["accuracy"] == 0
    assert "no bound for conv2d in c1.conv" in told.data["rows"][-1]["note"]
    assert "nothing is proved" in told.err


def test_options_of_a_certificate(certified: str, advmix: Run) -> None:
    for words, code, said in (
        (("--bounds", "ibp"), 2, "add --certify"),
        (("--certify", "--bounds", "ipb"), 2, "unknown bounds"),
        (("--certify", "--eps", "3"), 2, "whole range"),
        (("--certify", "--norm", "l3"), 2, "unknown norm"),
    ):
        done = advmix("eval", certified, *words)
        assert (done.code, said in done.err) == (code, True), done.err


def test_from_python() -> None:
    model = models.build("lenet5", 0)
    x = torch.rand(20, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    found = advmix_cli.certify(model, x, y, eps=1e-4, bounds="ibp")
    assert found.figure.bound == "lower"
    assert found.figure.correct == int(found.right.sum()) > 0
    assert "a lower bound" in repr(found)
    both = advmix_cli.evaluate(model, x, y, attack="pgd", eps=1e-4, steps=2, certify=True, bounds="ibp")
    assert both.figures[-1].bound == "lower"
    assert both.figures[-1].correct <= both.figures[-2].correct
