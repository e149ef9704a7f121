"""The training loop: device-resident data, mixing, a schedule, a history, and a state to continue from. No files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, OneCycleLR

from advmix_cli import graphs
from advmix_cli.attacks import adversarial_batch, attack_set, to_float
from advmix_cli.augmentation import augment
from advmix_cli.config import TrainSettings
from advmix_cli.data import ImageSet
from advmix_cli.data.pixels import batches
from advmix_cli.errors import AdvmixError, StateError, UsageError
from advmix_cli.evaluation import score
from advmix_cli.mixing import Draw, Mixer, forward_mixed, places, soft_labels, soft_loss
from advmix_cli.runtime import autocast, derived, generator

Weights = dict[str, torch.Tensor]
State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Splits:
    """`train` is learned from, `validation` (may be empty) chooses the epoch, `test` is only watched."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet


@dataclasses.dataclass(frozen=True)
class Trained:
    """The weights of the chosen and of the last epoch, and the history, a row an epoch (see `train`)."""

    best: Weights
    last: Weights
    best_epoch: int
    history: list[dict[str, Any]]


def split(images: ImageSet, test: ImageSet, settings: TrainSettings) -> Splits:
    """Hold out `validation` of the first `limit` images, drawn from the seed; `per_class` limits the rest."""
    images = images.first(settings.limit)
    order = torch.randperm(len(images), generator=generator("cpu", settings.seed, "split"))
    held, rest = order[: settings.validation], order[settings.validation :]
    if settings.per_class is not None:
        labels = images.y[rest]
        kept = [rest[labels == c][: settings.per_class] for c in range(len(images.info.classes))]
        rest = torch.cat(kept)
    return Splits(images.take(rest.sort().values), images.take(held.sort().values), test.first(settings.limit))


def _optimizer(model: nn.Module, settings: TrainSettings, device: torch.device) -> Optimizer:
    shared: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if graphs.records(device):
        shared["fused"] = True  # counts its steps and takes its learning rate on the device
    if settings.optimizer == "adam":
        return Adam(model.parameters(), **shared)
    return SGD(model.parameters(), momentum=settings.momentum, nesterov=settings.nesterov, **shared)


_OF_THE_DEVICE = ("fused", "foreach", "capturable")
"""What an optimiser's state says of the device it was made on: another device's is not taken over."""


def _scheduler(optimizer: Optimizer, settings: TrainSettings, steps_per_epoch: int) -> LRScheduler:
    """Stepped once a batch."""
    if settings.schedule == "one-cycle":
        total = max(settings.epochs * steps_per_epoch, 2)
        return OneCycleLR(optimizer, settings.lr, total_steps=total, cycle_momentum=False)
    if settings.schedule == "steps":
        milestones = [epoch * steps_per_epoch for epoch in settings.milestones]
        return MultiStepLR(optimizer, milestones, settings.gamma)
    return LambdaLR(optimizer, lambda step: 1.0)


def _copy(model: nn.Module) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _alike(one: Any, other: Any) -> bool:
    """Whether plain values have the same form: keys, lengths and types, but for what a device sets."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = {*one, *other} - {*_OF_THE_DEVICE}
        return names <= one.keys() & other.keys() and all(_alike(one[name], other[name]) for name in names)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return type(one) is type(other)


class Clock:
    """Where the time of an epoch went. On a GPU it waits for the device at each lap, so it runs only when asked."""

    def __init__(self, device: torch.device, asked: bool) -> None:
        self.device, self.on = device, asked or device.type == "cpu"
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, name: str) -> None:
        """Count the time since the last lap as `name`."""
        if self.on:
            if self.device.type == "cuda":  # this thread's work alone: others may be recording theirs
                torch.cuda.current_stream(self.device).synchronize()
            now = time.perf_counter()
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
            self._since = now

    def read(self) -> dict[str, float]:
        """The seconds since the last reading."""
        seconds, self.seconds = self.seconds, {}
        return seconds


class _Run:
    """What a training run carries from epoch to epoch; all of it goes into its state."""

    def __init__(self, model: nn.Module, splits: Splits, settings: TrainSettings, timed: bool) -> None:
        self.model, self.splits, self.settings = model, splits, settings
        self.device = splits.train.y.device
        self.optimizer = _optimizer(model, settings, self.device)
        self.graphs = graphs.Graphs() if graphs.recordable(model) else None
        self.steps = math.ceil(len(splits.train) / settings.batch_size)
        self.scheduler = _scheduler(self.optimizer, settings, self.steps)
        self.places = places(model, settings.mix_stages)
        self.clock = Clock(self.device, timed)
        self.history: list[dict[str, Any]] = []
        self.best, self.best_epoch = _copy(model), 0
        self.best_rank: tuple[float, float] = (-math.inf, -math.inf)

    def state(self) -> State:
        """Plain tensors and values, enough to continue from."""
        scheduler = {k: v for k, v in self.scheduler.state_dict().items() if isinstance(v, int | float | list)}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler,
            "history": self.history,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_rank": list(self.best_rank),
        }

    def restore(self, state: State) -> None:
        """The inverse of `state`. Raises StateError for what is none of this run."""
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            raise StateError(f"the state does not fit the run: {error}", "begin again") from None

    def _restore(self, state: State) -> None:
        own_state = self.state()
        groups = own_state["optimizer"]["param_groups"], state["optimizer"]["param_groups"]
        if not _alike(own_state["scheduler"], state["scheduler"]) or not _alike(*groups):
            raise ValueError("the schedule is another")
        self.model.load_state_dict(state["model"])
        own = [{name: group.get(name) for name in _OF_THE_DEVICE} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, kept in zip(self.optimizer.param_groups, own, strict=True):
            group.update({name: value for name, value in kept.items() if name in group})
        for parameter, kept in self.optimizer.state.items():
            if any(each.shape not in (parameter.shape, ()) for each in kept.values() if isinstance(each, torch.Tensor)):
                raise ValueError("the optimiser is another's")
        self.scheduler.load_state_dict(state["scheduler"])
        self.history, self.best_epoch = list(state["history"]), state["best_epoch"]
        self.best_rank = tuple(state["best_rank"])
        self.best = {name: tensor.to(self.device) for name, tensor in state["best"].items()}

    def learn(self, epoch: int, on_batch: Callable[[int, int], None]) -> dict[str, Any]:
        """Pass over the training images once; the row of the history so far."""
        settings, images = self.settings, self.splits.train
        seed = settings.seed
        order = torch.randperm(len(images), generator=generator("cpu", seed, "order", epoch)).to(self.device)
        mixer = Mixer(settings, epoch, self.device)
        row: dict[str, Any] = {"epoch": epoch, "lr": float(self.scheduler.get_last_lr()[0])}
        losses, right = [], torch.zeros((), device=self.device, dtype=torch.long)
        adversary, partner = settings.adversary, None
        largest = torch.zeros((), device=self.device)
        self.model.train()
        rows = torch.split(order, settings.batch_size)
        for step, (index, pixels) in enumerate(zip(rows, batches(images.x, rows), strict=True)):
            x, y = to_float(pixels), images.y[index]
            x = augment(x, index, settings.flip, settings.crop_padding, seed, epoch)
            self.clock.lap("bookkeeping")
            if adversary is not None:
                done = ((epoch - 1) * self.steps + step + 1) / (settings.epochs * self.steps)
                threat = adversary.at(done)
                clean, x = (
                    x,
                    adversarial_batch(
                        self.model, x, y, threat, seed=derived(seed, "epoch", epoch), index=index, mode=adversary.mode
                    ),
                )
                largest = torch.maximum(largest, (x - clean).abs().max())
                partner = clean if adversary.policy == "partial-pgd" else None
                self.clock.lap("attack")
            draw = mixer.draw(len(index))
            stage, lam, perm = (None, None, None) if draw is None else (draw.stage, draw.lam, draw.perm)
            lr = self.optimizer.param_groups[0]["lr"]
            update = functools.partial(self._update, stage)
            inputs: dict[str, Any] = {"x": x, "y": y, "lr": lr, "lam": lam, "perm": perm, "partner": partner}
            if self.graphs is None:  # it may draw, and does so from the global generator
                torch.manual_seed(derived(seed, "forward", epoch, step))
                after = update(**inputs)
            else:
                after = self.graphs(stage, update, **inputs)
            self.scheduler.step()
            self.clock.lap("update")
            losses.append(after["loss"] * len(index))
            right += after["right"]
            on_batch(epoch, len(index))
        row["train_loss"] = float(torch.stack(losses).cpu().double().sum()) / len(images)
        row["train_accuracy"] = 100 * int(right) / len(images)
        if adversary is not None:
            row["linf_max"] = float(largest)
        return row

    def _update(
        self,
        stage: int | str | None,
        *,
        x: torch.Tensor,
        y: torch.Tensor,
        lr: float | torch.Tensor,
        lam: float | torch.Tensor | None,
        perm: torch.Tensor | None,
        partner: torch.Tensor | None,
    ) -> graphs.Tensors:
        """Learn from one batch: its loss, and how many of it were right."""
        settings = self.settings
        draw = None if stage is None or lam is None or perm is None else Draw(lam, stage, perm)
        targets = soft_labels(y, len(self.splits.train.info.classes), settings.soft_label)
        with autocast(self.device, settings.precision):
            logits, targets = forward_mixed(self.model, x, targets, draw, partner, self.places)
        loss = soft_loss(logits.float(), targets, settings.loss)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        (group,) = self.optimizer.param_groups
        before = dict(group)
        group["lr"] = lr  # on a GPU a tensor there, which a recording reads anew each time
        if "capturable" in group:  # Adam's word that it knows it is being recorded
            group["capturable"] = x.is_cuda and torch.cuda.is_current_stream_capturing()
        try:
            self.optimizer.step()
        finally:
            group.update(before)
        return {"loss": loss.detach(), "right": (logits.argmax(1) == targets.argmax(1)).sum()}

    def judge(self, row: dict[str, Any]) -> None:
        """Complete the row with validation and test, and choose between this epoch and the best so far."""
        for name in ("validation", "test"):
            images: ImageSet = getattr(self.splits, name)
            if len(images):
                scored = score(self.model, images.x, images.y)
                row |= {f"{name}_loss": scored.loss, f"{name}_accuracy": scored.accuracy}
        if not all(math.isfinite(value) for name, value in row.items() if name.endswith("loss")):
            raise AdvmixError(
                f"training diverged in epoch {row['epoch']}: the loss is not finite",
                f"try a smaller --lr than {self.settings.lr:g}; the state after epoch {row['epoch'] - 1} is kept",
                code="diverged",
            )
        if self.settings.adversary is not None and len(self.splits.validation):
            row["validation_robust_accuracy"] = robust_accuracy(self.model, self.splits.validation, self.settings)
        self.history.append(row)
        chosen_by = "validation_accuracy" if self.settings.adversary is None else "validation_robust_accuracy"
        rank = (row.get(chosen_by, float(row["epoch"])), -row.get("validation_loss", 0.0))
        if rank > self.best_rank:
            self.best, self.best_epoch, self.best_rank = _copy(self.model), row["epoch"], rank


def epochs_of(state: State) -> int:
    """After how many epochs a state was made. Raises StateError for what is none."""
    history, best = state.get("history"), state.get("best_epoch")
    rows = isinstance(history, list) and [row.get("epoch") for row in history if isinstance(row, dict)]
    if not rows or rows != list(range(1, len(rows) + 1)) or best not in rows:
        raise StateError("the state has no history", "begin again")
    return len(rows)


def robust_accuracy(model: nn.Module, images: ImageSet, settings: TrainSettings) -> float:
    """The accuracy, in percent, of a model under the short attack with which adversarial training checks itself."""
    assert settings.adversary is not None
    attacked = attack_set(model, images.x, images.y, settings.adversary.judge, seed=settings.seed)
    return 100 * int(attacked.robust.sum()) / len(images)


@contextlib.contextmanager
def _no_batch_of_one() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UsageError(
            "batch norm cannot learn from a batch of one image, which the last of an epoch is",
            "try another --batch-size",
        ) from None


def train(
    model: nn.Module,
    splits: Splits,
    settings: TrainSettings,
    *,
    state: State | None = None,
    timed: bool = False,
    on_batch: Callable[[int, int], None] = lambda epoch, n: None,
    on_epoch: Callable[[dict[str, Any], Callable[[], State], Clock], None] = lambda row, state, clock: None,
) -> Trained:
    """Train `model` (on its device, with the splits there too) and give the chosen and the last weights.

    A row of the history holds `epoch` (from 1), `lr`, `train_loss` and `train_accuracy` (on the mixed batches, in
    training mode, against the heavier label), and `validation_`/`test_` `loss` and `accuracy`; accuracies in
    percent, losses in nats. With an adversary each batch is attacked first (plain cross-entropy, hard labels, the
    model as `Adversary.mode` says), then mixed, then learned from; the row then holds `linf_max`, the largest change
    of a pixel, and `validation_robust_accuracy`, which chooses the epoch. Without one the chosen epoch has the highest
    validation accuracy, then the lowest loss; without a validation split it is the last.

    `on_batch` gets the epoch and the number of images done in it. `on_epoch` gets the row, a function that makes a
    state of plain tensors and values, and the clock, which runs on a GPU only when `timed`; with that `state` the same
    call continues and ends with the same weights.
    Raises AdvmixError when the loss is not finite.
    """
    run = _Run(model, splits, settings, timed)
    if state is not None:
        run.restore(state)
    for epoch in range(len(run.history) + 1, settings.epochs + 1):
        with torch.random.fork_rng(enabled=run.graphs is None), _no_batch_of_one():
            row = run.learn(epoch, on_batch)
        run.clock.lap("bookkeeping")
        run.judge(row)
        run.clock.lap("evaluation")
        on_epoch(row, run.state, run.clock)
    return Trained(run.best, _copy(model), run.best_epoch, run.history)
