"""What Python users give: images, labels, options; checked, and as the rest of the package takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from advmix_cli import attacks
from advmix_cli.data import DatasetInfo, ImageSet
from advmix_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    Array = torch.Tensor | np.ndarray

_OF_COMMANDS = frozenset(
    {
        "dataset", "image_size", "split", "limit", "arch", "arch_arg", "normalize", "weights", "init", "untrained",
        "name", "models", "samples", "report", "fail_on", "verbose", "inference", "inference_arg",
    }
)  # fmt: skip
"""What requests ask of data, networks and the store, which here are the arguments themselves."""


def known(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, if the request has them and they mean something here."""
    from advmix_cli.errors import known_name

    names = [field.name for field in dataclasses.fields(kind) if field.name not in _OF_COMMANDS]
    return {known_name(name, names, "option"): value for name, value in options.items()}


def device(model: nn.Module) -> torch.device:
    """Where a model is."""
    import torch

    first = next(iter([*model.parameters(), *model.buffers()]), None)
    return torch.device("cpu") if first is None else first.device


def classes(y: Array) -> int:
    """How many classes labels speak of."""
    return int(y.max()) + 1 if len(y) else 0


def images(model: nn.Module, x: Array, y: Array) -> ImageSet:
    """Images on the model's device, with as many classes as it has outputs. Raises UsageError."""
    import torch

    where = device(model)
    images = image_set(x, y, max(classes(y), 2), "test").to(where)
    with attacks.frozen(model), torch.no_grad():
        said = model(attacks.to_float(images.x[:1]))
    if not isinstance(said, torch.Tensor) or said.ndim != 2:
        raise UsageError("the model gives no logits (N,classes)", "wrap it so that it returns a tensor of logits")
    if classes(y) > said.shape[1]:
        raise UsageError(f"a label is {classes(y) - 1}, and the model has {said.shape[1]} outputs", "check the labels")
    names = tuple(map(str, range(said.shape[1])))
    return dataclasses.replace(images, info=dataclasses.replace(images.info, classes=names))


def image_set(x: Array, y: Array, count: int, split: str) -> ImageSet:
    """Images (N,C,H,W) with labels (N,) of so many classes. Raises UsageError for what is none."""
    import torch

    pixels, labels = torch.as_tensor(x), torch.as_tensor(y)
    if pixels.ndim != 4 or not len(pixels) or labels.shape != pixels.shape[:1]:
        raise UsageError(
            f"images {tuple(pixels.shape)} and labels {tuple(labels.shape)} do not fit together",
            "images are (N,C,H,W), labels (N,)",
        )
    if labels.is_floating_point() or labels.dtype == torch.bool or int(labels.min()) < 0:
        raise UsageError("labels are whole numbers from 0", "see the argument y")
    if pixels.dtype != torch.uint8:
        pixels = pixels.float()
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):  # also catches NaN
            raise UsageError(
                f"images leave [0,1]: {low:.6g} to {high:.6g}", "give uint8, or floats before any normalisation"
            )
    shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
    names = tuple(map(str, range(count)))
    info = DatasetInfo("images", "", shape, {split: len(labels)}, names, "", native=shape)
    return ImageSet(info, split, pixels, labels.long())
