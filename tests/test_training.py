"""One loop that can be continued, chooses on validation, and does what its settings say."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

import pytest
import torch
from conftest import DEVICE

from advmix_cli import checking, models, optimizing, presets, splitting, training
from advmix_cli.config import TrainSettings
from advmix_cli.data import DATASETS, ImageSet
from advmix_cli.errors import AdvmixError
from advmix_cli.judging import HeldOut


def images(n: int, dataset: str = "glyphs", split: str = "train") -> ImageSet:
    """Random pixels with a class's mark on them."""
    random = torch.Generator().manual_seed(len(split))
    y = torch.arange(n) % 10
    x = torch.randint(0, 60, (n, *DATASETS[dataset].shape), generator=random, dtype=torch.uint8)
    for i, label in enumerate(y.tolist()):
        x[i, :, 3 * label : 3 * label + 3] += 120
    return ImageSet(DATASETS[dataset], split, x, y)


def settings(**options: Any) -> TrainSettings:
    base = {"epochs": 3, "batch_size": 16, "lr": 0.02, "limit": 100}
    return presets.train_settings("default", "glyphs", "lenet5", **{**base, **options})


def run(chosen: TrainSettings, **options: Any) -> training.Trained:
    splits = splits_of(images(120), images(50, split="test"), chosen)
    return training.train(models.build("lenet5", chosen.seed).to(DEVICE), splits, chosen, **options)


def splits_of(train: ImageSet, test: ImageSet, chosen: TrainSettings) -> splitting.Splits:
    """The splits where training is tested."""
    splits = splitting.split(train, test, chosen)
    return splitting.Splits(*(part.to(DEVICE) for part in (splits.train, splits.validation, splits.test)))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


RECIPES = {
    "default": {},
    "mixup": {"mix": "mixup"},
    "manifold": {"mix": "manifold", "soft_label": 0.01},
    "adam": {"optimizer": "adam", "schedule": "constant", "lr": 1e-3},
    "steps": {"schedule": "steps", "milestones": (1, 2), "loss": "bce-softmax", "flip": True, "crop_padding": 2},
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("stop", [1, 2])
def test_continuing_equals_not_having_stopped(recipe: str, stop: int) -> None:
    chosen = dataclasses.replace(settings(mix=RECIPES[recipe].get("mix", "none")), **RECIPES[recipe])
    saved = io.BytesIO()

    def keep(row: dict[str, Any], state: Any, clock: Any) -> None:
        if row["epoch"] == stop:
            torch.save(state(), saved)

    whole = run(chosen, on_epoch=keep)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    continued = run(chosen, state=state)
    assert same(whole.last, continued.last)
    assert same(whole.best, continued.best)
    assert (whole.history, whole.best_epoch) == (continued.history, continued.best_epoch)


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    torch.manual_seed(1)
    first = run(settings())
    torch.manual_seed(2)  # global state plays no part
    assert same(first.last, run(settings()).last)
    assert not same(first.last, run(settings(seed=1)).last)


def test_it_learns_and_the_history_says_so() -> None:
    adam = {"optimizer": "adam", "schedule": "constant", "lr": 2e-3}
    trained = run(dataclasses.replace(settings(epochs=12, limit=120), **adam))
    first, last = trained.history[0], trained.history[-1]
    assert set(first) == {
        "epoch", "lr", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy",
        "test_loss", "test_accuracy",
    }  # fmt: skip
    assert [row["epoch"] for row in trained.history] == list(range(1, 13))
    assert last["train_loss"] < first["train_loss"] / 2
    assert last["test_accuracy"] > 90


def test_the_epoch_is_chosen_on_validation_never_on_test(monkeypatch: pytest.MonkeyPatch) -> None:
    real = checking.score
    planted = iter([(50, 10), (90, 20), (70, 99)])  # (validation, test) accuracy of each epoch

    def fake(model: Any, x: Any, y: Any, **options: Any) -> Any:
        scored = real(model, x, y, **options)
        if len(y) == 10:  # the validation split
            fake.pair = next(planted)
        value = fake.pair[0] if len(y) == 10 else fake.pair[1]
        correct = torch.zeros(100, dtype=torch.bool)
        correct[:value] = True
        return dataclasses.replace(scored, correct=correct)

    fake.pair = (0, 0)
    monkeypatch.setattr(checking, "score", fake)
    trained = run(settings())
    assert [row["test_accuracy"] for row in trained.history] == [10, 20, 99]
    assert trained.best_epoch == 2
    assert not same(trained.best, trained.last)


def test_without_a_validation_split_the_last_epoch_stands() -> None:
    trained = run(dataclasses.replace(settings(), validation=0))
    assert trained.best_epoch == 3
    assert same(trained.best, trained.last)


def test_splits_do_not_overlap_and_keep_their_limits() -> None:
    whole = images(120)
    whole.x[:, 0, 0, 0] = torch.arange(120, dtype=torch.uint8)  # a mark by which to tell them
    chosen = dataclasses.replace(settings(limit=100), validation=20, per_class=5)
    splits = splitting.split(whole, images(500, split="test"), chosen)
    train, validation = (set(part.x[:, 0, 0, 0].tolist()) for part in (splits.train, splits.validation))
    assert len(validation) == 20
    assert not train & validation
    assert max(train | validation) < 100
    assert torch.bincount(splits.train.y).max() <= 5
    assert len(splits.test) == 100
    held = splitting.held_out(whole, HeldOut(20, limit=100, seed=chosen.seed))
    assert held.x.equal(splits.validation.x)
    assert held.y.equal(splits.validation.y)


def test_one_cycle_and_steps_follow_their_schedules() -> None:
    one_cycle = [row["lr"] for row in run(settings(epochs=10)).history]
    assert one_cycle[0] < max(one_cycle) <= 0.02
    assert one_cycle[-1] < 0.01
    steps = dataclasses.replace(settings(epochs=5), schedule="steps", milestones=(2, 4))
    assert [row["lr"] for row in run(steps).history] == pytest.approx([0.02, 0.02, 0.002, 0.002, 0.0002])


def test_a_diverging_run_stops_and_says_in_which_epoch() -> None:
    with pytest.raises(AdvmixError, match="diverged in epoch 1") as error:
        run(settings(lr=1e30))
    assert error.value.code == "diverged"


def test_a_loss_that_is_only_later_not_finite_is_found() -> None:
    with pytest.raises(AdvmixError, match="diverged"):
        run(settings(limit=16, epochs=1, lr=1e30))


def test_an_optimiser_that_begins_anew_steps_as_a_new_one() -> None:
    used, fresh = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    old, new = (torch.optim.Adam([weight], lr=0.1) for weight in (used, fresh))
    for _ in range(5):
        used.grad = torch.ones(3)
        old.step()
    optimizing.forget(old)
    torch.nn.init.zeros_(used)
    used.grad = fresh.grad = torch.tensor([0.1, -2.0, 3.0])
    old.step()
    new.step()
    assert torch.equal(used, fresh)


def test_long_gradients_are_shortened_and_short_ones_are_not() -> None:
    plain = {"optimizer": "sgd", "schedule": "constant", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    once = dataclasses.replace(settings(limit=16, batch_size=16, epochs=1), validation=0, **plain)
    begun = models.build("lenet5", once.seed).state_dict()

    def moved(clip: float) -> float:
        """How far one step goes, in learning rates: the norm of what it took for the gradient."""
        after = run(dataclasses.replace(once, clip=clip)).last
        return math.dist(*(torch.cat([w.flatten().cpu() for w in each.values()]).tolist() for each in (after, begun)))

    usual = moved(0.0) / once.lr
    assert usual > 0.1
    assert moved(usual / 8) / once.lr == pytest.approx(usual / 8, rel=1e-3)
    assert moved(8 * usual) / once.lr == pytest.approx(usual, rel=1e-3)


def test_augmentation_flips_and_shifts_whole_images() -> None:
    x = torch.rand((40, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    index = torch.arange(40)
    assert torch.equal(training.augment(x, index, False, 0, 1), x)
    flipped = training.augment(x, index, True, 0, 1)
    turned = [torch.equal(f, o.flip(2)) for f, o in zip(flipped, x, strict=True)]
    assert all(t or torch.equal(f, o) for t, f, o in zip(turned, flipped, x, strict=True))
    assert 8 < sum(turned) < 32
    padded = torch.nn.functional.pad(x, (2,) * 4)
    cropped = training.augment(x, index, False, 2, 1)
    some = torch.tensor([17, 3])
    assert torch.equal(training.augment(x[some], some, True, 2, 1), training.augment(x, index, True, 2, 1)[some])
    assert not torch.equal(training.augment(x, index, True, 2, 2), training.augment(x, index, True, 2, 1))
    offsets = set()
    for image, around in zip(cropped, padded, strict=True):
        found = [(i, j) for i in range(5) for j in range(5) if torch.equal(image, around[:, i : i + 8, j : j + 8])]
        assert len(found) == 1
        offsets.add(found[0])
    assert len(offsets) > 10


def test_a_short_last_batch_weighs_what_it_holds() -> None:
    chosen = settings(epochs=1, batch_size=64, lr=1e-12)
    splits = splitting.split(images(120), images(50, split="test"), chosen)
    model = models.build("lenet5")
    with torch.no_grad():
        logits = model(splits.train.x.float() / 255)
        whole = float(torch.nn.functional.cross_entropy(logits, splits.train.y))
    trained = training.train(model, splits, chosen)
    assert len(splits.train) % 64 != 0
    assert math.isclose(trained.history[0]["train_loss"], whole, rel_tol=1e-5)


def test_a_state_of_another_device_keeps_this_ones_optimiser() -> None:
    """A CPU's state says that nothing is fused; on a GPU the update would then not be recorded."""
    chosen = settings(epochs=1)
    made = training._Run(
        models.build("lenet5"), splits_of(images(120), images(50, split="test"), chosen), chosen, False
    )
    state = made.state()
    group = state["optimizer"]["param_groups"][0]
    group |= {"fused": None, "foreach": True, "lr": 0.123}
    made.optimizer.param_groups[0]["fused"] = True
    made.restore(state)
    assert made.optimizer.param_groups[0]["fused"] is True
    assert made.optimizer.param_groups[0]["foreach"] is not True
    assert made.optimizer.param_groups[0]["lr"] == 0.123


def test_an_update_that_fails_leaves_the_optimisers_options(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = dataclasses.replace(settings(epochs=1), optimizer="adam", lr=1e-3)
    made = training._Run(
        models.build("lenet5").to(DEVICE), splits_of(images(120), images(50, split="test"), chosen), chosen, False
    )
    before = dict(made.optimizer.param_groups[0])

    def fails() -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(made.optimizer, "step", fails)
    with pytest.raises(RuntimeError, match="no"):
        made.learn(1, lambda epoch, n: None)
    assert {k: v for k, v in made.optimizer.param_groups[0].items() if k != "params"} == {
        k: v for k, v in before.items() if k != "params"
    }


def test_a_lap_waits_for_its_own_stream_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the whole device would break what another thread is recording."""
    waited: list[str] = []
    stream = type("Stream", (), {"synchronize": lambda self: waited.append("stream")})()
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append("device"))
    training.Clock(torch.device("cuda"), True).lap("attack")
    assert waited == ["stream"]


def test_bf16_training_stays_near_float32() -> None:
    full, half = run(settings()), run(settings(precision="bf16"))
    assert full.history[-1]["train_loss"] == pytest.approx(half.history[-1]["train_loss"], rel=0.05)
    assert not same(full.last, half.last)
    assert all(tensor.dtype == torch.float32 for tensor in half.last.values())
