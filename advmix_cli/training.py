"""The training loop: device-resident data, mixing, a schedule, a history, and a state to continue from. No files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import torch
from torch import nn

from advmix_cli import checking, graphs, methods, world
from advmix_cli.attacks import to_float
from advmix_cli.augmentation import augment, cutmix, idbh
from advmix_cli.config import TrainSettings
from advmix_cli.data import ImageSet
from advmix_cli.data.pixels import batches
from advmix_cli.errors import AdvmixError, StateError, UsageError
from advmix_cli.gathering import together
from advmix_cli.methods.averaging import Average
from advmix_cli.methods.perturbing import perturbable, perturbed, statistics_kept
from advmix_cli.mixing import Mixer
from advmix_cli.optimizing import forget, optimizer_of, scheduler_of, state_of, take_over
from advmix_cli.optimizing import step as take_step
from advmix_cli.runtime import derived, generator
from advmix_cli.splitting import Splits

Weights = dict[str, torch.Tensor]
State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Trained:
    """The weights of the chosen and of the last epoch, and the history, a row an epoch (see `train`).

    `average` are the averaged weights after the last epoch, None without an average.
    """

    best: Weights
    last: Weights
    average: Weights | None
    best_epoch: int
    history: list[dict[str, Any]]


def _copy(model: nn.Module) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


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
        self.optimizer = optimizer_of(model, settings, self.device)
        self.ranks = world.current()
        self.graphs = graphs.Graphs() if graphs.recordable(model) and not self.ranks.joined else None
        self.steps = math.ceil(len(splits.train) / settings.batch_size)
        self.scheduler = scheduler_of(self.optimizer, settings, self.steps)
        self.method = methods.chosen(model, settings, len(splits.train.info.classes))
        self.average = Average(model, settings.ema) if settings.ema else None
        self.loss = together(model, self.method.loss) if self.ranks.joined else self.method.loss
        self.clock = Clock(self.device, timed)
        self.history: list[dict[str, Any]] = []
        self.best, self.best_epoch = _copy(model), 0
        self.best_rank: tuple[float, float] = (-math.inf, -math.inf)

    @property
    def judged(self) -> nn.Module:
        """The model that is judged and chosen: the average where there is one."""
        return self.model if self.average is None else self.average.model

    def state(self) -> State:
        """Plain tensors and values, enough to continue from."""
        return {
            "model": self.model.state_dict(),
            **state_of(self.optimizer, self.scheduler),
            "history": self.history,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_rank": list(self.best_rank),
            **({"average": self.average.model.state_dict()} if self.average else {}),
        }

    def restore(self, state: State) -> None:
        """The inverse of `state`. Raises StateError for what is none of this run."""
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            raise StateError(f"the state does not fit the run: {error}", "begin again") from None

    def _restore(self, state: State) -> None:
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.model.load_state_dict(state["average"])
        take_over(self.optimizer, self.scheduler, state)
        self.history, self.best_epoch = list(state["history"]), state["best_epoch"]
        self.best_rank = tuple(state["best_rank"])
        self.best = {name: tensor.to(self.device) for name, tensor in state["best"].items()}

    def learn(self, epoch: int, on_batch: Callable[[int, int], None]) -> dict[str, Any]:
        """Pass over the training images once; the row of the history so far."""
        settings, images = self.settings, self.splits.train
        seed, total = settings.seed, settings.epochs * self.steps
        order = torch.randperm(len(images), generator=generator("cpu", seed, "order", epoch)).to(self.device)
        mixer = Mixer(settings, epoch, self.device)
        row: dict[str, Any] = {"epoch": epoch, "lr": float(self.scheduler.get_last_lr()[0])}
        losses, right = [], torch.zeros((), device=self.device, dtype=torch.long)
        largest = torch.zeros((), device=self.device)
        self.model.train()
        rows = torch.split(order, settings.batch_size)
        taking = rows if settings.augment == "cutmix" else [self.ranks.rows(each) for each in rows]
        for step, (whole, index, pixels) in enumerate(zip(rows, taking, batches(images.x, taking), strict=True)):
            taken = (epoch - 1) * self.steps + step + 1
            batch = self._batch(to_float(pixels), images.y[index], index, epoch, step, taken / total, mixer, len(whole))
            self.clock.lap("bookkeeping")
            prepared = self.method.prepare(batch)
            if prepared.change is not None:
                largest = torch.maximum(largest, prepared.change)
                self.clock.lap("attack")
            update = functools.partial(self._update, prepared.key)
            inputs = {**prepared.inputs, "lr": self.optimizer.param_groups[0]["lr"]}
            if self.ranks.joined:
                inputs["weight"] = self.ranks.weight(len(whole))
            if self.average is not None:
                inputs["decay"] = self.average.decay(taken, total)
            if self.graphs is None:  # it may draw, and does so from the global generator
                torch.manual_seed(
                    derived(seed, "forward", epoch, step, *([self.ranks.rank] if self.ranks.rank else []))
                )
                after = update(**inputs)
            else:
                after = self.graphs(prepared.key, update, **inputs)
            self.scheduler.step()
            self.clock.lap("update")
            own = len(self.ranks.range(len(whole)))
            losses.append(after["loss"] * own)
            right += after["right"] if own else 0
            on_batch(epoch, len(whole))
        told = self.ranks.all((float(torch.stack(losses).cpu().double().sum()), int(right), float(largest)))
        loss, count, change = zip(*told, strict=True)
        row["train_loss"] = sum(loss) / len(images)
        row["train_accuracy"] = 100 * sum(count) / len(images)
        if settings.adversary is not None:
            row["linf_max"] = max(change)
        row |= self.method.told()
        self._share_statistics()
        return row

    def _share_statistics(self) -> None:
        """Let all ranks have the mean of their batch norms' running statistics."""
        for model in (self.model, self.judged) if self.ranks.joined else ():
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    self.ranks.mean(buffer)

    def _batch(
        self, x: torch.Tensor, y: torch.Tensor, index: torch.Tensor, epoch: int, step: int, done: float, mixer: Mixer,
        n: int,
    ) -> methods.Batch:  # fmt: skip
        """A batch of n, augmented: what this process has of it."""
        settings, seed = self.settings, self.settings.seed
        other, share = None, None
        if settings.augment == "idbh":
            x = idbh(x, index, self.splits.train.info.flips, seed, epoch)
        else:
            x = augment(x, index, settings.flip, settings.crop_padding, seed, epoch)
        if settings.augment == "cutmix":
            x, pasted, share = cutmix(x, index, seed, epoch, step)
            x, y, index, other, share = map(self.ranks.rows, (x, y, index, y[pasted], share))
        of_epoch = derived(seed, "epoch", epoch)
        return methods.Batch(x, y, index, of_epoch, done, lambda: mixer.draw(n), other, share)

    def _update(
        self, key: Hashable, *, lr: float | torch.Tensor, decay: float | torch.Tensor = 0.0, weight: float = 1.0,
        **inputs: Any,
    ) -> graphs.Tensors:  # fmt: skip
        """Learn from one batch: its loss, and how many of it were right."""
        adversary = self.settings.adversary
        with contextlib.ExitStack() as stack:
            if adversary is not None and adversary.awp:
                weights = perturbable(self.model)
                with statistics_kept(self.model):
                    loss, _, _ = self.method.loss(key, **inputs)
                slopes = [self.ranks.mean(slope) for slope in torch.autograd.grad(loss * weight, weights)]
                stack.enter_context(perturbed(self.model, slopes, adversary.awp))
            loss, logits, targets = self.loss(key, **inputs)
            self.optimizer.zero_grad()
            torch.autograd.backward(loss * weight)
        take_step(self.optimizer, lr, self.settings.clip)
        if self.average is not None:
            self.average.follow(self.model, decay)
        return {"loss": loss.detach(), "right": (logits.argmax(1) == targets.argmax(1)).sum()}

    def judge(self, row: dict[str, Any]) -> None:
        """Complete the row with validation and test, and choose between this epoch and the best so far."""
        adversary, held = self.settings.adversary, self.splits.validation
        for name in ("validation", "test"):
            images: ImageSet = getattr(self.splits, name)
            if len(images):
                scored = checking.scored(self.judged, images)
                row |= {f"{name}_loss": scored.loss, f"{name}_accuracy": scored.accuracy}
        if not all(math.isfinite(value) for name, value in row.items() if name.endswith("loss")):
            raise AdvmixError(
                f"training diverged in epoch {row['epoch']}: the loss is not finite",
                f"try a smaller --lr than {self.settings.lr:g}; the state after epoch {row['epoch'] - 1} is kept",
                code="diverged",
            )
        value = row.get("validation_accuracy", float(row["epoch"]))
        if adversary is not None and len(held):
            value = row["validation_robust_accuracy"] = checking.robust_accuracy(self.judged, held, self.settings)
            if adversary.declared.certified:
                row["validation_certified_accuracy"] = checking.certified_accuracy(self.judged, held, self.settings)
                value = (value + row["validation_certified_accuracy"]) / 2
            if (adversary.declared.guarded and self._misled(row)) or (
                adversary.declared.certified and self._collapsed(row)
            ):
                self._go_back(row)
        self.history.append(row)
        rank = (value, -row.get("validation_loss", 0.0))
        if rank > self.best_rank:
            self.best, self.best_epoch, self.best_rank = _copy(self.judged), row["epoch"], rank

    def _misled(self, row: dict[str, Any]) -> bool:
        """Whether the model has learned to mislead the one step that it is trained with."""
        single = checking.robust_accuracy(self.judged, self.splits.validation, self.settings, attack="fgsm")
        row["validation_fgsm_accuracy"] = single
        before = self.history[-1]["validation_fgsm_accuracy"] if self.history else 0.0
        return bool(single > before and row["validation_robust_accuracy"] < self.best_rank[0] / 2)

    def _collapsed(self, row: dict[str, Any]) -> bool:
        """Whether an epoch lost half of what the model could: a step too far can leave it one answer for all images."""
        if not self.history:
            return False
        before = self.history[self.best_epoch - 1 if "rolled_back" in self.history[-1] else -1]
        return bool(row["validation_accuracy"] < before["validation_accuracy"] / 2)

    def _go_back(self, row: dict[str, Any]) -> None:
        """To the best epoch, and on from there."""
        row["rolled_back"] = True
        self.model.load_state_dict(self.best)
        if self.average is not None:
            self.average.model.load_state_dict(self.best)
        forget(self.optimizer)


def epochs_of(state: State) -> int:
    """After how many epochs a state was made. Raises StateError for what is none."""
    history, best = state.get("history"), state.get("best_epoch")
    rows = isinstance(history, list) and [row.get("epoch") for row in history if isinstance(row, dict)]
    if not rows or rows != list(range(1, len(rows) + 1)) or best not in rows:
        raise StateError("the state has no history", "begin again")
    return len(rows)


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
    percent, losses in nats. With an adversary, `linf_max`, the largest change of a pixel in training, and
    `validation_robust_accuracy`, which chooses the epoch; in certified training `validation_certified_accuracy`, and
    the middle of both chooses; with fgsm-rs `validation_fgsm_accuracy`; `rolled_back` where one of these went back to
    the best epoch; `recycled`, how many channels began anew. Without an adversary the chosen epoch has the highest
    validation accuracy, then the lowest loss; without a validation split it is the last. Where weights are averaged
    (`ema`), the average is judged and chosen.

    `on_batch` gets the epoch and the number of images done in it. `on_epoch` gets the row, a function that makes a
    state of plain tensors and values, and the clock, which runs on a GPU only when `timed`; with that `state` the same
    call continues and ends with the same weights.
    Raises AdvmixError when the loss is not finite.
    """
    with world.peers(world.current()):
        return _trained(_Run(model, splits, settings, timed), state, on_batch, on_epoch)


def _trained(run: _Run, state: State | None, on_batch: Callable[..., None], on_epoch: Callable[..., None]) -> Trained:
    settings = run.settings
    if state is not None:
        run.restore(state)
    for epoch in range(len(run.history) + 1, settings.epochs + 1):
        with torch.random.fork_rng(enabled=run.graphs is None), _no_batch_of_one():
            row = run.learn(epoch, on_batch)
        run.clock.lap("bookkeeping")
        run.judge(row)
        run.clock.lap("evaluation")
        on_epoch(row, run.state, run.clock)
    average = None if run.average is None else _copy(run.average.model)
    return Trained(run.best, _copy(run.model), average, run.best_epoch, run.history)
