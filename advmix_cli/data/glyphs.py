"""The embedded data set: digits in Pillow's own font under random affine changes, stroke widths and noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

_SIZE = 28
_CANVAS = 84
_COUNTS = {"train": 10_000, "test": 2_000}
_SEEDS = {"train": 20_200_601, "test": 20_200_602}
_STROKES = (0, 1, 2, 4)


def glyphs(split: str, root: Path, download: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Uint8 (N,1,28,28), drawn, and int64 (N,). The same for everyone; takes a second.

    `root` and `download` are not needed: nothing is read.
    """
    rng = np.random.default_rng(_SEEDS[split])
    count = _COUNTS[split]
    labels = rng.permutation(np.arange(count) % 10)
    strokes = rng.integers(0, len(_STROKES), count)
    angle = np.deg2rad(rng.uniform(-20, 20, count))
    shear = rng.uniform(-0.25, 0.25, count)
    scale = rng.uniform(0.8, 1.15, (count, 2))
    shift = rng.uniform(-2.5, 2.5, (count, 2))
    bases = {(digit, stroke): _draw(digit, stroke) for digit in range(10) for stroke in _STROKES}

    pixels = np.empty((count, _SIZE, _SIZE), dtype=np.float32)
    for i, matrix in enumerate(_inverse_affine(angle, shear, scale, shift).tolist()):
        base = bases[int(labels[i]), _STROKES[strokes[i]]]
        image = base.transform((_SIZE, _SIZE), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)
        pixels[i] = np.asarray(image)
    pixels *= rng.uniform(0.5, 1.0, (count, 1, 1)).astype(np.float32)
    pixels += rng.normal(0.0, 10.0, pixels.shape).astype(np.float32)
    x = torch.from_numpy(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))[:, None]
    return x, torch.from_numpy(labels.astype(np.int64))


def _draw(digit: int, stroke: int) -> Image.Image:
    """A digit in the middle of a canvas half again as large as the image."""
    image = Image.new("L", (_CANVAS, _CANVAS), 0)
    font = ImageFont.load_default(size=64)
    middle = _CANVAS / 2
    ImageDraw.Draw(image).text((middle, middle), str(digit), font=font, fill=255, anchor="mm", stroke_width=stroke)
    return image.reduce(2)


def _inverse_affine(angle: np.ndarray, shear: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What `Image.transform` wants, (N,6): the maps from a pixel of the result to a point of the canvas."""
    cos, sin, zero, one = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    rotated = np.stack([cos, -sin, sin, cos], axis=1).reshape(-1, 2, 2)
    sheared = np.stack([one, shear, zero, one], axis=1).reshape(-1, 2, 2)
    inverse = np.linalg.inv(rotated @ sheared * scale[:, None]) * (_CANVAS / 2 / _SIZE)
    offset = _CANVAS / 4 - inverse @ (_SIZE / 2 + shift)[:, :, None]
    return np.concatenate([inverse, offset], axis=2).reshape(-1, 6)
