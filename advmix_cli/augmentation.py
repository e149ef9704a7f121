"""Mirror images and random crops, drawn for each image by itself."""

from __future__ import annotations

import torch
from torch import nn

from advmix_cli import draws


def augment(x: torch.Tensor, index: torch.Tensor, flip: bool, padding: int, *parts: object) -> torch.Tensor:
    """Each image (N,C,H,W) flipped with probability 1/2, and cropped at random after zero-padding; on the device.

    What is drawn follows from `parts` (the seed, the epoch) and the images' `index` (N,).
    """
    n, _, height, width = x.shape
    if flip:
        x = torch.where(draws.uniform(index, (1, 1, 1), *parts, "flip") < 0.5, x.flip(3), x)
    if padding:
        padded = nn.functional.pad(x, (padding,) * 4)
        offset = (draws.uniform(index, (2, 1), *parts, "crop") * (2 * padding + 1)).long()
        rows = (offset[:, 0] + torch.arange(height, device=x.device))[:, None, :, None]
        columns = (offset[:, 1] + torch.arange(width, device=x.device))[:, None, None, :]
        batch = torch.arange(n, device=x.device)[:, None, None, None]
        channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
        x = padded[batch, channel, rows, columns]
    return x
