"""Recorded work equals the same work unrecorded: on a GPU, and on a CPU with a stand-in for the recording."""

from __future__ import annotations

import dataclasses
import gc
import os
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from advmix_cli import attacks, data, graphs, models, presets, training
from advmix_cli.config import Threat

DEVICE = torch.device(os.environ.get("ADVMIX_TEST_DEVICE", "cpu"))
THREATS = {
    "linf": Threat(eps=0.3, alpha=0.02, steps=25, random_start=False),
    "l2": Threat(norm="l2", eps=1.5, alpha=0.2, steps=20, random_start=False),
    "dlr": Threat(eps=0.2, alpha=0.02, steps=10, loss="dlr"),
    "targeted": Threat(eps=0.2, alpha=0.02, steps=10, targets=2),
    "bf16": Threat(eps=0.2, alpha=0.02, steps=20, precision="bf16"),
    "early": Threat(eps=0.2, alpha=0.01, steps=40, early_stop=True),
}


def _replayed(function: Callable[[], graphs.Tensors], device: torch.device) -> Any:
    """A recording that works anywhere: replaying computes again from the buffers and writes where it wrote before."""
    results: list[torch.Tensor] = []

    def replay() -> None:
        new = function()
        results.extend(new[len(results) :])
        for kept, each in zip(results, new, strict=True):
            kept.copy_(each)

    return results, replay


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Turn recording on or off; on a CPU with the stand-in."""

    def switch(on: bool) -> None:
        monkeypatch.setattr(graphs, "records", lambda device: on)
        if DEVICE.type == "cpu":
            monkeypatch.setattr(graphs, "_record", _replayed)
            monkeypatch.setattr(graphs, "_aside", lambda function, device: function())

    return switch


def _attacked(model: nn.Module, threat: Threat, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    x = torch.rand((32, 1, 32, 32), generator=random).to(DEVICE)
    y = torch.randint(0, 10, (32,), generator=random).to(DEVICE)
    if threat.early_stop:
        with torch.no_grad():
            y[:20] = model(x[:20]).argmax(1)  # right before the attack, the others mostly wrong
    return attacks.attack(model, x, y, threat, attacks.generators(DEVICE, seed, threat))


@pytest.mark.parametrize("name", THREATS)
def test_a_recorded_attack_is_the_attack(name: str, recording: Callable[[bool], None]) -> None:
    model, threat = models.build("lenet5", 3).to(DEVICE), THREATS[name]
    variants = [(seed, threat) for seed in range(4)]  # from the third call on recorded
    variants.append((4, dataclasses.replace(threat, eps=threat.eps / 2, alpha=threat.step_size / 3)))
    recording(False)
    expected = [_attacked(model, threat, seed) for seed, threat in variants]
    recording(True)
    found = [_attacked(model, threat, seed) for seed, threat in variants]
    for (x_adv, success), (same, verdict) in zip(expected, found, strict=True):
        assert torch.equal(success, verdict)
        if threat.early_stop:  # halved batches round otherwise
            torch.testing.assert_close(same, x_adv, rtol=0, atol=1e-5)
        else:
            assert torch.equal(same, x_adv)
    assert not torch.equal(expected[3][0], expected[4][0])


@pytest.mark.parametrize("mix", ["none", "manifold", "partial-pgd"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_recorded_training_is_the_training(
    mix: str, optimizer: str, recording: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"mix": "mixup", "policy": "partial-pgd"} if mix == "partial-pgd" else {"mix": mix}
    settings = presets.advtrain_settings(
        "default", "glyphs", "lenet5", epochs=2, batch_size=50, limit=330, steps=3, lr=1e-3, optimizer=optimizer,
        **options,
    )  # fmt: skip
    images = [data.load("glyphs", split, root=None) for split in ("train", "test")]  # type: ignore[arg-type]
    splits = training.split(*images, settings)
    splits = training.Splits(*(part.to(DEVICE) for part in (splits.train, splits.validation, splits.test)))

    def trained() -> training.Trained:
        return training.train(models.build("lenet5", 0).to(DEVICE), splits, settings)

    recording(True)
    found = trained()
    monkeypatch.setattr(graphs, "_CALLS_BEFORE", 10**9)
    expected = trained()
    assert found.history == expected.history
    assert all(torch.equal(found.last[name], expected.last[name]) for name in expected.last)
    recording(False)  # another implementation of the same optimiser
    assert trained().history[-1]["train_loss"] == pytest.approx(found.history[-1]["train_loss"], rel=0.02)


def test_what_cannot_be_recorded_is_computed_all_the_same(
    recording: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    recording(True)

    def fails(function: Callable[[], graphs.Tensors], device: torch.device) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(graphs, "_record", fails)
    double, x = graphs.Graphs(), torch.arange(3.0, device=DEVICE)
    assert all(torch.equal(double(0, lambda x: (2 * x,), x=x)[0], 2 * x) for _ in range(2))
    with pytest.warns(UserWarning, match=r"no CUDA graph, .*: operation not permitted when stream is capturing$"):
        third = double(0, lambda x: (2 * x,), x=x)
    assert torch.equal(third[0], 2 * x)
    assert torch.equal(double(0, lambda x: (2 * x,), x=x)[0], 2 * x)


def test_only_networks_that_do_the_same_each_time_are_recorded(recording: Callable[[bool], None]) -> None:
    class Own(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    recording(True)
    model = models.build("lenet5").to(DEVICE)
    kept = graphs.of(model, DEVICE)
    assert kept is not None
    assert graphs.of(model, DEVICE) is kept
    assert graphs.of(model.train(), DEVICE) is None
    assert graphs.of(nn.Sequential(model, Own()).eval(), DEVICE) is None
    assert graphs.of(nn.Sequential(model, nn.Dropout()).eval(), DEVICE) is None
    model.eval()[1][0].weight.data = model[1][0].weight.data.clone()
    assert graphs.of(model, DEVICE) not in (None, kept), "a recording reads weights where they were"
    gone = weakref.ref(model)
    _attacked(model, THREATS["linf"], 0)
    del model
    gc.collect()
    assert gone() is None


def test_results_are_the_callers_own(recording: Callable[[bool], None]) -> None:
    recording(True)
    double, x = graphs.Graphs(), torch.ones(3, device=DEVICE)
    results = [double("double", lambda x, by: (x * by,), x=x * i, by=2.0 + i)[0] for i in range(6)]
    assert [float(result[0]) for result in results] == [i * (2 + i) for i in range(6)]
