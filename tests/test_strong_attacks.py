"""APGD, FAB, Square and their ensemble: what must hold for every attack, and for a set attacked in parts."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
import torch
from conftest import DEVICE, on_cpu
from test_attacks import batch, lenet
from torch import nn

from advmix_cli import attacks, models
from advmix_cli.attacks.apgd import checkpoints
from advmix_cli.attacks.common import margin, objective
from advmix_cli.attacks.fab import project
from advmix_cli.attacks.run import starts
from advmix_cli.attacks.square import share
from advmix_cli.errors import UsageError
from advmix_cli.threats import Threat

__all__ = ["lenet"]

STRONG = ("apgd-ce", "apgd-dlr", "apgd-t", "malt", "pma", "fab-t", "square", "square-pgd")
_LONGER = {"square": {"queries": 300}, "square-pgd": {"queries": 100}}


def strong(attack: str, norm: str = "linf", eps: float = 0.1, **more: Any) -> Threat:
    few = {"queries": 60} if attack.startswith("square") else {"steps": 8}
    usual = Threat.of(attack, norm, eps, **few)
    return dataclasses.replace(usual, **{"targets": min(usual.targets, 3), **more})


def run(model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat) -> tuple[torch.Tensor, torch.Tensor]:
    found = attacks.attack(model, x, y, threat)
    return found.x_adv, found.success


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", STRONG)
def test_budget_range_input_and_seed(lenet: nn.Sequential, attack: str, norm: str) -> None:
    x, y = batch(24)
    threat, before = strong(attack, norm, 0.15 if norm == "linf" else 4.0, **_LONGER.get(attack, {})), x.clone()
    x_adv, success = run(lenet, x, y, threat)
    length = (x_adv - x).abs().max() if norm == "linf" else (x_adv - x).double().flatten(1).norm(dim=1).max()
    assert length <= threat.eps + 1e-6
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    assert torch.equal(x, before)
    assert torch.equal(success, lenet(x_adv).argmax(1) != y)
    assert success.any()
    again, _ = run(lenet, x, y, threat)
    assert torch.equal(x_adv, again)
    if attack != "fab-t":  # which starts at the image itself
        assert not torch.equal(x_adv, attacks.attack(lenet, x, y, threat, seed=1).x_adv)


@on_cpu
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", STRONG)
def test_a_batch_is_attacked_like_its_samples_one_by_one(lenet: nn.Sequential, attack: str, norm: str) -> None:
    x, y = batch(20)
    few = {"queries": 40} if attack.startswith("square") else {"steps": 4}
    threat = strong(attack, norm, 0.06 if norm == "linf" else 1.0, **few)
    together = attacks.attack_set(lenet, x, y, threat, batch_size=20, seed=3, images=True)
    single = attacks.attack_set(lenet, x, y, threat, batch_size=1, seed=3, images=True)
    assert torch.equal(together.robust, single.robust)
    assert torch.equal(together.x_adv, single.x_adv)
    assert [after.passes for after in together.after.values()] == [after.passes for after in single.after.values()]


class Counting(nn.Module):
    """Counts the images that go through a network, and the gradients that come back."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.forwards, self.backwards = net, 0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += len(x)
        if x.requires_grad:
            x.register_hook(self._back)
        result: torch.Tensor = self.net(x)
        return result

    def _back(self, slope: torch.Tensor) -> None:
        self.backwards += len(slope)


@on_cpu
@pytest.mark.parametrize("attack", ["pgd", *STRONG])
def test_what_an_attack_took_is_what_the_network_saw(
    lenet: nn.Sequential, attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advmix_cli.attacks.common.fewest", lambda model: 0)  # no rows beside those that are attacked
    monkeypatch.setattr("advmix_cli.attacks.square._ON_CPU", 0)  # and no squares behind one that helps
    x, y = batch(24)
    counting = Counting(lenet)
    threat = strong(attack, eps=0.15, early_stop=True, **_LONGER.get(attack, {}))
    found = attacks.attack(counting, x, y, threat)
    assert found.success.any()
    assert (counting.forwards, counting.backwards) == dataclasses.astuple(found.passes)
    assert 24 < counting.forwards < 24 * threat.passes[0], "who has fallen takes no more"


def test_square_asks_for_no_gradient() -> None:
    class Refuses(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
            raise AssertionError("a gradient was asked for")

    class Opaque(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = models.build("lenet5", 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not torch.is_grad_enabled()
            result: torch.Tensor = Refuses.apply(self.inner(x))
            return result

    model = Opaque().to(DEVICE).eval()
    x, y = batch(8)
    for norm in ("linf", "l2"):
        run(model, x, y, strong("square", norm))
    with pytest.raises(AssertionError):
        run(model, x, y, strong("apgd-ce"))


def short_ensemble(monkeypatch: pytest.MonkeyPatch, parts: tuple[Threat, ...]) -> None:
    monkeypatch.setattr(Threat, "parts", property(lambda self: parts if self.attack == "autoattack" else (self,)))


def test_the_ensemble_is_its_parts_on_what_stands(lenet: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = batch(40)
    ensemble = Threat.of("autoattack", "linf", 0.06)
    assert [part.attack for part in ensemble.parts] == ["apgd-ce", "apgd-t", "fab-t", "square", "square-pgd"]
    assert [(part.steps, part.queries, part.tries) for part in ensemble.parts] == [
        (100, 0, 1), (100, 0, 9), (100, 0, 9), (0, 5000, 1), (40, 2000, 6)
    ]  # fmt: skip
    assert [part.random_start for part in ensemble.parts] == [True, True, False, True, True]
    assert {part.loss for part in ensemble.parts[1:2]} == {"dlr"}
    assert ensemble.standard == 4
    parts = tuple(strong(part.attack, eps=0.06, **_LONGER.get(part.attack, {})) for part in ensemble.parts)
    short_ensemble(monkeypatch, parts)
    whole = attacks.attack_set(lenet, x, y, ensemble, batch_size=16, seed=0, images=True)
    robust = whole.clean.clone()
    assert list(whole.after) == [part.label for part in parts]
    for part, after in zip(parts, whole.after.values(), strict=True):
        robust &= attacks.attack_set(lenet, x, y, part, batch_size=16, seed=0).robust
        assert torch.equal(robust, after.right)
    assert torch.equal(whole.robust, robust)
    fell = whole.clean & ~whole.robust
    assert fell.any()
    assert whole.x_adv is not None
    assert (lenet(whole.x_adv.to(DEVICE)[fell]).argmax(1) != y[fell]).all()


@on_cpu
@pytest.mark.parametrize("stop_after", [1, 2, 4, 7])
@pytest.mark.parametrize("sizes", [(8, 30), (30, 3), (None, 5)])
def test_a_stopped_attack_continues_to_the_same_result_with_any_batches(
    lenet: nn.Sequential, stop_after: int, sizes: tuple[int | None, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = batch(40)
    parts = tuple(strong(attack, eps=0.05) for attack in ("apgd-ce", "fab-t", "square"))
    short_ensemble(monkeypatch, parts)
    threat = Threat.of("autoattack", "linf", 0.05)
    pieces: list[dict[str, Any]] = []

    class Stopped(Exception):
        pass

    def stop(piece: dict[str, Any]) -> None:
        pieces.append({name: value.clone() if torch.is_tensor(value) else value for name, value in piece.items()})
        if len(pieces) == stop_after:
            raise Stopped

    whole = attacks.attack_set(lenet, x, y, threat, batch_size=8, seed=0, images=True)
    with contextlib.suppress(Stopped):
        attacks.attack_set(lenet, x, y, threat, batch_size=sizes[0], seed=0, images=True, on_piece=stop)
    work: list[tuple[float, float]] = []
    again = attacks.attack_set(
        lenet,
        x,
        y,
        threat,
        batch_size=sizes[1],
        seed=0,
        images=True,
        pieces=pieces,
        on_work=lambda *told: work.append(told),
    )
    assert torch.equal(again.x_adv, whole.x_adv)
    assert again.change == whole.change
    for label, after in whole.after.items():
        assert torch.equal(again.after[label].right, after.right)
        assert torch.equal(again.after[label].losses, after.losses)
        assert again.after[label].passes == after.passes
    assert sum(done for done, _ in work) == sum(after.passes.cost for after in whole.after.values())
    assert work[-1][1] == 0


def test_a_piece_is_as_large_as_what_changed(lenet: nn.Sequential) -> None:
    x, y = batch(64)
    pieces: list[dict[str, Any]] = []
    found = attacks.attack_set(lenet, x, y, strong("apgd-ce", eps=0.05), batch_size=16, seed=0, on_piece=pieces.append)
    assert sum(len(piece["samples"]) for piece in pieces[1:]) == int(found.clean.sum())
    assert not any("x_adv" in piece for piece in pieces), "nobody asked for the images"
    (after,) = found.after.values()
    taken = zip(*(piece["passes"] for piece in pieces[1:]), strict=True)
    assert dataclasses.astuple(after.passes) == tuple(map(sum, taken))
    assert 0 < after.passes.backward < after.passes.forward
    assert all(value.numel() <= 16 for piece in pieces[1:] for value in piece.values() if torch.is_tensor(value))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_stopping_early_breaks_what_some_iterate_of_all_steps_breaks(lenet: nn.Sequential, norm: str) -> None:
    x, y = batch(48)
    threat = Threat(norm=norm, eps=0.1 if norm == "linf" else 1.2, alpha=0.02 if norm == "linf" else 0.2, steps=12)
    early = dataclasses.replace(threat, early_stop=True)
    fooled = attacks.attack(lenet, x, y, early).success
    ever = torch.zeros(len(y), dtype=torch.bool, device=DEVICE)
    for steps in range(1, threat.steps + 1):
        ever |= attacks.attack(lenet, x, y, dataclasses.replace(threat, steps=steps)).success
    noise = starts(torch.arange(len(x), device=DEVICE), x.shape[1:], threat, 0, 0)
    assert noise is not None
    start = (x + noise * threat.eps).clamp(0, 1)
    if norm == "linf":
        ever |= lenet(start).argmax(1) != y
        assert torch.equal(fooled, ever)
    assert fooled.any()
    assert not fooled.all()


@on_cpu
def test_the_same_bytes_for_any_number_of_threads(lenet: nn.Sequential) -> None:
    x, y = batch(200)
    threat = Threat(eps=0.2, alpha=0.05, steps=3)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            crafted = attacks.adversarial_batch(lenet, x, y, threat, seed=0, index=torch.arange(200))
            found.append((crafted, attacks.attack_set(lenet, x, y, threat, seed=0, images=True).x_adv))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for crafted, attacked in found[1:]:
        assert torch.equal(crafted, found[0][0])
        assert torch.equal(attacked, found[0][1])


@on_cpu
@pytest.mark.parametrize("n", [5, 16])
def test_few_images_are_the_same_bytes_for_any_number_of_threads(n: int) -> None:
    """Several threads within a layer would divide them, and round otherwise: each batch has one."""
    model, random = models.build("preactresnet18", 3), torch.Generator().manual_seed(0)
    x, y = torch.rand((n, 3, 32, 32), generator=random), torch.arange(n) % 10
    threat = Threat(eps=8 / 255, alpha=2 / 255, steps=2)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(attacks.attack_set(model, x, y, threat, seed=0, images=True).x_adv)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_losses_are_what_their_papers_say() -> None:
    logits = torch.tensor([[3.0, 1.0, 0.0, -1.0], [0.0, 5.0, 2.0, 1.0]])
    y = torch.tensor([0, 2])
    assert torch.equal(margin(logits, y), torch.tensor([-2.0, 3.0]))
    assert torch.allclose(objective("dlr", y, None)(logits), torch.tensor([-2 / 3, 3 / 4]))
    target = torch.tensor([1, 0])
    # -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2), in the order of the logits
    assert torch.allclose(objective("dlr", y, target)(logits), torch.tensor([-2 / 3.5, -2 / 4.5]))
    scaled = objective("dlr", y, None)(1000 * logits)
    assert torch.allclose(scaled, objective("dlr", y, None)(logits))


def test_checkpoints_and_shares_are_the_published_ones() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(20)[:3] == [4, 7, 9]
    assert checkpoints(1) == [1]
    assert [share(q, 10_000) for q in (0, 10, 11, 51, 201, 8001)] == [0.8, 0.8, 0.4, 0.2, 0.1, 0.8 / 2**9]
    assert share(4001, 5000) == 0.8 / 2**7, "the standard ensemble takes the points as they are"
    assert share(101, 5000, rescaled=True) == share(202, 10_000)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_projection_is_the_nearest_point_of_the_boundary(norm: str) -> None:
    """Against a bisection over how far the coordinates go, which knows nothing of slopes."""
    draws = torch.Generator().manual_seed(0)
    x = torch.rand((64, 20), generator=draws).double()
    normal = torch.randn((64, 20), generator=draws).double()
    value = torch.randn(64, generator=draws).double()
    found = project(x, normal, value, norm)
    towards = torch.where(value[:, None] > 0, -normal, normal)
    speed = towards.sign() if norm == "linf" else towards
    low, high = torch.zeros(64, 1).double(), torch.full((64, 1), 1e4).double()
    for _ in range(200):
        middle = (low + high) / 2
        moved = (x + middle * speed).clamp(0, 1)
        over = (value + (normal * (moved - x)).sum(1)).sign() != value.sign()
        low, high = torch.where(over[:, None], low, middle), torch.where(over[:, None], middle, high)
    reachable = (value + (normal * ((x + 1e4 * speed).clamp(0, 1) - x)).sum(1)).sign() != value.sign()
    assert reachable.sum() > 40
    assert torch.allclose(found[reachable], (x + high * speed).clamp(0, 1)[reachable], atol=1e-6)
    left = (value + (normal * (found - x)).sum(1))[reachable]
    assert left.abs().max() < 1e-9
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_projection_is_as_near_in_float32_whatever_the_slopes(norm: str) -> None:
    """As where gradients are masked: a few pixels have slopes, all others next to none, and many lie at 0 and 1."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn((3, 256, 1024), generator=draws).add(0.3).clamp(0, 1)
    few = torch.rand((256, 1024), generator=draws) < 0.02
    power = torch.where(few, 0, -4 - 7 * torch.rand((256, 1024), generator=draws))
    normal = torch.randn((256, 1024), generator=draws) * 10**power
    value = torch.rand((3, 256), generator=draws) * 10
    found, exact = (project(x.to(to), normal.to(to), value.to(to), norm) for to in (torch.float32, torch.float64))
    left, least = ((value + (normal.double() * (each - x.double())).sum(-1)).abs() for each in (found, exact))
    assert (least < 1e-9).float().mean() > 0.1
    assert (least > 1).float().mean() > 0.1
    assert (left - least).max() < 1e-4
    assert torch.allclose(project(x[0], normal, value[0], norm), found[0], atol=0, rtol=0), "each by itself"


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_projection_stays_finite_where_slopes_vanish(norm: str) -> None:
    """Their squares are no numbers of float32 any more, one is 1e-21 times as large as others, and some are 0."""
    x = torch.rand((4, 50), generator=torch.Generator().manual_seed(0))
    normal = torch.ones(4, 50) * torch.tensor([1.0, 1e-23, 1e-30, 0])[:, None]
    normal[0, 2:] = 1e-21
    normal[:, ::3] = 0
    found = project(x, normal, -torch.ones(4), norm)
    assert found.isfinite().all()
    assert (found[1:3] - x[1:3]).abs().sum() > 20, "there is a boundary, far away"
    assert torch.equal(found[:, ::3], x[:, ::3])
    assert torch.equal(found[3], x[3])


def test_targets_and_losses_of_pgd(lenet: nn.Sequential) -> None:
    x, y = batch(48)
    base = Threat(eps=0.12, alpha=0.03, steps=6, early_stop=True)
    for more in ({"loss": "cw"}, {"loss": "dlr"}, {"targets": 3}, {"targets": 2, "loss": "dlr"}):
        x_adv, success = run(lenet, x, y, dataclasses.replace(base, **more))
        assert torch.equal(success, lenet(x_adv).argmax(1) != y)
        assert success.any()


def test_apgd_is_stronger_than_pgd_with_as_many_steps(lenet: nn.Sequential) -> None:
    x, y = batch(128)
    eps = 0.06
    few = Threat(eps=eps, alpha=eps / 2, steps=10, early_stop=True)
    pgd = int((~run(lenet, x, y, few)[1]).sum())
    apgd = int((~run(lenet, x, y, strong("apgd-ce", eps=eps, steps=20))[1]).sum())
    assert apgd <= pgd


class FewClasses(nn.Module):
    """A network with so many outputs."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.flat, self.linear = nn.Flatten(), nn.Linear(1024, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(self.flat(x))
        return result


@pytest.mark.parametrize(("attack", "needed"), [("apgd-t", 4), ("apgd-dlr", 3), ("fab-t", 2), ("autoattack", 4)])
def test_few_classes_take_fewer_targets_or_are_refused(attack: str, needed: int) -> None:
    x, y = batch(6)
    threat = Threat.of(attack, "linf", 0.01)
    if attack != "autoattack":
        threat = dataclasses.replace(threat, steps=2)
    for classes in range(2, needed):
        with pytest.raises(UsageError, match=f"needs {needed} classes, the model has {classes}"):
            attacks.attack_set(FewClasses(classes).to(DEVICE), x, y % classes, threat, seed=0)
    if attack != "autoattack":
        attacks.attack_set(FewClasses(needed).to(DEVICE), x, y % needed, threat, seed=0)
    if threat.targets:
        with pytest.raises(UsageError, match="wrong classes"):
            attacks.attack_set(FewClasses(4).to(DEVICE), x, y % 4, dataclasses.replace(threat, targets=5), seed=0)
