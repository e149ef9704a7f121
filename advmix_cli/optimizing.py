"""Optimisers, schedules, and taking over their state."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, MultiStepLR, OneCycleLR

from advmix_cli import graphs
from advmix_cli.config import TrainSettings

State = dict[str, Any]

_OF_THE_DEVICE = ("fused", "foreach", "capturable")
"""What an optimiser's state says of the device it was made on: another device's is not taken over."""

_FLAT = 0.6
"""The share of all steps before flat-cosine falls."""


def optimizer_of(model: nn.Module, settings: TrainSettings, device: torch.device) -> Optimizer:
    """The optimiser that the settings name."""
    shared: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if graphs.records(device):
        shared["fused"] = True  # counts its steps and takes its learning rate on the device
    if settings.optimizer == "adam":
        return Adam(model.parameters(), **shared)
    return SGD(model.parameters(), momentum=settings.momentum, nesterov=settings.nesterov, **shared)


def scheduler_of(optimizer: Optimizer, settings: TrainSettings, steps_per_epoch: int) -> LRScheduler:
    """The schedule that the settings name, stepped once a batch."""
    total = max(settings.epochs * steps_per_epoch, 2)
    if settings.schedule == "one-cycle":
        return OneCycleLR(optimizer, settings.lr, total_steps=total, cycle_momentum=False)
    if settings.schedule == "steps":
        milestones = [epoch * steps_per_epoch for epoch in settings.milestones]
        return MultiStepLR(optimizer, milestones, settings.gamma)
    if settings.schedule == "flat-cosine":
        return LambdaLR(optimizer, lambda step: _flat_cosine(step / total))
    return LambdaLR(optimizer, lambda step: 1.0)


def _flat_cosine(done: float) -> float:
    """1, and over the last part half a cosine to 0."""
    return 0.5 * (1 + math.cos(math.pi * min(max((done - _FLAT) / (1 - _FLAT), 0.0), 1.0)))


def state_of(optimizer: Optimizer, scheduler: LRScheduler) -> State:
    """Plain tensors and values of both."""
    plain = {k: v for k, v in scheduler.state_dict().items() if isinstance(v, int | float | list)}
    return {"optimizer": optimizer.state_dict(), "scheduler": plain}


def take_over(optimizer: Optimizer, scheduler: LRScheduler, state: State) -> None:
    """The inverse of `state_of`. Raises ValueError for what is none of theirs."""
    own = state_of(optimizer, scheduler)
    groups = own["optimizer"]["param_groups"], state["optimizer"]["param_groups"]
    if not _alike(own["scheduler"], state["scheduler"]) or not _alike(*groups):
        raise ValueError("the schedule is another")
    kept = [{name: group.get(name) for name in _OF_THE_DEVICE} for group in optimizer.param_groups]
    optimizer.load_state_dict(state["optimizer"])
    for group, had in zip(optimizer.param_groups, kept, strict=True):
        group.update({name: value for name, value in had.items() if name in group})
    for parameter, had in optimizer.state.items():
        if any(each.shape not in (parameter.shape, ()) for each in had.values() if isinstance(each, torch.Tensor)):
            raise ValueError("the optimiser is another's")
    scheduler.load_state_dict(state["scheduler"])


def _alike(one: Any, other: Any) -> bool:
    """Whether plain values have the same form: keys, lengths and types, but for what a device sets."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = {*one, *other} - {*_OF_THE_DEVICE}
        return names <= one.keys() & other.keys() and all(_alike(one[name], other[name]) for name in names)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return type(one) is type(other)


def forget(optimizer: Optimizer) -> None:
    """Begin anew with what the optimiser gathered: momentum, Adam's count of steps and the like become 0 in place."""
    for kept in optimizer.state.values():
        for each in kept.values():
            if isinstance(each, torch.Tensor):
                each.zero_()


def step(optimizer: Optimizer, lr: float | torch.Tensor, clip: float) -> None:
    """One step with that learning rate: on a GPU a tensor there, which a recording reads anew each time.

    The gradient is shortened to a norm of `clip` first where it is longer; 0: as it is.
    """
    (group,) = optimizer.param_groups
    if clip:
        nn.utils.clip_grad_norm_(group["params"], clip)
    before = dict(group)
    group["lr"] = lr
    if "capturable" in group:  # Adam's word that it knows it is being recorded
        on_gpu = any(parameter.is_cuda for parameter in group["params"])
        group["capturable"] = on_gpu and torch.cuda.is_current_stream_capturing()
    try:
        optimizer.step()
    finally:
        group.update(before)
