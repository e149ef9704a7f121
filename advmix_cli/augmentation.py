"""Mirror images, crops, colours and shapes, drawn for each image by itself; on the device, all images at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from advmix_cli import draws
from advmix_cli.runtime import generator

Tensor = torch.Tensor

_MOST_CROPPED = 11 / 32
"""The most that IDBH takes of a side."""

_GREY = (0.299, 0.587, 0.114)


def augment(x: Tensor, index: Tensor, flip: bool, padding: int, *parts: object) -> Tensor:
    """Each image (N,C,H,W) flipped with probability 1/2, and cropped at random after zero-padding; on the device.

    What is drawn follows from `parts` (the seed, the epoch) and the images' `index` (N,).
    """
    if flip:
        x = torch.where(draws.uniform(index, (1, 1, 1), *parts, "flip") < 0.5, x.flip(3), x)
    if padding:
        offset = (draws.uniform(index, (2, 1), *parts, "crop") * (2 * padding + 1)).long() - padding
        x = _moved(x, offset[:, 0], offset[:, 1])
    return x


def _moved(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Images whose pixel (i,j) is that of (i + down, j + right), both (N,1); 0 where there is none."""
    n, channels, height, width = x.shape
    rows, columns = (torch.arange(side, device=x.device) + by for side, by in ((height, down), (width, right)))
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[:, None, None, :]
    batch = torch.arange(n, device=x.device)[:, None, None, None]
    channel = torch.arange(channels, device=x.device)[None, :, None, None]
    found = x[batch, channel, rows.clamp(0, height - 1)[:, None, :, None], columns.clamp(0, width - 1)[:, None, None]]
    return found * inside


def idbh(x: Tensor, index: Tensor, flip: bool, *parts: object) -> Tensor:
    """Images (N,C,H,W) under the augmentation IDBH, on the device. Source: Li and Spratling 2023.

    A flip with probability 1/2 where images may be flipped; a crop of up to 11/32 of each side, put anywhere; one of
    eight changes of colour or shape (saturation, brightness, contrast, sharpness, stretched contrast, shear along each
    side, rotation) of a random strength; and with probability 1/2 a rectangle of up to half a side erased.
    """
    x = augment(x, index, flip, 0, *parts)
    x = _cropped(x, draws.uniform(index, (2, 3), *parts, "crop-shift"))
    kind, strength = draws.uniform(index, (2, 1, 1, 1), *parts, "kind").unbind(1)
    x = _changed(x, (kind * 8).long(), 2 * strength - 1)
    erased, height, width, top, left = draws.uniform(index, (5, 1, 1, 1), *parts, "erase").unbind(1)
    hole = _rectangle(x, top, left, height / 2, width / 2) & (erased < 0.5)
    return torch.where(hole, torch.zeros_like(x), x)


def _cropped(x: Tensor, drawn: Tensor) -> Tensor:
    """A window of each image, put elsewhere on black; `drawn` (N,2,3) are its size, where from and where to."""
    ends = []
    for axis, side in enumerate(x.shape[2:]):
        lost = (drawn[:, axis, 0] * (round(_MOST_CROPPED * side) + 1)).long()
        begin, to = ((drawn[:, axis, place] * (lost + 1)).long() for place in (1, 2))
        ends.append((begin - to, to, to + side - lost))
    (down, top, bottom), (right, left, end) = ends
    rows, columns = (torch.arange(side, device=x.device) for side in x.shape[2:])
    window = ((rows >= top[:, None]) & (rows < bottom[:, None]))[:, None, :, None]
    window = window & ((columns >= left[:, None]) & (columns < end[:, None]))[:, None, None]
    return _moved(x, down[:, None], right[:, None]) * window


def _changed(x: Tensor, kind: Tensor, strength: Tensor) -> Tensor:
    """Each image changed as its `kind` (N,1,1,1) from 0 to 7 says, by `strength` (N,1,1,1) from -1 to 1."""
    weights = torch.tensor(_GREY if x.shape[1] == 3 else [1 / x.shape[1]] * x.shape[1], device=x.device)
    grey = (x * weights.view(1, -1, 1, 1)).sum(1, keepdim=True)
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    smooth = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    by = 1 + 0.8 * strength
    colours = [
        grey + by * (x - grey),
        by * x,
        grey.mean((2, 3), keepdim=True) + by * (x - grey.mean((2, 3), keepdim=True)),
        smooth + by * (x - smooth),
        (x - low) / (high - low).clamp(min=1 / 255),
    ]
    for number, changed in enumerate(colours):
        x = torch.where(kind == number, changed, x)
    s, k = strength[:, 0, 0, 0], kind[:, 0, 0, 0]
    zero, angle = torch.zeros_like(s), s * (torch.pi / 6)
    along, across = torch.where(k == 5, 0.3 * s, zero), torch.where(k == 6, 0.3 * s, zero)
    turned = k == 7
    cosine, sine = (torch.where(turned, f, zero + i) for f, i in ((angle.cos(), 1.0), (angle.sin(), 0.0)))
    matrix = torch.stack(
        [torch.stack([cosine, along - sine, zero], 1), torch.stack([across + sine, cosine, zero], 1)], 1
    )
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    shaped = F.grid_sample(x, grid, align_corners=False)
    return torch.where(kind >= len(colours), shaped, x).clamp(0, 1)


def _rectangle(x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Which pixels lie in a rectangle of each image, (N,1,H,W): its sides and where it begins, as shares (N,1,1,1)."""
    rows, columns = (torch.arange(side, device=x.device) / side for side in x.shape[2:])
    y, z = rows[None, None, :, None], columns[None, None, None]
    up, side = top * (1 - height), left * (1 - width)
    return (y >= up) & (y < up + height) & (z >= side) & (z < side + width)


def cutmix(x: Tensor, index: Tensor, *parts: object) -> tuple[Tensor, Tensor, Tensor]:
    """Images with a rectangle of another image of the batch each, whose it is, (N,), and the share of its own, (N,1).

    Source: Yun et al. 2019: the rectangle's area is uniform, its place too.
    """
    perm = torch.randperm(len(x), generator=generator("cpu", *parts, "paste")).to(x.device)
    area, top, left = draws.uniform(index, (3, 1, 1, 1), *parts, "box").unbind(1)
    side = area.sqrt()
    pasted = _rectangle(x, top, left, side, side)
    share = 1 - pasted.float().mean((1, 2, 3))
    return torch.where(pasted, x[perm], x), perm, share[:, None]
