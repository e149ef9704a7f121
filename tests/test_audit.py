"""The audit finds planted frauds, and leaves an honest model alone."""

from __future__ import annotations

import pytest
import torch
from test_attacks import batch, lenet
from torch import nn

from advmix_cli import attacks, audit
from advmix_cli.config import Threat

__all__ = ["lenet"]

THREAT = Threat(eps=0.1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps, so that an audit takes seconds; the checks are the same."""
    monkeypatch.setattr(audit, "PUBLISHED", {k: v | {"steps": 20 if k != "square" else 300} for k, v in
                                             audit.PUBLISHED.items()})  # fmt: skip


class Saturated(nn.Module):
    """Gives probabilities of logits a hundred times too large."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = (100 * self.inner(x)).softmax(1)
        return result


class Quantised(Saturated):
    """Rounds pixels to eight levels first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner((x * 7).round() / 7)
        return result


class Resized(Saturated):
    """Resizes and pads at random, each time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = int(torch.randint(26, 33, (1,)))
        left = int(torch.randint(0, 33 - size, (1,)))
        small = nn.functional.interpolate(x, size=(size, size))
        result: torch.Tensor = self.inner(nn.functional.pad(small, (left, 32 - size - left, 0, 32 - size)))
        return result


@pytest.mark.parametrize(
    ("fraud", "found_by"),
    [
        (Saturated, "outputs are logits"),
        (Quantised, "the margin has a gradient"),
        (Resized, "the same twice"),
    ],
)
def test_planted_frauds_are_called_masked(lenet: nn.Sequential, fraud: type[nn.Module], found_by: str) -> None:
    x, y = batch(40)
    torch.manual_seed(0)
    found = audit.audit(fraud(lenet).eval(), x, y, THREAT, classes=10)
    assert found.to_dict()["verdict"] == "masked"
    assert {check.name: check.verdict for check in found.checks}[found_by] == "masked"
    assert all(check.advice for check in found.checks if check.verdict in ("suspicious", "masked"))


def test_an_honest_undefended_model_is_consistent(lenet: nn.Sequential) -> None:
    x, y = batch(64)
    stages: list[str] = []
    found = audit.audit(lenet, x, y, Threat(eps=0.3), classes=10, on_check=stages.append)
    assert found.to_dict()["verdict"] == "consistent", found.checks
    assert stages == list(audit.STAGES)
    assert found.by_eps[0] == (0.0, 100 * float((lenet(x).argmax(1) == y).double().mean()))
    assert [steps for steps, _ in found.by_steps] == list(audit.STEPS_GRID)
    loss = torch.tensor(found.landscape["loss"])
    middle = len(found.landscape["axis"]) // 2
    image, label = found.landscape["image"], y[found.landscape["image"]]
    clean = nn.functional.cross_entropy(lenet(x[image : image + 1]), label[None])
    assert float(loss[middle, middle]) == pytest.approx(float(clean.detach()), rel=1e-3, abs=1e-6)
    assert loss[-1, middle] > loss[middle, middle]


def test_transfer_that_beats_the_white_box_is_noticed(lenet: nn.Sequential) -> None:
    x, y = batch(40)
    threat = Threat(eps=0.08)
    strong = attacks.attack_set(lenet, x, y, Threat(eps=0.08, alpha=0.02, steps=40), batch_size=40, seed=0).x_adv
    hidden = audit.audit(Quantised(lenet).eval(), x, y, threat, classes=10, transferred={"other": strong})
    verdicts = {check.name: check for check in hidden.checks}
    check = verdicts["white box is no weaker than transfer from other"]
    assert check.value > 0
    same = audit.audit(lenet, x, y, threat, classes=10, transferred={"itself": strong})
    assert {c.name: c.value for c in same.checks}["white box is no weaker than transfer from itself"] == 0


@pytest.mark.parametrize(("value", "verdict"), [(0.1, "ok"), (0.3, "note"), (7, "suspicious"), (16, "masked")])
def test_verdicts_are_graded(value: float, verdict: str) -> None:
    assert audit.graded(value, 0.2, 6, 15) == verdict


def test_a_large_eps_leaves_out_what_no_pixel_can_do(lenet: nn.Sequential) -> None:
    x, y = batch(16)
    found = audit.audit(lenet, x, y, Threat(eps=0.8), classes=10)
    assert [round(eps, 3) for eps, _ in found.by_eps] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
