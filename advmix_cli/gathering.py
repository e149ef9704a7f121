"""What ranks compute together: a batch from the rows that each has of it, and the mean of their gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from advmix_cli.errors import UsageError
from advmix_cli.world import World, peers


def whole(world: World, x: torch.Tensor, n: int) -> torch.Tensor:
    """A batch (n,...), from the rows (N,...) of each rank, which `World.rows` gave it; of a process alone x itself.

    The gradient of a row is the sum of what all ranks' losses have of it.
    """
    return x if not world.joined else _Gathered.apply(x, world, n)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, world: World, n: int) -> torch.Tensor:
        ctx.world, ctx.n, ctx.rows = world, n, len(x)
        most = -(-n // world.size)
        padded = torch.cat([x, x.new_zeros((most - len(x), *x.shape[1:]))]).contiguous()
        found = [torch.empty_like(padded) for _ in range(world.size)]
        with peers(world):
            distributed.all_gather(found, padded)
        sizes = [len(range(n * rank // world.size, n * (rank + 1) // world.size)) for rank in range(world.size)]
        return torch.cat([each[:size] for each, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        slope, own = slopes[0].contiguous().clone(), ctx.world.range(ctx.n)
        with peers(ctx.world):
            distributed.all_reduce(slope)
        mine = slope[own.start : own.stop]
        return torch.cat([mine, mine.new_zeros((ctx.rows - len(mine), *mine.shape[1:]))]), None, None


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with batch norms that take means over all ranks' images. Raises UsageError where torch has none."""
    if device.type != "cuda":
        raise UsageError(f"--sync-bn needs GPUs, and this is {device}", "leave it out")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call, no-any-return, unused-ignore]


def together(model: nn.Module, loss: Callable[..., Any]) -> Callable[..., Any]:
    """The loss, behind which gradients of the model's parameters are the means over ranks.

    Buffers stay each rank's own: what is broadcast between two forward passes breaks the backward pass of the first.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer torch has another name for it, which older does not know
        return DistributedDataParallel(_Loss(model, loss), broadcast_buffers=False, static_graph=True)


class _Loss(nn.Module):
    """A loss as a forward pass, whatever it asks of the model."""

    def __init__(self, model: nn.Module, loss: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, key: Any, **inputs: Any) -> Any:
        """The loss on what was prepared."""
        return self._loss(key, **inputs)
