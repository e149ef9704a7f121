"""Each way of training is its formula, written out plainly here, loss and gradients; and all continue to the byte."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import DEVICE, Run, on_cpu
from test_training import images, same, splits_of
from torch import nn

from advmix_cli import augmentation, checking, methods, models, presets, training
from advmix_cli.attacks import adversarial_batch
from advmix_cli.bounds import intervals
from advmix_cli.bounds.trace import Traced, trace
from advmix_cli.config import TrainSettings
from advmix_cli.errors import UsageError
from advmix_cli.methods import bounded
from advmix_cli.methods.averaging import Average
from advmix_cli.methods.bounded import initialise
from advmix_cli.methods.perturbing import perturbable, perturbed, statistics_kept
from advmix_cli.methods.recycling import recycle
from advmix_cli.mixing import Draw
from advmix_cli.models.normalize import Normalize
from advmix_cli.runtime import derived
from advmix_cli.ways import METHODS

CLASSES, EPS = 4, 0.2
MIXED = {name: method.mixes[-1] if method.mixes[-1] != "manifold" else "mixup" for name, method in METHODS.items()}


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, CLASSES)
    ).double()


def told(method: str, **options: Any) -> TrainSettings:
    usual: dict[str, Any] = {"epochs": 2, "batch_size": 16, "lr": 2e-3, "limit": 60, "eps": EPS, "ramp": 0.0}
    if METHODS[method].attacks:
        usual["steps"] = 2
    return presets.advtrain_settings("default", "glyphs", "lenet5", **{**usual, "method": method, **options})


X = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(0)).double()
Y = torch.tensor([0, 1, 2, 3, 0, 1])
PERM = torch.tensor([1, 2, 3, 4, 5, 0])
LAM = 0.3
INDEX = torch.arange(10, 16)


def batch(mix: str, done: float = 1.0) -> methods.Batch:
    return methods.Batch(X, Y, INDEX, 7, done, lambda: None if mix == "none" else Draw(LAM, 0, PERM))


def hot(y: torch.Tensor) -> torch.Tensor:
    return F.one_hot(y, CLASSES).double()


def mixed(x: torch.Tensor, lam: float = LAM) -> torch.Tensor:
    return lam * x + (1 - lam) * x[PERM]


def ce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def attacked(model: nn.Module, settings: TrainSettings) -> torch.Tensor:
    assert settings.adversary is not None
    return adversarial_batch(model, X, Y, settings.adversary.threat, seed=7, index=INDEX)


def worst(model: nn.Sequential, low: torch.Tensor, high: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The worst logits by intervals, layer by layer, without the package's."""
    for layer in model[:-1]:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            middle, radius = (low + high) / 2, (high - low) / 2
            wide = (
                F.conv2d(radius, layer.weight.abs()) if isinstance(layer, nn.Conv2d) else radius @ layer.weight.abs().T
            )
            low, high = layer(middle) - wide, layer(middle) + wide
        else:
            low, high = layer(low), layer(high)
    last = model[-1]
    assert isinstance(last, nn.Linear)
    found = []
    for i, label in enumerate(y):
        rows = last.weight[label] - last.weight
        shift = last.bias[label] - last.bias
        found.append(rows.clamp(min=0) @ low[i] + rows.clamp(max=0) @ high[i] + shift)
    return -torch.stack(found)


def plain(name: str, model: nn.Sequential, settings: TrainSettings, mix: str) -> torch.Tensor:
    """The loss of a way of training, as its source writes it."""
    adversary = settings.adversary
    assert adversary is not None
    option, threat = dict(adversary.options), adversary.threat
    x_adv = attacked(model, settings) if METHODS[name].attacks and name not in ("trades", "sabr") else X
    if name == "fgsm-rs":
        single = dataclasses.replace(threat, steps=1, alpha=1.25 * EPS)
        x_adv = adversarial_batch(model, X, Y, single, seed=7, index=INDEX)
    if name in ("pgd", "fgsm-rs"):
        return ce(model(mixed(x_adv)), mixed(hot(Y))) if mix == "mixup" else ce(model(x_adv), hot(Y))
    if name == "iat":
        return 0.5 * ce(model(mixed(X)), mixed(hot(Y))) + 0.5 * ce(model(mixed(x_adv)), mixed(hot(Y)))
    if name == "avmixup":
        a = augmentation.draws.uniform(INDEX, (1,), 7, "vertex").double()
        vertex = (X + 2 * (x_adv - X)).clamp(0, 1)
        between = a.view(-1, 1, 1, 1) * X + (1 - a).view(-1, 1, 1, 1) * vertex
        smooth = torch.where(hot(Y) == 1, 0.1, 0.9 / (CLASSES - 1)).double()
        targets = a * hot(Y) + (1 - a) * smooth
        return ce(model(mixed(between)), mixed(targets)) if mix == "mixup" else ce(model(between), targets)
    if name == "m-tlat":
        target = (Y + 1 + (augmentation.draws.uniform(INDEX, (1,), 7, "target")[:, 0] * (CLASSES - 1)).long()) % CLASSES
        x = mixed(X).requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(x), target, reduction="sum"), x)
        x_adv = (x.detach() - EPS * slope.sign()).clamp(0, 1)
        return ce(model(x_adv), (1 - EPS) * mixed(hot(Y)) + EPS * hot(target))
    if name == "trades":
        clean = model(X).softmax(1).detach()
        x = (X + 1e-3 * augmentation.draws.normal(INDEX, (1, 6, 6), 7, "jitter")).clamp(0, 1)
        for _ in range(threat.steps):
            x = x.detach().requires_grad_()
            kl = (clean * (clean.log() - model(x).log_softmax(1))).sum()
            (slope,) = torch.autograd.grad(kl, x)
            x = (X + (x + threat.step_size * slope.sign() - X).clamp(-EPS, EPS)).clamp(0, 1)
        p = model(X).softmax(1)
        apart = (p * (p.log() - model(x.detach()).log_softmax(1))).sum(1).mean()
        usual = ce(model(mixed(X)), mixed(hot(Y))) if mix == "mixup" else ce(model(X), hot(Y))
        return usual + option["beta"] * apart
    centre = mixed(X) if mix == "mixup" else X

    def bounded(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        def of(labels: torch.Tensor) -> torch.Tensor:
            right = worst(model, low, high, labels).softmax(1).gather(1, labels[:, None])
            return ((1 - right ** option["gce"]) / option["gce"]).mean()

        return LAM * of(Y) + (1 - LAM) * of(Y[PERM]) if mix == "mixup" else of(Y)

    targets = mixed(hot(Y)) if mix == "mixup" else hot(Y)
    if name == "ibp":
        return bounded((centre - EPS).clamp(0, 1), (centre + EPS).clamp(0, 1))
    radius = option["box"] * EPS if name == "sabr" else 0.0
    inner = dataclasses.replace(threat, eps=EPS - radius, alpha=threat.step_size * (EPS - radius) / EPS)
    x_adv = adversarial_batch(model, centre, Y, inner, seed=7, index=INDEX)
    if name == "sabr":
        return bounded((x_adv - radius).clamp(0, 1), (x_adv + radius).clamp(0, 1))
    return 0.5 * ce(model(x_adv), targets) + 0.5 * bounded((centre - EPS).clamp(0, 1), (centre + EPS).clamp(0, 1))


CASES = [(name, mix) for name, method in METHODS.items() for mix in ("none", "mixup") if mix in method.mixes]


@on_cpu
@pytest.mark.parametrize(("name", "mix"), CASES)
def test_a_way_is_its_formula(name: str, mix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = told(name, mix=mix)
    model = network()
    method = methods.chosen(model, settings, CLASSES)
    prepared = method.prepare(batch(mix))
    loss, logits, targets = method.loss(prepared.key, **prepared.inputs)
    expected = plain(name, model, settings, mix)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    parameters = list(model.parameters())
    ours, theirs = torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert logits.shape == targets.shape == (6, CLASSES)
    assert any(float(slope.abs().max()) > 1e-3 for slope in ours)


@on_cpu
def test_mixed_first_the_mixture_is_attacked() -> None:
    settings = told("pgd", mix="mixup", mix_order="mix-attack")
    assert settings.adversary is not None
    model, threat = network(), settings.adversary.threat
    method = methods.chosen(model, settings, CLASSES)
    prepared = method.prepare(batch("mixup"))
    x, t = mixed(X), mixed(hot(Y))
    noise = augmentation.draws.in_ball(INDEX, (1, 6, 6), "linf", 7, "start")
    x_adv = (x + noise * EPS).clamp(0, 1)
    for _ in range(threat.steps):
        x_adv = x_adv.detach().requires_grad_()
        (slope,) = torch.autograd.grad(6 * ce(model(x_adv), t), x_adv)
        x_adv = (x + (x_adv + threat.step_size * slope.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
    loss, _, _ = method.loss(prepared.key, **prepared.inputs)
    assert loss.item() == pytest.approx(ce(model(x_adv), t).item(), abs=1e-6)


@on_cpu
def test_bounds_grow_and_what_weighs_them() -> None:
    settings = told(
        "ibp", method_arg=["warmup=0.1", "ramp=0.5", "kappa=0.25", "tight=2", "l1=0.01", "wider=2", "gce=0"]
    )
    model = network()
    method = methods.chosen(model, settings, CLASSES)
    for done, grown in ((0.05, 0.0), (0.3, 0.5), (0.9, 1.0)):
        prepared = method.prepare(batch("none", done))
        eps = 2 * EPS * grown
        low, high = (X - eps).clamp(0, 1), (X + eps).clamp(0, 1)
        kappa = 1 - 0.75 * grown
        expected = kappa * ce(model(X), hot(Y)) + (1 - kappa) * ce(worst(model, low, high, Y), hot(Y))
        radii, at = [], (low, high)
        for layer in model[:-1]:
            if isinstance(layer, nn.ReLU):
                radii.append((at[1] - at[0]).mean())
            wide = (at[1] - at[0]) / 2
            if isinstance(layer, nn.Conv2d | nn.Linear):
                spread = (
                    F.conv2d(wide, layer.weight.abs()) if isinstance(layer, nn.Conv2d) else wide @ layer.weight.abs().T
                )
                middle = layer((at[0] + at[1]) / 2)
                at = middle - spread, middle + spread
            else:
                at = layer(at[0]), layer(at[1])
        loose = torch.stack(
            [(0.5 - (high - low).mean().clamp(min=1e-6) / r.clamp(min=1e-6)).clamp(min=0) / 0.5 for r in radii]
        )
        expected = expected + 2 * (1 - grown) * loose.mean()
        expected = expected + 0.01 * sum(p.abs().sum() for p in model.parameters() if p.ndim > 1)
        loss, _, _ = method.loss(prepared.key, **prepared.inputs)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6), done


@on_cpu
@pytest.mark.parametrize(("done", "kappa"), [(0.2, 0.5), (0.9, 0.0)])
def test_small_boxes_begin_with_the_loss_at_their_middle(done: float, kappa: float) -> None:
    settings = told("sabr", method_arg=["warmup=0", "ramp=0.4", "gce=0"])
    assert settings.adversary is not None
    model, threat = network(), settings.adversary.threat
    method = methods.chosen(model, settings, CLASSES)
    eps = EPS * (1 - kappa)
    inner = dataclasses.replace(threat, eps=0.1 * eps, alpha=threat.step_size * 0.1 * eps / EPS)
    x_adv = adversarial_batch(model, X, Y, inner, seed=7, index=INDEX)
    low, high = (x_adv - 0.9 * eps).clamp(0, 1), (x_adv + 0.9 * eps).clamp(0, 1)
    expected = kappa * ce(model(x_adv), hot(Y)) + (1 - kappa) * ce(worst(model, low, high, Y), hot(Y))
    prepared = method.prepare(batch("none", done))
    loss, _, _ = method.loss(prepared.key, **prepared.inputs)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


@on_cpu
@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_a_loss_that_hopeless_images_do_not_rule(mix: str) -> None:
    """Of each image (1 - p^q) / q, p what the worst logits give the right class; cross-entropy until eps has grown."""
    settings = told("ibp", mix=mix, method_arg=["gce=0.7", "ramp=0.5", "tight=0"])
    model = network()
    method = methods.chosen(model, settings, CLASSES)
    centre = mixed(X) if mix == "mixup" else X

    def each(labels: torch.Tensor, grown: bool) -> torch.Tensor:
        eps = EPS if grown else method.grown(0.45) * EPS
        p = worst(model, (centre - eps).clamp(0, 1), (centre + eps).clamp(0, 1), labels).softmax(1)
        right = p.gather(1, labels[:, None])[:, 0]
        return ((1 - right**0.7) / 0.7).mean() if grown else -right.log().mean()

    for done, grown in ((0.45, False), (0.9, True)):
        prepared = method.prepare(batch(mix, done))
        loss, _, _ = method.loss(prepared.key, **prepared.inputs)
        bounded = each(Y, grown)
        bounded = LAM * bounded + (1 - LAM) * each(Y[PERM], grown) if mix == "mixup" else bounded
        kappa = 0.0 if grown else 1 - method.grown(0.45)
        targets = mixed(hot(Y)) if mix == "mixup" else hot(Y)
        expected = (1 - kappa) * bounded + kappa * ce(model(centre), targets)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6), done


@on_cpu
def test_what_is_loose_is_measured_from_the_normalised_images() -> None:
    """A network that normalises learns from darker images what it learns without from the lighter ones."""
    found = []
    for share in (1.0, 0.5):
        model = nn.Sequential(*([Normalize([0.0], [share]).double()] if share < 1 else []), *network())
        settings = told("ibp", eps=EPS * share, method_arg=["tight=3", "ramp=1", "warmup=0"])
        method = methods.chosen(model, settings, CLASSES)
        prepared = method.prepare(
            dataclasses.replace(batch("none", 0.5), x=(0.3 + 0.3 * X) * share)
        )  # nothing is clipped
        found.append(method.loss(prepared.key, **prepared.inputs)[0].item())
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def trained(settings: TrainSettings, **more: Any) -> training.Trained:
    splits = splits_of(images(60), images(30, split="test"), settings)
    return training.train(models.build("lenet5", 0).to(DEVICE), splits, settings, **more)


BESIDE: dict[str, dict[str, Any]] = {
    **{name: {"method": name, "mix": MIXED[name]} for name in METHODS},
    "mix-attack": {"method": "pgd", "mix": "mixup", "mix_order": "mix-attack"},
    "awp": {"method": "trades", "awp": 0.01},
    "ema": {"method": "pgd", "ema": 0.9},
    "idbh": {"method": "pgd", "augment": "idbh"},
    "cutmix": {"method": "pgd", "augment": "cutmix"},
    "recycle": {"method": "ibp", "method_arg": ["recycle=1"]},
    "crop-flip": {"method": "iat", "mix": "manifold", "augment": "crop-flip"},
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_run_continues_to_the_byte(name: str) -> None:
    settings = told(**BESIDE[name])
    states: list[bytes] = []

    def keep(row: dict[str, Any], state: Callable[[], training.State], clock: training.Clock) -> None:
        file = io.BytesIO()
        torch.save(state(), file)
        states.append(file.getvalue())

    whole = trained(settings, on_epoch=keep)
    state = torch.load(io.BytesIO(states[0]), weights_only=True)
    again = trained(settings, state=state)
    assert same(again.last, whole.last)
    assert same(again.best, whole.best)
    assert again.history == whole.history
    assert (whole.average is None) == (name != "ema")
    if whole.average is not None and again.average is not None:
        assert same(whole.average, again.average)
        assert not same(whole.average, whole.last)
    assert all(math.isfinite(row["train_loss"]) for row in whole.history)
    assert not same(whole.last, {n: t.to(DEVICE) for n, t in models.build("lenet5", 0).state_dict().items()})


@on_cpu
def test_weights_are_perturbed_up_the_gradient_in_proportion_and_come_back() -> None:
    model = network()
    before = [p.detach().clone() for p in model.parameters()]
    slopes = torch.autograd.grad(ce(model(X), hot(Y)), perturbable(model))
    with perturbed(model, slopes, 0.1):
        for weight, slope, was in zip(perturbable(model), slopes, [b for b in before if b.ndim > 1], strict=True):
            torch.testing.assert_close(weight.detach(), was + 0.1 * was.norm() / slope.norm() * slope)
        assert ce(model(X), hot(Y)) > 1.01 * ce(network()(X), hot(Y))
    assert all(torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True))
    normed = nn.Sequential(nn.BatchNorm2d(1)).train()
    with statistics_kept(normed):
        normed(X.float())
    assert float(normed[0].running_mean) == 0


@on_cpu
def test_an_average_follows() -> None:
    model = nn.Linear(2, 2)
    average = Average(model, 0.9)
    assert [average.decay(step, 1000) for step in (1, 25, 26, 1000)] == [0, 0, 27 / 36, 0.9]
    was = average.model.weight.clone()
    with torch.no_grad():
        model.weight.add_(1)
    average.follow(model, 0.75)
    torch.testing.assert_close(average.model.weight, was + 0.25)


@on_cpu
def test_certified_training_begins_with_weights_that_keep_intervals_small() -> None:
    model = models.build("convsmall", 0)
    initialise(model, 3, 1.0)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 * math.pi) / fan_in, rel=0.15)
    other = models.build("convsmall", 1)
    initialise(other, 3, 1.0)
    assert torch.equal(model[0][0].weight, other[0][0].weight)
    initialise(other, 3, 2.0)
    torch.testing.assert_close(other[0][0].weight, 2 * model[0][0].weight)
    own = models.build("convsmall", 1)
    initialise(own, 3, 0.0)
    assert torch.equal(own[0][0].weight, models.build("convsmall", 1)[0][0].weight), "as the network draws them"


def with_one_off() -> nn.Sequential:
    """Of three channels the second is always off."""
    model = network()
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = -1, -1
    return model


@on_cpu
def test_a_channel_that_is_off_begins_anew_as_another_moved_by_a_pixel() -> None:
    model = with_one_off().requires_grad_(False)
    read, before, was = trace(model, (1, 6, 6)), copy.deepcopy(model), model(X)
    bounds = intervals.margins(read, intervals.forward(read, intervals.Ball(X, EPS).box), Y)
    assert recycle(read, X, 5) == 1
    anew, onward = model[0].weight[1], model[4].weight.view(8, 3, 4)
    copies = {
        (like, move): model[0].weight[like].roll(move, (1, 2)) for like in (0, 2)
        for move in ((0, 1), (1, 0), (0, -1), (-1, 0))
    }  # fmt: skip
    ((like, _),) = (name for name, kernel in copies.items() if torch.equal(kernel, anew))
    assert float(model[0].bias[1]) == float(model[0].bias[like])
    assert not onward[:, 1].any()
    assert torch.equal(onward[:, [0, 2]], before[4].weight.view(8, 3, 4)[:, [0, 2]]), "only what comes of it is cut off"
    assert all(torch.equal(model[i].weight, before[i].weight) for i in (6,))
    torch.testing.assert_close(model(X), was, rtol=0, atol=1e-12)
    again = intervals.margins(read, intervals.forward(read, intervals.Ball(X, EPS).box), Y)
    torch.testing.assert_close(again, bounds, rtol=0, atol=1e-12)
    assert recycle(read, X, 5) == 0, "it is on now"
    other = with_one_off().requires_grad_(False)
    assert any(
        recycle(trace(other, (1, 6, 6)), X, seed) and not torch.equal(other[0].weight[1], anew) for seed in range(6, 16)
    ), "which and where to is drawn"


class _Around(nn.Module):
    """Values go through a network, and around it."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 1, 3, padding=1)).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + self.inside(x)).flatten(1)


@on_cpu
def test_channels_begin_anew_only_where_their_values_go_one_way() -> None:
    around = _Around()
    inside = around.inside
    normed = with_one_off()
    scaled = nn.Sequential(normed[0], nn.BatchNorm2d(3).double(), *normed[1:]).eval()
    small = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(108, CLASSES)).double()
    for model, first in ((around, inside[0]), (scaled, scaled[0]), (small, small[0])):
        model.requires_grad_(False)
        first.bias[:] = 2
        first.weight[1], first.bias[1] = -1, -1
        before = copy.deepcopy(model.state_dict())
        assert recycle(trace(model, (1, 6, 6)), X, 5) == 0
        assert same(model.state_dict(), before)
    alone = nn.Sequential(inside[0], nn.ReLU(), inside[2], nn.Flatten()).requires_grad_(False)
    assert recycle(trace(alone, (1, 6, 6)), X, 5) == 1, "the same without a way around, into a convolution"
    assert not inside[2].weight[:, 1].any()
    assert inside[2].weight[:, 0].all()
    silent = with_one_off().requires_grad_(False)
    silent[0].weight[:], silent[0].bias[:] = -1, -1
    assert recycle(trace(silent, (1, 6, 6)), X, 5) == 0, "there is none to be like"


@on_cpu
def test_channels_begin_anew_at_the_start_of_each_epoch_until_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(network: Traced, x: torch.Tensor, seed: int) -> int:
        asked.append(seed)
        return len(asked) - 1

    monkeypatch.setattr(bounded, "recycle", counted)
    settings = told("ibp", epochs=4, method_arg=["recycle=0.6"])
    found = trained(settings)
    assert asked == [derived(settings.seed, "epoch", epoch) for epoch in (1, 2, 3)]
    assert [row.get("recycled") for row in found.history] == [None, 1, 2, None], "the history says how many"
    asked.clear()
    trained(told("ibp"))
    assert asked == [], "nothing was said"


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The weights after each epoch, before it is judged."""
    seen: list[dict[str, torch.Tensor]] = []
    real = training._Run.learn

    def noted(self: training._Run, epoch: int, on_batch: Any) -> dict[str, Any]:
        row = real(self, epoch, on_batch)
        seen.append({name: each.clone() for name, each in self.model.state_dict().items()})
        return row

    monkeypatch.setattr(training._Run, "learn", noted)
    return seen


@on_cpu
def test_overfitting_to_one_step_is_seen_and_undone(
    monkeypatch: pytest.MonkeyPatch, learned: list[dict[str, torch.Tensor]]
) -> None:
    pgd, fgsm = iter([50.0, 60.0, 20.0]), iter([60.0, 70.0, 90.0])
    monkeypatch.setattr(
        checking,
        "robust_accuracy",
        lambda model, images, settings, attack="pgd": next(fgsm if attack == "fgsm" else pgd),
    )
    found = trained(told("fgsm-rs", epochs=3))
    assert [row.get("rolled_back") for row in found.history] == [None, None, True]
    assert found.best_epoch == 2
    assert same(found.last, learned[1])
    assert not same(found.last, learned[2])


@on_cpu
def test_a_collapse_of_certified_training_is_seen_and_undone(
    monkeypatch: pytest.MonkeyPatch, learned: list[dict[str, torch.Tensor]]
) -> None:
    clean, proved = iter([80, 90, 50, 24, 45, 44]), iter([50.0, 60.0, 0.0, 0.0, 0.0, 0.0])
    real = checking.scored

    def scored(model: Any, images: Any) -> Any:
        of_test = images.split == "test"
        found = real(model, images)
        return found if of_test else dataclasses.replace(found, correct=torch.arange(100) < next(clean))

    monkeypatch.setattr(checking, "scored", scored)
    monkeypatch.setattr(checking, "certified_accuracy", lambda *given: next(proved))
    found = trained(told("ibp", epochs=6))
    back = [row.get("rolled_back") for row in found.history]
    assert back == [None, None, None, True, None, None], (
        "at less than half of the epoch before, or of the best after it"
    )
    assert found.best_epoch == 2
    assert not same(learned[4], learned[1]), "it learns on"


@on_cpu
def test_augmentations_keep_images_images() -> None:
    x = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    index = torch.arange(64)
    changed = augmentation.idbh(x, index, True, 0, 1)
    assert changed.shape == x.shape
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert bool((changed != x).flatten(1).any(1).all())
    assert torch.equal(changed[10:20], augmentation.idbh(x[10:20], index[10:20], True, 0, 1)), "an image's own"
    pasted, perm, share = augmentation.cutmix(x, index, 0, 1)
    own = (pasted == x).flatten(1).float().mean(1)
    assert bool((own >= share[:, 0] - 1e-6).all())
    assert bool(((pasted == x) | (pasted == x[perm])).all())
    assert 0.2 < float(share.mean()) < 0.8


REFUSED = {
    "iat and no mix": ({"method": "iat"}, "add --mix mixup"),
    "ibp and manifold": ({"method": "ibp", "mix": "manifold"}, "goes with --mix none or mixup"),
    "steps of none": ({"method": "ibp", "steps": 3}, "runs none"),
    "an option of another": ({"method": "trades", "method_arg": ["gamma=2"]}, "unknown option 'gamma'"),
    "no option": ({"method": "pgd", "method_arg": ["beta=2"]}, "takes no --method-arg"),
    "no value": ({"method": "trades", "method_arg": ["beta"]}, "no KEY=VALUE"),
    "no number": ({"method": "trades", "method_arg": ["beta=x"]}, "not a finite number"),
    "out of range": ({"method": "mtl-ibp", "method_arg": ["weight=2"]}, "must be from 0 to 1"),
    "unknown": ({"method": "ipb"}, "unknown method"),
    "partial and another": ({"method": "trades", "mix": "mixup", "policy": "partial-pgd"}, "does not apply"),
    "order and another": ({"method": "iat", "mix": "mixup", "mix_order": "mix-attack"}, "does not apply"),
    "order and no mix": ({"method": "pgd", "mix_order": "mix-attack"}, "use --mix mixup"),
    "cutmix and mixup": ({"method": "pgd", "mix": "mixup", "augment": "cutmix"}, "leave one of them out"),
    "cutmix and another": ({"method": "trades", "augment": "cutmix"}, "does not go with"),
    "l2 bounds": ({"method": "ibp", "norm": "l2"}, "linf alone"),
    "awp": ({"method": "pgd", "awp": 3.0}, "--awp must be"),
    "ema": ({"method": "pgd", "ema": 1.0}, "--ema must be"),
    "augment": ({"method": "pgd", "augment": "flip"}, "unknown augment"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_said(name: str) -> None:
    options, said = REFUSED[name]
    with pytest.raises(UsageError) as refused:
        presets.advtrain_settings("default", "mnist", "lenet5", **options)
    assert said in f"{refused.value.message} {refused.value.hint}"


def test_presets_are_pgds() -> None:
    with pytest.raises(UsageError, match="the preset report is PGD's"):
        presets.advtrain_settings("report", "mnist", "lenet5", method="ibp")


def test_a_method_by_command(home: Any, advmix: Run) -> None:
    line = ("advtrain", "--method", "mtl-ibp", "--dataset", "glyphs", "--limit", "200", "--epochs", "2", "--ema", "0.9",
            "--method-arg", "weight=0.25", "--steps", "1", "--name", "m")  # fmt: skip
    made = advmix(*line, "--json")
    assert made.code == 0, made.err
    assert "mtl-ibp" in made.data["checkpoint"]
    assert advmix(*line, "--json").data["cached"]
    shown = advmix("store", "show", "m", "--json").data
    assert shown["settings"]["adversary"]["options"][-2:] == [["weight", 0.25], ["wider", 1.0]]
    assert set(shown["digests"]) == {"best", "last", "ema"}
    rows = advmix("eval", "m", "m@last", "m@ema", "--limit", "20", "--json")
    assert [row["model"] for row in rows.data["rows"]] == ["m", "m@last", "m@ema"]
    advmix("advtrain", "--init", "untrained", "--dataset", "glyphs", "--limit", "200", "--epochs", "1", "--steps", "1",
           "--name", "p")  # fmt: skip
    assert advmix("eval", "p@ema").code == 3
    assert advmix("eval", "m", "p", "--limit", "20").code == 0


def test_methods_are_listed(home: Any, advmix: Run) -> None:
    told = advmix("methods", "--json").data["methods"]
    assert [each["name"] for each in told] == list(METHODS)
    assert advmix("methods", "trades").out.count("beta") == 1
    assert advmix("methods", "trade").code == 2
    assert advmix("methods", "-q").out.split() == list(METHODS)
