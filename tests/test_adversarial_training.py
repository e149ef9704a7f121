"""Adversarial training is the one loop with an attack in it, and both of the report's algorithms are what they are."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
import torch
from conftest import DEVICE
from test_training import images, same, splits_of

from advmix_cli import attacks, checking, mixing, models, presets, training
from advmix_cli.config import Adversary, TrainSettings
from advmix_cli.errors import UsageError
from advmix_cli.methods import base
from advmix_cli.threats import Threat


def settings(dataset: str = "glyphs", arch: str = "lenet5", **options: Any) -> TrainSettings:
    base = {"epochs": 2, "batch_size": 16, "lr": 2e-3, "limit": 60, "steps": 2, "eps": 0.2}
    return presets.advtrain_settings("default", dataset, arch, **{**base, **options})


def run(chosen: TrainSettings, **options: Any) -> training.Trained:
    splits = splits_of(images(60, chosen.dataset), images(30, chosen.dataset, "test"), chosen)
    return training.train(models.build(chosen.arch, chosen.seed).to(DEVICE), splits, chosen, **options)


def fixed(lam: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draw has this lambda."""
    real = mixing.Mixer.draw

    def draw(self: mixing.Mixer, n: int) -> mixing.Draw | None:
        drawn = real(self, n)
        return drawn and dataclasses.replace(drawn, lam=lam)

    monkeypatch.setattr(mixing.Mixer, "draw", draw)


@pytest.mark.parametrize("mix", ["none", "mixup", "manifold"])
def test_with_eps_zero_it_is_standard_training_to_the_bit(mix: str) -> None:
    adversarial = settings(mix=mix, eps=0.0)
    standard = dataclasses.replace(adversarial, adversary=None)
    assert same(run(adversarial).last, run(standard).last)
    assert not same(run(settings(mix=mix)).last, run(standard).last)


def test_partial_pgd_with_lambda_one_is_plain_adversarial_training(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run(settings(mix="none"))
    fixed(1.0, monkeypatch)
    assert same(run(settings(mix="mixup", policy="partial-pgd")).last, plain.last)


def test_partial_pgd_with_lambda_zero_learns_from_the_shuffled_clean_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(0.0, monkeypatch)
    partial = settings(mix="mixup", policy="partial-pgd")
    standard = dataclasses.replace(partial, adversary=None)  # with lambda 0: the shuffled clean batch
    assert same(run(partial).last, run(standard).last)
    assert not same(run(settings(mix="mixup")).last, run(standard).last)  # the shuffled attacked batch


def test_the_partner_is_clean_shuffled_and_mixed_at_the_input() -> None:
    model = models.build("lenet5")
    clean, attacked = torch.rand(2, 4, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    targets = mixing.soft_labels(torch.tensor([1, 2, 3, 4]), 10)
    draw = mixing.Draw(0.3, 0, torch.tensor([3, 2, 0, 1]))
    logits, mixed = mixing.forward_mixed(model, attacked, targets, draw, clean)
    assert torch.equal(logits, model(attacked * 0.3 + clean[draw.perm] * 0.7))
    assert torch.equal(mixed, targets * 0.3 + targets[draw.perm] * 0.7)


def test_the_policy_must_fit_the_mixing() -> None:
    for mix in ("none", "manifold"):
        with pytest.raises(UsageError, match="partial-pgd"):
            settings(mix=mix, policy="partial-pgd")


def test_sigma_zero_is_no_soft_labels_to_the_bit() -> None:
    assert same(run(settings(mix="mixup", soft_label=0.0)).last, run(settings(mix="mixup")).last)
    assert not same(run(settings(mix="mixup", soft_label=0.003)).last, run(settings(mix="mixup")).last)


def test_manifold_at_stage_zero_is_mixup() -> None:
    manifold = dataclasses.replace(settings(mix="manifold"), mix_stages=(0,))
    assert same(run(manifold).last, run(dataclasses.replace(settings(mix="mixup"), mix_alpha=2.0)).last)


def test_a_batch_is_attacked_on_hard_labels_before_it_is_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor, Threat, str]] = []
    real = base.adversarial_batch

    def spy(model: Any, x: Any, y: Any, threat: Threat, **how: Any) -> torch.Tensor:
        assert y.dtype == torch.int64
        crafted = real(model, x, y, threat, **how)
        seen.append((x.clone(), crafted.clone(), threat, how["mode"]))
        return crafted

    monkeypatch.setattr(base, "adversarial_batch", spy)
    chosen = settings(mix="mixup", soft_label=0.01)
    run(chosen)
    assert chosen.adversary is not None
    assert {mode for *_, mode in seen} == {"eval"}
    for x, crafted, threat, _ in seen:
        assert (x * 255 - (x * 255).round()).abs().max() < 1e-4  # no mixture: pixels of the set
        attacks.perturbation(x, crafted, threat)
    strengths = [threat.eps for *_, threat, _ in seen]
    assert strengths == sorted(strengths)
    assert strengths[0] < strengths[-1] == chosen.adversary.threat.eps


def test_the_ramp_grows_linearly_and_then_stands() -> None:
    adversary = Adversary(Threat(eps=0.3, alpha=0.06, steps=5), ramp=0.5)
    assert adversary.at(0.25).eps == pytest.approx(0.15)
    assert adversary.at(0.25).alpha == pytest.approx(0.03)
    assert adversary.at(0.5) == adversary.at(1.0) == adversary.threat
    assert Adversary(adversary.threat).at(1e-9) == adversary.threat


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_only_the_train_mode_touches_batch_statistics(mode: str) -> None:
    model = models.build("preactresnet18").to(DEVICE).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.rand((4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    threat = Threat(eps=8 / 255, alpha=2 / 255, steps=1)
    index = torch.arange(4, device=DEVICE)
    attacks.adversarial_batch(model, x, index, threat, seed=0, index=index, mode=mode)
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert bool(changed) == (mode == "train")
    assert all("running" in name or "num_batches" in name for name in changed)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_train_mode_attacks_happen_only_as_run() -> None:
    for preset, table in presets.ADVTRAIN.items():
        for dataset in table:
            arch = "preactresnet18" if dataset == "cifar10" else "lenet5"
            adversary = presets.advtrain_settings(preset, dataset, arch).adversary
            assert adversary is not None
            assert (adversary.mode, adversary.threat.variant) == (
                ("train", "as-run") if preset == "as-run" else ("eval", "standard")
            )
            assert adversary.judge.variant == "standard"


@pytest.mark.parametrize("stop", [1, 2])
def test_continuing_equals_not_having_stopped(stop: int) -> None:
    chosen = settings(mix="manifold", epochs=3)
    saved = io.BytesIO()

    def keep(row: dict[str, Any], state: Any, clock: Any) -> None:
        if row["epoch"] == stop:
            torch.save(state(), saved)

    whole = run(chosen, on_epoch=keep)
    saved.seek(0)
    continued = run(chosen, state=torch.load(saved, weights_only=True))
    assert same(whole.last, continued.last)
    assert (whole.history, whole.best_epoch) == (continued.history, continued.best_epoch)


def test_the_epoch_is_chosen_by_robust_validation_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = iter([20.0, 80.0, 50.0])
    monkeypatch.setattr(checking, "robust_accuracy", lambda model, images, chosen: next(planted))
    trained = run(settings(epochs=3))
    assert trained.best_epoch == 2
    assert [row["validation_robust_accuracy"] for row in trained.history] == [20, 80, 50]


@pytest.mark.parametrize(
    ("mix", "policy"), [("none", "normal"), ("mixup", "normal"), ("manifold", "normal"), ("mixup", "partial-pgd")]
)
def test_colour_images_with_every_mixing_and_policy(mix: str, policy: str) -> None:
    small = {"eps": 8 / 255, "epochs": 1, "limit": 20, "batch_size": 10, "steps": 1}
    trained = run(settings("cifar10", "preactresnet18", mix=mix, policy=policy, **small))
    assert 0 < trained.history[0]["linf_max"] <= 8 / 255 + 1e-6
