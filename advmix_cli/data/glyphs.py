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
    for i in range(count):
        matrix = _inverse_affine(angle[i], shear[i], scale[i], shift[i])
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


def _inverse_affine(
    angle: float, shear: float, scale: np.ndarray, shift: np.ndarray
) -> tuple[float, float, float, float, float, float]:
    """What `Image.transform` wants: the map from a pixel of the result to a point of the canvas."""
    cos, sin = np.cos(angle), np.sin(angle)
    forward = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1.0, shear], [0.0, 1.0]]) @ np.diag(scale)
    ratio = _CANVAS / 2 / _SIZE
    inverse = np.linalg.inv(forward) * ratio
    offset = _CANVAS / 4 - inverse @ (np.array([_SIZE / 2, _SIZE / 2]) + shift)
    return (inverse[0, 0], inverse[0, 1], offset[0], inverse[1, 0], inverse[1, 1], offset[1])
