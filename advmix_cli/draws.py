"""Random numbers that belong to a sample: they follow from a seed, what they are for, and the sample's index alone.

Neither the batch a sample is in, nor the device, the order of work or a continuation changes them. A generator has a
state that others move on; here a number is a hash of its place. Only whole numbers are computed with, so that every
device gives the same bits.
"""

from __future__ import annotations

import hashlib

import torch

_LOW = 0xFFFFFFFF
_ROUNDS = ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32))
"""Shifts and odd factors, found by search for little bias: Wellons 2018, lowbias32. Modulo 2^32 a factor may be taken
negative, and the products stay within 64 bits."""


def _mixed(h: torch.Tensor) -> torch.Tensor:
    """Whole numbers below 2^32, scattered over the same range, one to one; in place."""
    for shift, factor in _ROUNDS:
        h.bitwise_xor_(h >> shift).mul_(factor).bitwise_and_(_LOW)
    return h.bitwise_xor_(h >> 16)


def uniform(index: torch.Tensor, shape: tuple[int, ...], *parts: object) -> torch.Tensor:
    """Numbers in [0,1), float32 (n,*shape), for the samples of `index` (n,), whole numbers of at least 0.

    `parts` are the seed and what the numbers are for. They are multiples of 2^-24.
    """
    first, second, third = (
        int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[i : i + 4], "little") for i in (0, 4, 8)
    )
    place = torch.arange(torch.Size(shape).numel(), device=index.device)
    sample = _mixed((index ^ first) & _LOW)
    other = _mixed(((sample + second) & _LOW) ^ (index >> 32))
    h = _mixed(place[None] + sample[:, None] & _LOW).bitwise_xor_(other[:, None]).bitwise_xor_(third)
    return (_mixed(h) >> 8).to(torch.float32).mul_(2.0**-24).view(len(index), *shape)


def signs(index: torch.Tensor, shape: tuple[int, ...], *parts: object) -> torch.Tensor:
    """-1 or 1, float32 (n,*shape), in the same way."""
    return torch.where(uniform(index, shape, *parts) < 0.5, -1.0, 1.0)


def normal(index: torch.Tensor, shape: tuple[int, ...], *parts: object) -> torch.Tensor:
    """Normal numbers, float32 (n,*shape), in the same way but for rounding, which is the device's. Box, Muller 1958."""
    length, angle = uniform(index, (2, *shape), *parts).unbind(1)
    return (-2 * (1 - length).log()).sqrt() * (2 * torch.pi * angle).cos()


def in_ball(index: torch.Tensor, shape: tuple[int, ...], norm: str, *parts: object) -> torch.Tensor:
    """Uniform points of the unit ball in `norm`, float32 (n,*shape), in the same way.

    In L2 a direction is drawn with normal numbers (Box and Muller 1958) and the radius is the d-th root of a uniform
    one, in float64 on the CPU: logarithms and sums round otherwise on other devices.
    """
    if norm == "linf":
        return uniform(index, shape, *parts).mul_(2).sub_(1)
    here, d = index.cpu(), torch.Size(shape).numel()
    pairs = uniform(here, (2, -(-d // 2)), *parts).double()
    length, angle = (-2 * (1 - pairs[:, 0]).log()).sqrt(), 2 * torch.pi * pairs[:, 1]
    points = torch.cat([length * angle.cos(), length * angle.sin()], 1)[:, :d]
    radius = uniform(here, (1,), *parts, "radius").double() ** (1 / d)
    points *= radius / points.square().sum(1, keepdim=True).sqrt().clamp_(min=1e-12)
    return points.float().view(len(index), *shape).to(index.device)
