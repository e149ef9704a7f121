"""Single behaviours that a small slip would change, and that no other test would see: `mutants.py` plants the slips."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import DEVICE, on_cpu
from test_attacks import batch
from test_training import images, splits_of
from test_training import settings as train_settings
from torch import nn

from advmix_cli import (
    artifacts,
    attacks,
    checking,
    data,
    draws,
    evaluation,
    graphs,
    mixing,
    models,
    statistics,
    training,
)
from advmix_cli.attacks import AttackedSet, apgd, fab, pgd, square_pgd
from advmix_cli.attacks import run as attack_run
from advmix_cli.attacks import square as square_module
from advmix_cli.attacks.common import Change, Verdicts, margin
from advmix_cli.attacks.sets import After
from advmix_cli.attacks.square import _Squares, _stripes, _tiles, square
from advmix_cli.attacks.standing import Standing, first_won
from advmix_cli.auditing.checks import Checks
from advmix_cli.config import EvalSettings
from advmix_cli.errors import AdvmixError
from advmix_cli.evaluation import Score
from advmix_cli.models import building
from advmix_cli.passes import Passes
from advmix_cli.settings import SCHEMA
from advmix_cli.store import Store
from advmix_cli.threats import Threat
from advmix_cli.workflows import references, train
from advmix_cli.workflows.evaluation import counting, measure, table
from advmix_cli.workflows.evaluation import statistics as compared
from advmix_cli.workflows.evaluation.columns import columns
from advmix_cli.workflows.evaluation.record import Cell, Column, Evaluation, Row
from advmix_cli.workflows.references import ModelRef, SamplesRef
from advmix_cli.workflows.session import Session, Silent
from advmix_cli.workflows.unfinished import Unfinished


@pytest.fixture(scope="module")
def lenet() -> nn.Sequential:
    """A network that has learned nothing: how it computes is all that is asked here."""
    return models.build("lenet5", 3).to(DEVICE)


def right_labels(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


# Attacks


@on_cpu
@pytest.mark.parametrize("on_gpu", [False, True], ids=["looking each step", "looking each tenth"])
@pytest.mark.parametrize("early_stop", [False, True])
def test_pgd_takes_as_many_steps_as_asked(
    lenet: nn.Sequential, monkeypatch: pytest.MonkeyPatch, on_gpu: bool, early_stop: bool
) -> None:
    steps, real = [0], pgd.gradient

    def counted(*given: Any) -> Any:
        steps[0] += 1
        return real(*given)

    monkeypatch.setattr(pgd, "gradient", counted)
    monkeypatch.setattr(Standing, "on_gpu", staticmethod(lambda device: on_gpu))
    x, _ = batch(20)
    threat = Threat(eps=1e-5, alpha=1e-6, steps=13, early_stop=early_stop)
    found = attacks.attack(lenet, x, right_labels(lenet, x), threat)
    assert not found.success.any()
    assert steps[0] == 13


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["pgd", "fgsm", "apgd-ce", "apgd-t", "fab-t", "square"])
def test_an_attack_asks_only_about_images_within_its_budget(
    attack: str, norm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its start and each iterate, not the result alone; FAB searches outside the ball, but for images all the same."""
    model = models.build("lenet5", 3).to(DEVICE)
    with torch.no_grad():
        model[-1][0].bias[0] += 8  # no image is won, so that all are asked about to the end
    x, _ = batch(32)
    y, eps = torch.zeros(32, dtype=torch.long, device=DEVICE), 0.2 if norm == "linf" else 5.0
    few = {"queries": 20} if attack == "square" else {} if attack == "fgsm" else {"steps": 6}
    asked: list[torch.Tensor] = []
    monkeypatch.setattr(
        graphs, "records", lambda device: False
    )  # what a recording was asked is overwritten; 32: nothing is filled up
    model.register_forward_pre_hook(lambda model, given: asked.append(given[0].detach().clone()))
    attacks.attack(model, x, y, Threat.of(attack, norm, eps, **few))
    assert len(asked) >= 2
    for images_asked in asked:
        assert 0 <= images_asked.min() <= images_asked.max() <= 1
        delta = (images_asked - x).double().flatten(1)
        assert attack == "fab-t" or (delta.abs().max() if norm == "linf" else delta.norm(dim=1).max()) <= eps + 1e-5


def test_a_step_size_is_halved_where_a_stretch_brought_too_little() -> None:
    """Of four steps three increases are too few; so is no better best loss, but not just after it was halved."""
    halved = torch.tensor([False, False, False, True, False])
    best = torch.tensor([2.0, 2.0, 1.0, 1.0, 1.5])
    rows = {
        "halved": halved, "loss_then": torch.ones(5), "best_loss": best, "increases": torch.tensor([3.0, 4, 4, 4, 4]),
        **dict.fromkeys(("size", "x_adv", "slope"), torch.ones(5, 1, 1, 1)),
        **dict.fromkeys(("best", "best_slope"), torch.zeros(5, 1, 1, 1)),
    }  # fmt: skip
    after = apgd._looked(rows, 4)
    stuck = [True, False, True, False, False]
    assert after["halved"].tolist() == stuck
    assert after["size"].flatten().tolist() == [0.5 if each else 1 for each in stuck]
    assert after["x_adv"].flatten().tolist() == after["slope"].flatten().tolist() == [1 - each for each in stuck]
    assert after["loss_then"].tolist() == best.tolist()
    assert not after["increases"].any()


def test_fab_steps_over_a_boundary_and_back_towards_the_image() -> None:
    """On a linear network the boundary is where the linearised one is: 5 % beyond it, and 10 % of that back."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
        x[0, 0, 0, 0] = 0.7  # 0.1 in Linf from the boundary, where the first two pixels are equal
    with attacks.frozen(model):
        after = fab._step(
            model, Threat.of("fab-t", "linf", 0.2), x=x, y=y, target=1 - y, x_adv=x, found=x,
            won=torch.tensor([False]), eps=0.2,
        )  # fmt: skip
    assert after["won"].tolist() == [True]
    beyond = torch.tensor([-0.105, 0.105, 0, 0]).view_as(x)
    torch.testing.assert_close(after["found"], x + beyond)
    torch.testing.assert_close(after["x_adv"], x + 0.9 * beyond)


@pytest.mark.parametrize(("near", "share"), [(0.002, 0.002 / 0.102), (0.05, 0.1)])
def test_fab_is_drawn_to_the_image_by_at_most_a_tenth(near: float, share: float) -> None:
    """By how much nearer to the boundary it is than the image, which lies 0.1 from it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    x, x_adv, y = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.4), torch.tensor([0])
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
        x[0, 0, 0], x_adv[0, 0, 0] = torch.tensor([0.7, 0.5]), torch.tensor([0.6 + near, 0.6 - near])
    with attacks.frozen(model):
        after = fab._step(
            model, Threat.of("fab-t", "linf", 0.2), x=x, y=y, target=1 - y, x_adv=x_adv, found=x,
            won=torch.tensor([False]), eps=0.2,
        )  # fmt: skip
    ahead, ahead_of_image = x_adv.clone(), x.clone()
    ahead[0, 0, 0] += 1.05 * near * torch.tensor([-1.0, 1.0])
    ahead_of_image[0, 0, 0] += 0.105 * torch.tensor([-1.0, 1.0])
    expected = (1 - share) * ahead + share * ahead_of_image
    torch.testing.assert_close(after["found"], expected, rtol=0, atol=1e-6)


@on_cpu
def test_images_that_are_wrong_clean_are_not_attacked_where_only_the_verdict_counts(lenet: nn.Sequential) -> None:
    x, _ = batch(20)
    y, pieces = right_labels(lenet, x), list[dict[str, Any]]()
    y[::3] = (y[::3] + 1) % 10
    for early_stop, attacked in ((True, 13), (False, 20)):
        pieces.clear()
        threat = Threat(eps=1e-5, steps=1, early_stop=early_stop)
        attacks.attack_set(lenet, x, y, threat, seed=0, batch_size=8, on_piece=pieces.append)
        assert [piece["part"] for piece in pieces[:2]] == ["clean", threat.label]
        assert sum(len(piece["samples"]) for piece in pieces[1:]) == attacked


def test_what_an_attack_has_done_is_not_done_again(lenet: nn.Sequential) -> None:
    x, y = batch(20)
    threat, pieces = Threat(eps=0.1, steps=1), list[dict[str, Any]]()
    whole = attacks.attack_set(lenet, x, y, threat, seed=0, batch_size=8, on_piece=pieces.append)
    again: list[dict[str, Any]] = []
    continued = attacks.attack_set(lenet, x, y, threat, seed=0, batch_size=8, pieces=pieces[:-1], on_piece=again.append)
    assert [piece["samples"].tolist() for piece in again] == [pieces[-1]["samples"].tolist()]
    assert torch.equal(continued.robust, whole.robust)


def test_as_run_begins_at_the_clean_image(lenet: nn.Sequential) -> None:
    """Its ball lies around another, but one small step leads no further than its size."""
    x, y = batch(8)
    found = attacks.attack(lenet, x, y, Threat(eps=0.3, alpha=0.01, steps=1, variant="as-run"))
    assert 0 < found.change.linf <= 0.01 + 1e-6


def test_the_first_winning_image_is_kept() -> None:
    first, later = torch.zeros(3, 1, 1, 1), torch.ones(3, 1, 1, 1)
    won = torch.tensor([True, False, False])
    after = first_won(torch.tensor([True, True, False]), later, first, won)
    assert after["found"].flatten().tolist() == [0, 1, 0]
    assert after["won"].tolist() == [True, True, False]


@on_cpu
def test_places_that_are_refilled_leave_nobody_out(lenet: nn.Sequential) -> None:
    x, _ = batch(150)
    y, index = right_labels(lenet, x), torch.arange(150)
    threat = Threat(eps=0.005, alpha=0.001, steps=8, early_stop=True)
    whole = attacks.attack(lenet, x, y, threat, index=index)
    assert 40 < int(whole.success.sum()) < 150
    for part in index.split(60):  # fewer than there are places
        alone = attacks.attack(lenet, x[part], y[part], threat, index=part)
        assert torch.equal(alone.success, whole.success[part])
        assert torch.equal(alone.x_adv, whole.x_adv[part])


@on_cpu
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_never_ends_worse_than_it_began(lenet: nn.Sequential, norm: str) -> None:
    x, _ = batch(24)
    y, index = right_labels(lenet, x), torch.arange(24, device=DEVICE)
    threat = Threat.of("square", norm, 0.02 if norm == "linf" else 0.4, queries=40)
    begin = (_stripes if norm == "linf" else _tiles)(x, threat.eps, index, 3)
    with attacks.frozen(lenet), torch.no_grad():
        found, won = square(lenet, x, y, threat, index=index, seed=3)
        before, after = margin(lenet(begin), y), margin(lenet(found), y)
    assert (after >= before - 1e-6).all()
    assert int((after > before + 1e-5).sum()) > 12
    assert torch.equal(won, after > 0)


@on_cpu
@pytest.mark.parametrize(("n", "queries"), [(1, 90), (3, 37), (16, 60), (40, 60)])
def test_several_squares_at_a_time_come_to_what_one_at_a_time_does(
    lenet: nn.Sequential, n: int, queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, _ = batch(n)
    y, index = right_labels(lenet, x), torch.arange(n)
    passes: list[int] = []
    lenet.register_forward_pre_hook(lambda model, given: passes.append(len(given[0])))

    def found(together: int, small: int = 1 << 28) -> tuple[torch.Tensor, torch.Tensor, int]:
        monkeypatch.setattr(square_module, "_ON_CPU", together)
        monkeypatch.setattr(square_module, "_SMALL", small)
        passes.clear()
        with attacks.frozen(lenet):
            images, won = square(lenet, x, y, Threat.of("square", "linf", 0.006, queries=queries), index=index, seed=3)
        return images, won, len(passes)

    one, several = found(0), found(32)
    assert torch.equal(one[0], several[0])
    assert torch.equal(one[1], several[1])
    assert one[2] == queries + 1
    assert not one[1].all(), "some stand to the end"
    assert several[2] < 0.8 * one[2] if n <= 16 else several[2] == one[2]
    assert found(32, small=1)[2] == one[2], "a large network's images each take as long as they take"


def test_a_square_never_lies_at_the_last_place() -> None:
    """As in the authors' code."""
    x, random = torch.zeros(1, 3, 32, 32), torch.Generator().manual_seed(0)
    squares = _Squares(nn.Identity(), x, Threat.of("square", "linf", 0.1, queries=3000), 0, random, False)
    free = [(top, left, 32 - size) for top, left, size in squares._places if size < 32]
    assert all(0 <= top < limit and 0 <= left < limit for top, left, limit in free)
    assert sum(top == limit - 1 for top, _, limit in free) > 10


def test_square_and_pgd_is_a_rescaled_square_and_then_small_steps(
    lenet: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, Any] = {}
    real, climb = square_pgd.square, square_pgd.pgd

    def searched(*given: Any, **how: Any) -> Any:
        said["square"] = how
        near, won = real(*given, **how)
        said["near"] = near[~won]
        return near, won

    def climbed(model: Any, x: Any, y: Any, threat: Threat, **how: Any) -> Any:
        said["pgd"], said["n"] = threat, len(x)
        said["start"] = x + how["noise"] * threat.eps
        return climb(model, x, y, threat, **how)

    monkeypatch.setattr(square_pgd, "square", searched)
    monkeypatch.setattr(square_pgd, "pgd", climbed)
    x, _ = batch(16)
    threat = Threat.of("square-pgd", "linf", 0.003, queries=10, steps=3)
    with attacks.frozen(lenet):
        square_pgd.square_pgd(lenet, x, right_labels(lenet, x), threat, index=torch.arange(16, device=DEVICE), seed=2)
    assert said["square"]["rescaled"] is True
    assert said["square"]["seed"] != 2, "its draws are others than those of Square before it"
    assert said["pgd"].attack == "pgd"
    assert said["pgd"].step_size == pytest.approx(0.003 / 30)
    assert (said["pgd"].loss, said["pgd"].steps, said["pgd"].early_stop) == ("cw", 3, True)
    assert 8 < said["n"] == len(said["near"]) < 16
    torch.testing.assert_close(said["start"], said["near"], rtol=0, atol=1e-6)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each try of an attack is told; the attack itself does nothing, and its losses are 1, 3 and 2."""
    said: list[dict[str, Any]] = []

    def nothing(model: Any, x: torch.Tensor, y: torch.Tensor, threat: Threat, **how: Any) -> Any:
        said.append(how)
        return x + 0.001 * len(said), torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def outcome(model: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
        loss = [1.0, 3.0, 2.0][len(said) - 1]
        losses = torch.full((len(x),), loss, device=x.device)
        return Verdicts(losses, torch.zeros_like(losses, dtype=torch.bool), torch.ones_like(losses))

    monkeypatch.setattr(attack_run, "_function", lambda threat: nothing)
    monkeypatch.setattr(attack_run, "outcome", outcome)
    return said


def test_each_try_has_draws_of_its_own_and_the_worst_is_kept(lenet: nn.Sequential, turns: list[dict[str, Any]]) -> None:
    x, y = batch(4)
    x = x * 0.9
    found = attacks.attack(lenet, x, y, Threat(eps=0.1, restarts=3), seed=5)
    assert [how["seed"] for how in turns] == [5, 6, 7]
    assert not torch.equal(turns[0]["noise"], turns[1]["noise"])
    assert found.losses.tolist() == [3.0] * 4
    torch.testing.assert_close(found.x_adv, x + 0.002)


def test_targets_are_the_likeliest_wrong_classes_in_their_order(
    lenet: nn.Sequential, turns: list[dict[str, Any]]
) -> None:
    x, y = batch(12)
    attacks.attack(lenet, x * 0.9, y, Threat(eps=0.1, targets=3))
    with torch.no_grad():
        ranked = lenet(x * 0.9).argsort(1, descending=True).tolist()
    wrong = [[c for c in classes if c != label] for classes, label in zip(ranked, y.tolist(), strict=True)]
    for turn, how in enumerate(turns):
        assert how["target"].tolist() == [classes[turn] for classes in wrong]


# Draws, mixing and training


def test_samples_beyond_32_bits_have_numbers_of_their_own() -> None:
    index = torch.tensor([3, 3 + 2**32, 3 + 2**40])
    assert len(torch.unique(draws.uniform(index, (8,), 0), dim=0)) == 3


def test_how_far_a_point_lies_says_nothing_of_its_direction() -> None:
    points = draws.in_ball(torch.arange(4000), (4,), "l2", 0)
    length = points.norm(dim=1)
    directions = points.square() / length.square()[:, None]
    for some in ([0], [1], [0, 1], [0, 2], [0, 3]):
        together = torch.stack([length, directions[:, some].sum(1)])
        assert abs(float(torch.corrcoef(together)[0, 1])) < 0.06


def test_each_epoch_mixes_anew() -> None:
    chosen = dataclasses.replace(train_settings(mix="mixup"), mix_stages=(0, 1, 2))
    drawn = [mixing.Mixer(chosen, epoch, torch.device("cpu")).draw(64) for epoch in (1, 2)]
    assert drawn[0] is not None
    assert drawn[1] is not None
    assert drawn[0].lam != drawn[1].lam
    assert not torch.equal(drawn[0].perm, drawn[1].perm)


def test_of_equal_accuracies_the_lowest_loss_is_chosen_and_then_the_earliest(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = train_settings()
    run = training._Run(
        models.build("lenet5").to(DEVICE), splits_of(images(120), images(50, split="test"), chosen), chosen, False
    )
    planted = {1: (1, 1.0), 2: (1, 0.5), 3: (1, 0.5), 4: (1, 0.7), 5: (0, 0.1)}
    for epoch, (right, loss) in planted.items():
        scored = Score(torch.arange(2) < right, torch.full((2,), loss), torch.ones(2))
        monkeypatch.setattr(checking, "score", lambda model, x, y, scored=scored: scored)
        run.judge({"epoch": epoch, "train_loss": 1.0})
    assert run.best_epoch == 2


def test_a_crop_begins_anywhere_in_the_padding() -> None:
    rows = torch.arange(8.0)[:, None].expand(300, 1, 8, 8)
    found = training.augment(rows, torch.arange(300), False, 1, 0)[:, 0, 4, 4]
    assert set(found.tolist()) == {3.0, 4.0, 5.0}


def test_the_attack_of_training_grows_over_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    from test_adversarial_training import settings

    chosen = settings(epochs=2, limit=60, batch_size=16)
    assert chosen.adversary is not None
    chosen = dataclasses.replace(chosen, adversary=dataclasses.replace(chosen.adversary, ramp=1.0))
    assert chosen.adversary is not None
    seen: list[float] = []

    def noted(model: Any, x: torch.Tensor, y: Any, threat: Threat, **how: Any) -> torch.Tensor:
        seen.append(threat.eps)
        return x

    monkeypatch.setattr("advmix_cli.methods.base.adversarial_batch", noted)
    run = training._Run(
        models.build("lenet5").to(DEVICE), splits_of(images(60), images(30, split="test"), chosen), chosen, False
    )
    for epoch in (1, 2):
        run.learn(epoch, lambda epoch, n: None)
    n = len(seen)
    assert n == 2 * run.steps
    assert seen == pytest.approx([chosen.adversary.threat.eps * step / n for step in range(1, n + 1)])


# Scores and statistics


@on_cpu
def test_a_score_knows_losses_and_probabilities(lenet: nn.Sequential) -> None:
    x, y = batch(20)
    with torch.no_grad():
        said = lenet(x)
    scored = evaluation.score(lenet, x, y, batch_size=7)
    torch.testing.assert_close(scored.confidence, said.softmax(1).amax(1).cpu(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scored.losses, F.cross_entropy(said, y, reduction="none").cpu(), rtol=1e-4, atol=1e-5)


def test_bins_of_confidence_hold_what_is_in_them() -> None:
    scored = Score(torch.tensor([True, False, True, True]), torch.zeros(4), torch.tensor([1.0, 0.99, 0.5, 0.01]))
    bins = scored.reliability()
    assert [n for n, _, _ in bins] == [1, *[0] * 6, 1, *[0] * 6, 2]
    assert bins[-1] == (2, pytest.approx(0.995), 0.5)
    assert statistics.calibration_error(bins) == pytest.approx(100 * (2 * 0.495 + 0.5 + 0.99) / 4)


def test_the_deviation_is_that_of_a_sample() -> None:
    assert statistics.mean_and_deviation([1, 3]) == (2, pytest.approx(math.sqrt(2)))
    assert statistics.mean_and_deviation([7]) == (7, 0)


def cell(*right: int, **more: Any) -> Cell:
    n = len(right)
    return counting.cell(
        torch.tensor(right, dtype=torch.bool), torch.ones(n), torch.zeros(n, dtype=torch.int64), 1, **more
    )


def evaluated(rows: list[Row], cells: list[list[Cell]], met: list[Column] | None = None) -> Evaluation:
    settings = EvalSettings("glyphs", "test", None, ())
    return Evaluation("e", "k", settings, "f", rows, met or [Column("clean", "clean")], cells, {})


def test_a_difference_is_the_first_model_less_the_second() -> None:
    rows = [Row(label, {"name": label}, None) for label in ("a", "b")]
    (found,) = compared.compared(evaluated(rows, [[cell(1, 1, 1, 0)], [cell(1, 0, 0, 1)]]), [(0, 1)])
    assert (found["a"], found["b"]) == ("a", "b")
    assert (found["only_a"], found["only_b"], found["difference"]) == (2, 1, 25)
    assert (found["p"], found["noise"]) == (1.0, True)


def test_a_seed_counts_once_and_other_runs_not_at_all() -> None:
    def row(label: str, run: str, *seeds: int) -> Row:
        return Row(label, {"name": label}, {"id": run, "seeds": list(seeds)})

    rows = [row("m-s0", "one", 4, 0), row("m-s1", "one", 4, 1), row("again", "one", 4, 0), row("other", "two", 0)]
    cells = [[cell(1, 1, 1, 1)], [cell(1, 1, 0, 0)], [cell(1, 1, 1, 1)], [cell(0, 0, 0, 0)]]
    (found,) = compared.over_seeds(evaluated(rows, cells))
    assert (found["models"], found["seeds"], found["lineage_seeds"]) == (["m-s0", "m-s1"], [0, 1], [[4, 0], [4, 1]])
    assert (found["label"], found["mean"]) == ("m-s*", 75)
    assert found["deviation"] == pytest.approx(math.sqrt(1250))


def test_calibration_weighs_bins_by_their_images() -> None:
    row = Row("a", {"name": "a"}, None, [(3, 0.9, 1.0), (1, 0.5, 0.0)])
    (found,) = compared.calibrated(evaluated([row], [[cell(1)]]))
    assert (found["n"], found["confidence"], found["accuracy"]) == (4, pytest.approx(80), pytest.approx(75))
    assert found["ece"] == pytest.approx(100 * (3 * 0.1 + 0.5) / 4)


# Evaluations: columns and cells


def cache(n: int = 50, fingerprint: str = "ours") -> SamplesRef:
    record = {"fingerprint": fingerprint, "model": {"name": "m"}, "n": n, "threat": Threat().to_dict()}
    return SamplesRef(f"cache-{n}-{fingerprint}", Path("x.pt"), record)


def test_a_worst_case_is_over_white_box_threats_and_whole_caches_of_the_same_images() -> None:
    threats = (Threat(eps=0.1), Threat.of("autoattack", "linf", 0.1))
    settings = EvalSettings("glyphs", "test", 50, threats)
    foreign = SamplesRef("foreign", Path("y.pt"), None)
    found = columns([cache(), cache(49), cache(50, "others"), foreign], settings, "ours", data.info("glyphs"))
    assert [column.kind for column in found] == ["clean", *["samples"] * 4, *["attack"] * 3, "worst"]
    assert [column.joint for column in found] == [True, True, True, False, False, True, True, True, True]
    assert [column.bound for column in found] == [None, "upper", "upper", None, None, *["upper"] * 4]
    assert [column.further for column in found[5:8]] == [False, False, True]
    assert found[-1].of == (1, 5, 6, 7)
    one = dataclasses.replace(settings, threats=threats[:1])
    assert [column.kind for column in columns([cache()], one, "ours", data.info("glyphs"))] == [
        "clean",
        "samples",
        "attack",
    ]


def measured(met: list[Column], **known: Any) -> list[Cell]:
    """The cells of a model whose four images are as `known` says, without a network."""
    run = object.__new__(measure._Model)
    flags = torch.tensor(known["on_cache"], dtype=torch.bool)
    scored = Score(flags, torch.arange(4.0), torch.ones(4))
    run.__dict__ |= {
        "_session": types.SimpleNamespace(batch_size=None), "_work": lambda *told: None, "_net": None, "_device": "cpu",
        "_images": types.SimpleNamespace(y=torch.tensor([0, 0, 1, 1]), info=types.SimpleNamespace(classes="ab")),
        "size": 4, "_score": lambda *given, **how: scored, "_attacked": known["attacked"],
        "clean": Score(torch.tensor(known["clean"], dtype=torch.bool), torch.full((4,), 0.5), torch.ones(4)),
    }  # fmt: skip
    caches = [measure.Cache(torch.zeros(4, 1), torch.tensor([1, 1, 0, 0]), torch.tensor([3, 2, 1, 0]))] * 2
    return run.cells(met, caches)


def test_cells_say_what_is_right_in_their_column() -> None:
    plain, whole = Threat(eps=0.1), Threat.of("autoattack", "linf", 0.1)

    def attacked(*rights: list[int]) -> AttackedSet:
        after = {
            f"part {i}": After(
                torch.tensor(right, dtype=torch.bool), torch.full((4,), float(i + 1)), torch.ones(4), Passes(i, i)
            )
            for i, right in enumerate(rights)
        }
        return AttackedSet(
            torch.ones(4, dtype=torch.bool), after, torch.zeros(4, dtype=torch.bool), Change(0.1, 0.2), None, 4
        )

    met = [
        Column("clean", "clean"),
        Column("samples", "joint"),
        Column("samples", "alone", joint=False),
        Column("attack", "plain", plain),
        Column("attack", "whole", whole),
        Column("attack", "further", whole, further=True),
        Column("worst", "worst", of=(3, 4)),
    ]
    cells = measured(
        met,
        clean=[0, 1, 1, 1],
        on_cache=[1, 1, 0, 1],
        attacked={
            plain: attacked([0, 1, 1, 0]),
            whole: attacked([0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]),
        },
    )
    right = [format(each.bits >> 4, "04b") for each in cells]
    # Of the cache the last image is the set's first, which is wrong clean.
    assert right == ["0111", "1100", "1101", "0110", "0011", "0001", "0010"]
    assert [each.loss for each in cells] == [0.5, 1.5, 1.5, 1.0, 4.0, 5.0, 4.0]
    assert [each.by_class for each in cells[:4]] == [
        [(2, 1), (2, 2)], [(2, 0), (2, 2)], [(2, 1), (2, 2)], [(2, 1), (2, 1)],
    ], "a cache has labels of its own"  # fmt: skip
    assert [len(each.after) for each in cells] == [0, 0, 0, 0, 4, 5, 0]
    assert cells[3].change == {"linf_max": 0.1, "l2_max": 0.2}


def test_what_follows_an_ensemble_is_counted_from_its_figure() -> None:
    column = Column("attack", "autoattack", Threat.of("autoattack", "linf", 0.1), further=True)
    after = [("apgd-ce", 90), ("apgd-t", 80), ("fab-t", 70), ("square", 60), ("square-pgd", 55)]
    line = table._taken_beyond("m", column, cell(1, 0, after=after))
    assert line.startswith("m: square-pgd takes 5 of the 60 images")


# The audit


def test_what_stands_has_stood_against_all_that_was_tried(lenet: nn.Sequential) -> None:
    x, y = batch(4)
    checks = Checks(lenet, x, y, Threat(eps=0.1), 10, 0, 4)
    checks.standing = torch.tensor([True, True, True, False])
    checks.survive("noise", torch.tensor([True, True, False, True]))
    checks.survive("square", torch.tensor([True, False, True, True]))
    checks.survive("noise", torch.ones(4, dtype=torch.bool))
    assert checks.standing.tolist() == [True, False, False, False]
    assert checks.tried == ["noise", "square"]


def test_a_share_is_of_those_that_stood(lenet: nn.Sequential) -> None:
    x, y = batch(4)
    checks = Checks(lenet, x, y, Threat(eps=0.1), 10, 0, 4)
    taken = torch.tensor([True, False, True, True])
    check = checks.share("x", taken, torch.tensor([True, True, False, False]), (5, 20), "look")
    assert (check.value, check.advice) == (50, "look")


# What things are known by


def model_ref(path: Path = Path("m.safetensors"), **record: Any) -> ModelRef:
    return ModelRef(
        "m", path, "best", {"arch": "lenet5", "shape": [1, 32, 32], "classes": 10, "digests": {"best": "d"}, **record}
    )


def test_runs_that_differ_in_seeds_alone_are_one_and_keep_those_of_their_lineage() -> None:
    def run(init: ModelRef | None = None, **options: Any) -> dict[str, Any]:
        return train._run_of(train_settings(**options), init)

    first = run(seed=0)
    assert run(seed=3) == {"id": first["id"], "seeds": [3]}
    assert run(lr=0.01)["id"] != first["id"]
    begun = [run(model_ref(run={"id": "r", "seeds": [seed]}, name="m"), seed=3) for seed in (4, 5)]
    assert [each["seeds"] for each in begun] == [[4, 3], [5, 3]]
    assert begun[0]["id"] == begun[1]["id"] != first["id"]
    imported = [run(model_ref(digests={"best": weights})) for weights in ("d", "e")]
    assert imported[0]["id"] != imported[1]["id"]


def test_weights_that_were_replaced_are_not_those_that_were_meant(tmp_path: Path) -> None:
    path, weights = tmp_path / "m.safetensors", models.build("lenet5", 1).state_dict()
    record = {"schema": SCHEMA, "kind": "checkpoint", "name": "n", "key": "k", "arch": "lenet5", "shape": [1, 32, 32],
              "classes": 10}  # fmt: skip
    path.write_bytes(artifacts.checkpoint_bytes(weights, weights, record))
    meant = model_ref(path, digests={"best": artifacts.tensors_digest(weights)})
    assert torch.equal(references.load_model(meant, "cpu")[0].conv.weight, weights["c1.conv.weight"])
    with pytest.raises(AdvmixError) as error:
        references.load_model(model_ref(path), "cpu")
    assert error.value.code == "replaced"


def test_a_digest_is_of_names_types_shapes_and_values() -> None:
    def of(**tensors: torch.Tensor) -> str:
        return artifacts.tensors_digest(tensors)

    a, b = torch.arange(4.0), torch.arange(2.0)
    different = {
        of(a=a, b=b), of(a=a + 1, b=b), of(a=a.view(2, 2), b=b), of(a=a.view(torch.int32), b=b), of(c=a, b=b), of(a=a),
    }  # fmt: skip
    assert len(different) == 6
    assert of(b=b, a=a) == of(a=a, b=b), "their order says nothing"
    assert of(a=a.view(2, 2).T.contiguous().T, b=b) == of(a=a.view(2, 2), b=b), "nor does how they lie in memory"


# What is left for later


def session(root: Path, **options: Any) -> Session:
    return Session(Store(root), root / "data", Silent(), **options)


def numbers(pieces: list[dict[str, Any]]) -> list[int]:
    return [piece["n"] for piece in pieces]


def test_pieces_of_several_sittings_come_back_in_their_order(tmp_path: Path) -> None:
    for sitting in range(3):
        unfinished = Unfinished(session(tmp_path), "job", "key")
        assert numbers(unfinished.resumed(list)) == list(range(2 * sitting))
        for n in (2 * sitting, 2 * sitting + 1):
            unfinished.add({"n": n})
            unfinished.flush()
    assert numbers(Unfinished(session(tmp_path), "job", "key").resumed(list)) == list(range(6))
    assert Unfinished(session(tmp_path), "job", "another").resumed(list) == []
    assert session(tmp_path).store.unfinished("job") == [], "what is of no use is deleted"


def test_a_state_that_is_replaced_is_the_only_one(tmp_path: Path) -> None:
    unfinished = Unfinished(session(tmp_path), "job", "key")
    for n in range(3):
        unfinished.replace({"n": n})
    assert len(session(tmp_path).store.unfinished("job")) == 1
    assert numbers(Unfinished(session(tmp_path), "job", "key").resumed(list)) == [2]


def test_force_begins_again_but_continues_what_it_began(tmp_path: Path) -> None:
    for forced, expected in ((False, []), (True, []), (True, [1])):
        unfinished = Unfinished(session(tmp_path, force=forced), "job", "key")
        assert numbers(unfinished.resumed(list)) == expected
        unfinished.replace({"n": 1})


# One at a time


def test_one_network_is_built_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []

    def built(*_: int) -> nn.Sequential:
        held.append(models._ONE_AT_A_TIME.locked())
        return nn.Sequential()

    monkeypatch.setattr(building.importlib, "import_module", lambda name: types.SimpleNamespace(lenet5=built))
    models.build("lenet5")
    assert held == [True]
    assert not models._ONE_AT_A_TIME.locked()


def test_the_recording_that_was_used_longest_ago_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "records", lambda device: True)
    monkeypatch.setattr(graphs, "_aside", lambda function, device: function())
    recordings, x = graphs.Graphs(), torch.ones(2)
    double: Callable[..., graphs.Tensors] = lambda x: {"x": 2 * x}  # noqa: E731

    for key in (*range(graphs._MOST), 0, "new"):
        recordings(key, double, x=x)
    (kept,) = recordings._kept.values()
    assert [key for key, _ in kept] == [*range(2, graphs._MOST), 0, "new"]
