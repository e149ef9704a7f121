"""The probability margin attack, and the cascade that begins with it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from conftest import DEVICE, Run, on_cpu
from test_attacks import batch, lenet, taught
from torch import nn

from advmix_cli import attacks, draws, models
from advmix_cli.attacks import sets
from advmix_cli.attacks.common import verdicts
from advmix_cli.attacks.malt import nearest
from advmix_cli.attacks.pma import pma
from advmix_cli.bounds import certify_set
from advmix_cli.threats import ATTACKS, Part, Threat

__all__ = ["lenet"]


class HalfMasked(nn.Module):
    """Gives no gradient for dark images."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = x.flatten(1).mean(1).view(-1, 1, 1, 1) > 0.5
        result: torch.Tensor = self.net(torch.where(bright, x, x.detach()))
        return result


@pytest.fixture
def masked(lenet: nn.Sequential) -> HalfMasked:
    return HalfMasked(lenet).eval()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cascade with few steps."""
    parts = (
        Part("pma", {"steps": 1}),
        Part("malt", {"steps": 1, "targets": 1}),
        Part("square-pgd", {"queries": 60, "steps": 2}),
        Part("square-pgd", {"queries": 40, "steps": 2, "restarts": 2}, near=0.0, masked=math.inf),
        Part("pma", {"steps": 2}, near=0.0, masked=0.987),
    )
    monkeypatch.setitem(ATTACKS, "fast", dataclasses.replace(ATTACKS["fast"], parts=parts, standard=5))
    monkeypatch.setattr(sets, "_RAISED", 1.02)


@on_cpu
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.08), ("l2", 1.7)])
def test_pma_is_its_plain_code(lenet: nn.Sequential, norm: str, eps: float) -> None:
    x, y = batch(16)
    steps, index = 8, torch.arange(16)
    noise = draws.in_ball(index, tuple(x.shape[1:]), norm, 5, "start", 0)
    threat = Threat.of("pma", norm, eps, steps=steps)
    with attacks.frozen(lenet):
        found, won = pma(lenet, x, y, threat, noise=noise, index=index, seed=5)

    def plain(i: int) -> tuple[torch.Tensor, bool]:
        here, label = x[i : i + 1], int(y[i])
        second = draws.in_ball(index[i : i + 1], tuple(x.shape[1:]), norm, 5, "second pass")
        for turn, begin in enumerate((noise[i : i + 1], second)):
            x_adv = (here + eps * begin).clamp(0, 1)
            for t in range(steps):
                x_adv = x_adv.detach().requires_grad_()
                said = lenet(x_adv)
                if int(said.argmax()) != label:
                    return x_adv.detach(), True
                p = said.softmax(1)[0]
                right, wrong = p[label], torch.cat([p[:label], p[label + 1 :]]).max()
                climbed = wrong - right if t >= steps // 2 else wrong if turn else -right
                (slope,) = torch.autograd.grad(climbed, x_adv)
                size = eps * (1 + math.cos(math.pi * t / steps))
                step = slope.sign() if norm == "linf" else slope / slope.norm()
                change = x_adv + size * step - here
                change = (
                    change.clamp(-eps, eps) if norm == "linf" else change * min(1, eps / float(change.detach().norm()))
                )
                x_adv = (here + change).clamp(0, 1).detach()
        return x_adv, False

    expected = [plain(i) for i in range(16)]
    assert torch.allclose(found, torch.cat([each for each, _ in expected]), atol=2e-5)
    assert won.tolist() == [over for _, over in expected]
    assert 0 < won.sum() < 16


def test_the_second_pass_begins_elsewhere_and_climbs_another_term(
    lenet: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advmix_cli.attacks import pma as module

    terms: list[str] = []
    real = module.probability_margin

    def told(y: torch.Tensor, term: str) -> attacks.common.Loss:
        terms.append(term)
        return real(y, term)

    monkeypatch.setattr(module, "probability_margin", told)
    x, _ = batch(4)
    attacks.attack(lenet, x, lenet(x).argmax(1), Threat.of("pma", "linf", 1e-6, steps=5))
    assert terms[:: max(len(terms) // 10, 1)] == ["right"] * 2 + ["both"] * 3 + ["wrong"] * 2 + ["both"] * 3


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_malt_tries_the_classes_first_that_a_linear_network_would_reach_first(lenet: nn.Sequential, norm: str) -> None:
    x, _ = batch(6)
    y = lenet(x).argmax(1)
    with attacks.frozen(lenet):
        found = nearest(lenet, x, y, lenet(x), norm, 100)
        few = nearest(lenet, x, y, lenet(x), norm, 4)
    for i in range(6):
        here = x[i : i + 1].clone().requires_grad_()
        z, distance = lenet(here)[0], {}
        for target in set(range(10)) - {int(y[i])}:
            gap = z[y[i]] - z[target]
            (slope,) = torch.autograd.grad(gap, here, retain_graph=True)
            distance[target] = float((gap / (slope.abs().sum() if norm == "linf" else slope.norm())).detach())
        assert found[i].tolist() == sorted(distance, key=distance.__getitem__)
        likeliest = sorted(distance, key=lambda target: -float(z[target].detach()))[:4]
        assert few[i].tolist() == sorted(likeliest, key=distance.__getitem__)


def test_malt_drives_to_the_nearest(lenet: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    from advmix_cli.attacks import run

    x, _ = batch(5)
    y = lenet(x).argmax(1)
    threat = Threat.of("malt", "linf", 1e-7, steps=2, targets=3)
    driven: list[torch.Tensor] = []
    real = run._Tries.go
    monkeypatch.setattr(run._Tries, "go", lambda self, turn, target: (driven.append(target), real(self, turn, target)))
    found = attacks.attack(lenet, x, y, threat)
    with attacks.frozen(lenet):
        order = nearest(lenet, x, y, lenet(x), "linf", 100)
    assert torch.equal(torch.stack(driven, 1), order[:, :3])
    assert found.passes.backward <= 5 * threat.passes[1]
    assert found.passes.backward == 5 * (9 + 3 * (threat.steps + 1))


def test_the_cascade_as_declared() -> None:
    fast = Threat.of("fast", "linf", 0.1)
    assert fast.standard == len(fast.parts) == len({part.label for part in fast.parts})
    assert all(part.early_stop for part in fast.parts)
    whole, standing = Threat.of("autoattack", "linf", 0.1), ATTACKS["fast"].parts
    for_all = [part.near is None for part in standing]
    assert for_all == [True, False, True, False, False, False, False]
    cheap = sum(sum(part.passes) for part in fast.parts[:3])
    assert sum(whole.passes) >= 8 * cheap
    assert "standard" not in str(fast)


@on_cpu
@pytest.mark.parametrize("doubled", [2.0, 1.02])
def test_parts_for_those_whose_loss_the_search_raised(
    masked: HalfMasked, short: None, doubled: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it raised the loss by as much as is taken for surely hidden, whatever is left of the lead."""
    monkeypatch.setattr(sets, "_DOUBLED", doubled)
    x, y = batch(60)
    y = masked(x).argmax(1)
    threat = Threat.of("fast", "linf", 0.002)
    samples: dict[str, list[int]] = {}

    def kept(piece: sets.Piece) -> None:
        if piece["part"] != "clean":
            samples.setdefault(piece["part"], []).extend(piece["samples"].tolist())

    found = attacks.attack_set(masked, x, y, threat, seed=0, on_piece=kept)
    after = list(found.after.values())
    labels = list(found.after)
    raised = after[2].right & (after[2].losses > 1.02 * after[1].losses)
    assert sorted(samples[labels[2]]) == after[1].right.nonzero().squeeze(1).tolist()
    assert sorted(samples[labels[3]]) == raised.nonzero().squeeze(1).tolist()
    assert 0 < int(raised.sum()) < int(after[2].right.sum())
    near = raised & after[3].right & (after[3].leads < 0.987 * verdicts(masked(x), y).leads)
    assert 0 < int(near.sum()) < int((raised & after[3].right).sum())
    taken = near if doubled == 2 else raised & after[3].right
    assert sorted(samples[labels[4]]) == taken.nonzero().squeeze(1).tolist()


@on_cpu
def test_some_parts_are_for_those_of_whose_lead_little_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    net = taught(models.build("lenet5", 3).train(), 10)  # it leads by little from the beginning
    parts = Part("pma", {"steps": 2}), Part("malt", {"steps": 2}, near=0.5), Part("pma", {"steps": 4}, near=0.5)
    monkeypatch.setitem(ATTACKS, "fast", dataclasses.replace(ATTACKS["fast"], parts=parts, standard=3))
    x, _ = batch(60)
    y = net(x).argmax(1)
    samples: dict[str, list[int]] = {}

    def kept(piece: sets.Piece) -> None:
        if piece["part"] != "clean":
            samples.setdefault(piece["part"], []).extend(piece["samples"].tolist())

    found = attacks.attack_set(net, x, y, Threat.of("fast", "linf", 0.04), seed=0, on_piece=kept)
    before = verdicts(net(x), y).leads
    labels, after = list(found.after), list(found.after.values())
    for part in (1, 2):
        near = after[part - 1].right & (after[part - 1].leads < 0.5 * before)
        assert sorted(samples[labels[part]]) == near.nonzero().squeeze(1).tolist()
        assert 0 < int(near.sum()) < int(after[part - 1].right.sum())


def test_a_lead_is_what_the_right_class_has_more_and_the_least_of_all_tries(lenet: nn.Sequential) -> None:
    x, _ = batch(12)
    y = lenet(x).argmax(1)
    said = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.7, 0.2]])
    assert torch.allclose(verdicts(said, torch.tensor([0, 2])).leads, torch.tensor([0.2, -0.5]))
    threat = Threat.of("pgd", "linf", 0.01, steps=2, restarts=3)
    found = attacks.attack(lenet, x, y, threat, seed=4)
    tries = [attacks.attack(lenet, x, y, dataclasses.replace(threat, restarts=n), seed=4).leads for n in (1, 2, 3)]
    assert torch.equal(found.leads, tries[2])
    assert bool((tries[0] >= tries[1]).all())
    assert bool((tries[1] >= tries[2]).all())
    assert bool((tries[0] > tries[2]).any())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_intervals_prove_is_not_attacked_and_stands(
    short: None, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(1024, 24), nn.ReLU(), nn.Linear(24, 10)).eval()
    x, _ = batch(60)
    y = net(x).argmax(1)
    threat = Threat.of("fast", norm, {"linf": 1e-3, "l2": 0.05}[norm])
    met: set[int] = set()
    found = attacks.attack_set(net, x, y, threat, seed=0, on_piece=lambda piece: met.update(
        piece["samples"].tolist() if piece["part"] != "clean" else ()))  # fmt: skip
    proved = certify_set(net, x, y, threat.eps, norm=norm, bounds="ibp").right
    assert torch.equal(found.proved, proved)
    assert 0 < int(proved.sum()) < 60
    assert met == set((~proved).nonzero().squeeze(1).tolist())
    assert bool(found.robust[proved].all())
    monkeypatch.setitem(ATTACKS, "fast", dataclasses.replace(ATTACKS["fast"], proof=""))
    without = attacks.attack_set(net, x, y, threat, seed=0)
    assert torch.equal(found.robust, without.robust)
    assert not bool(without.proved.any())
    took = [sum(after.passes.forward for after in run.after.values()) for run in (found, without)]
    assert 180 < took[0] < took[1]


def test_of_a_network_without_bounds_nothing_is_proved(masked: HalfMasked, short: None) -> None:
    net = nn.Sequential(masked, nn.Softsign()).eval()
    x, _ = batch(8)
    found = attacks.attack_set(net, x, net(x).argmax(1), Threat.of("fast", "linf", 1e-4), seed=0)
    assert not bool(found.proved.any())


def test_a_cascade_says_beside_its_figure_what_it_is_not(trained: Any, advmix: Run, short: None) -> None:
    told = advmix("eval", "latest", "--attack", "fast,pgd", "--steps", "2", "--eps", "0.01", "--limit", "20")
    assert told.code == 0, told.err
    assert f"fast-0.01: {ATTACKS['fast'].caution}" in told.out
    assert told.out.count("first look") == 1


@on_cpu
def test_the_search_draws_anew_in_its_second_part(
    masked: HalfMasked, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[tuple[str, int]] = []
    real = sets.attack

    def told(*args: object, seed: int, **more: object) -> attacks.Attacked:
        seeds.append((args[3].label, seed))  # type: ignore[attr-defined]
        return real(*args, seed=seed, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(sets, "attack", told)
    x, _ = batch(40)
    attacks.attack_set(masked, x, masked(x).argmax(1), Threat.of("fast", "linf", 0.002), seed=3, batch_size=40)
    assert [seed for _, seed in sorted(set(seeds), key=seeds.index)] == [3, 3, 3, 3 + sets._APART]


@on_cpu
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_cascade_does_not_depend_on_batches_or_where_it_was_stopped(
    masked: HalfMasked, short: None, norm: str
) -> None:
    x, _ = batch(40)
    y = masked(x).argmax(1)
    threat = Threat.of("fast", norm, 0.002 if norm == "linf" else 0.03)
    pieces: list[sets.Piece] = []
    whole = attacks.attack_set(masked, x, y, threat, seed=0, images=True, batch_size=40, on_piece=pieces.append)
    single = attacks.attack_set(masked, x, y, threat, seed=0, images=True, batch_size=1, pieces=pieces[:3])
    assert torch.equal(whole.x_adv, single.x_adv)
    assert [each.passes for each in whole.after.values()] == [each.passes for each in single.after.values()]
    halves: list[sets.Piece] = []
    for only in (range(20), range(20, 40)):
        half = attacks.attack_set(masked, x, y, threat, seed=0, images=True, only=only, on_piece=halves.append)
        assert half.left > 0
    joined = attacks.attack_set(masked, x, y, threat, seed=0, images=True, pieces=halves)
    assert torch.equal(whole.x_adv, joined.x_adv)
    assert torch.equal(whole.robust, joined.robust)
    assert x.device.type == DEVICE.type


@on_cpu
def test_what_a_cascade_of_other_parts_made_is_still_read(
    trained: Any, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = dataclasses.replace(
        ATTACKS["fast"], parts=(Part("pma", {"steps": 1}), Part("malt", {"steps": 1})), standard=2
    )
    line = ("--attack", "fast", "--limit", "10", "--json")
    with monkeypatch.context() as before:
        before.setitem(ATTACKS, "fast", few)
        evaluation, samples = (
            advmix("eval", "a", *line).data["evaluation"],
            advmix("attack", "a", *line).data["samples"],
        )
    for command in (("store", "show", evaluation), ("eval", "a", "--samples", samples), ("store", "verify")):
        done = advmix(*command)
        assert done.code == 0, done.err
