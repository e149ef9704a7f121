"""Mixing and soft labels are what their papers say."""

from __future__ import annotations

import collections
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from advmix_cli import mixing, models, presets
from advmix_cli.errors import UsageError

PERM = torch.tensor([2, 0, 3, 1])


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand((4, 1, 32, 32), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def targets() -> torch.Tensor:
    return mixing.soft_labels(torch.tensor([1, 3, 5, 7]), 10)


@pytest.mark.parametrize("stage", range(5))
def test_lambda_one_is_no_mixing_and_zero_the_shuffled_batch(
    x: torch.Tensor, targets: torch.Tensor, stage: int
) -> None:
    model = models.build("lenet5")
    plain, _ = mixing.forward_mixed(model, x, targets, None)
    one, one_targets = mixing.forward_mixed(model, x, targets, mixing.Draw(1.0, stage, PERM))
    zero, zero_targets = mixing.forward_mixed(model, x, targets, mixing.Draw(0.0, stage, PERM))
    assert torch.equal(one, plain)
    assert torch.equal(one_targets, targets)
    assert torch.allclose(zero, plain[PERM], atol=1e-6)
    assert torch.equal(zero_targets, targets[PERM])


def test_stage_zero_is_mixup_of_the_images(x: torch.Tensor, targets: torch.Tensor) -> None:
    model = models.build("lenet5")
    logits, mixed = mixing.forward_mixed(model, x, targets, mixing.Draw(0.3, 0, PERM))
    assert torch.equal(logits, model(x * 0.3 + x[PERM] * 0.7))
    assert torch.equal(mixed, targets * 0.3 + targets[PERM] * 0.7)


def test_a_later_stage_mixes_what_enters_it(x: torch.Tensor, targets: torch.Tensor) -> None:
    model = models.build("lenet5")
    logits, _ = mixing.forward_mixed(model, x, targets, mixing.Draw(0.6, 2, PERM))
    hidden = model[1](model[0](x))
    assert torch.equal(logits, model[4](model[3](model[2](hidden * 0.6 + hidden[PERM] * 0.4))))


@settings(max_examples=50, deadline=None)
@given(lam=st.floats(0, 1), sigma=st.floats(0, 0.099), n=st.integers(1, 20))
def test_targets_always_sum_to_one(lam: float, sigma: float, n: int) -> None:
    random = torch.Generator().manual_seed(n)
    y = torch.randint(0, 10, (n,), generator=random)
    targets = mixing.soft_labels(y, 10, sigma)
    mixed = mixing.mix(targets, targets[torch.randperm(n, generator=random)], lam)
    assert torch.allclose(mixed.sum(1), torch.ones(n), atol=1e-6)
    assert mixed.min() >= 0


def test_sigma_is_label_smoothing_of_n_times_sigma() -> None:
    logits = torch.randn((8, 10), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = torch.arange(8)
    ours = mixing.soft_loss(logits, mixing.soft_labels(y, 10, 0.005).double(), "cross-entropy")
    assert float(ours) == pytest.approx(float(F.cross_entropy(logits, y, label_smoothing=0.05)), rel=1e-7)


def test_sigma_zero_is_one_hot_to_the_bit() -> None:
    y = torch.tensor([0, 9, 4])
    assert torch.equal(mixing.soft_labels(y, 10), F.one_hot(y, 10).float())


@pytest.mark.parametrize("sigma", [0.1, 1 / 9, 0.2, -0.01, float("nan")])
def test_a_sigma_that_leaves_the_right_class_nothing_is_refused(sigma: float) -> None:
    with pytest.raises(UsageError, match="soft-label"):
        mixing.soft_labels(torch.tensor([0]), 10, sigma)


def test_the_losses_are_what_they_are_called() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]])
    targets = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.1, 0.9]])
    p = logits.softmax(1)
    cross_entropy = -(targets * p.log()).sum(1).mean()
    binary = -(targets * p.log() + (1 - targets) * (1 - p).log()).mean()
    assert mixing.soft_loss(logits, targets, "cross-entropy") == pytest.approx(float(cross_entropy), rel=1e-6)
    assert mixing.soft_loss(logits, targets, "bce-softmax") == pytest.approx(float(binary), rel=1e-6)


@pytest.mark.parametrize(
    ("dataset", "preset", "stages"),
    [
        ("mnist", "default", {0, 1, 2, 3, 4}),
        ("mnist", "as-run", {0, 1, 2, 3, 4}),
        ("cifar10", "default", {0, 1, 2}),
        ("cifar10", "as-run", {0, 1, 2}),
        ("cifar10", "report", {0, 1, 2, 3, 4}),
    ],
)
def test_manifold_stages_are_drawn_uniformly_from_those_of_the_preset(
    dataset: str, preset: str, stages: set[int]
) -> None:
    arch = "lenet5" if dataset == "mnist" else "preactresnet18"
    chosen = presets.train_settings(preset, dataset, arch, mix="manifold")
    assert chosen.mix_alpha == 2.0
    mixer = mixing.Mixer(chosen, 1, torch.device("cpu"))
    draws = [mixer.draw(4) for _ in range(3000)]
    counts = collections.Counter(draw.stage for draw in draws if draw)
    assert set(counts) == stages
    assert all(abs(count - 3000 / len(stages)) < 120 for count in counts.values())
    lams = [draw.lam for draw in draws if draw]
    assert sum(lams) / len(lams) == pytest.approx(0.5, abs=0.02)
    variance = sum((lam - 0.5) ** 2 for lam in lams) / len(lams)
    assert variance == pytest.approx(1 / 20, abs=0.005)  # of Beta(2, 2)


def test_mixup_draws_stage_zero_and_none_draws_nothing() -> None:
    mixup = presets.train_settings("default", "mnist", "lenet5", mix="mixup")
    mixer = mixing.Mixer(mixup, 1, torch.device("cpu"))
    draws = [mixer.draw(8) for _ in range(50)]
    assert {draw.stage for draw in draws if draw} == {0}
    assert all(sorted(draw.perm.tolist()) == list(range(8)) for draw in draws if draw)
    none = dataclasses.replace(mixup, mix="none")
    assert mixing.Mixer(none, 1, torch.device("cpu")).draw(8) is None
