"""Building a network: what is built in, timm's, torchvision's, and what a user's own file gives."""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advmix_cli import models
from advmix_cli.errors import AdvmixError, UsageError, nearest
from advmix_cli.models import Network
from advmix_cli.models.normalize import Normalize, Normalized


def module(network: Network) -> nn.Module:
    """The fresh module that `network` says, in whatever mode, its parameters drawn from torch's global generator.

    Raises UsageError where it is none that gives a row of logits for each image.
    """
    kind = models.kind_of(network.arch)
    with contextlib.redirect_stdout(sys.stderr):  # standard output carries results alone
        if kind == "built-in":
            return _built_in(network)
        made, channels, mean, std = _MAKERS[kind](network)
        if network.mean is not None and network.std is not None:
            mean, std = network.mean, network.std
        if len(mean) not in (0, channels):  # grey images, repeated
            mean, std = mean * channels, std * channels
        before = Normalize(mean, std) if mean else None
        model = Normalized(before, made, channels) if before or channels != network.shape[0] else made
        _try(model, network)
    return model


_Made = tuple[nn.Module, int, tuple[float, ...], tuple[float, ...]]
"""The network, the channels that it takes, and the normalisation that it has of its own."""


def _built_in(network: Network) -> nn.Module:
    entry = models.info(network.arch)
    if network.args:
        raise UsageError(f"{entry.name} takes no --arch-arg", "networks of timm, torchvision and of files do")
    source, _, function = entry.source.partition(":")
    channels, height, width = network.shape
    made: nn.Module = getattr(importlib.import_module(source), function)(channels, network.classes, height, width)
    if network.mean is None or network.std is None:
        return made
    own = next((layer for layer in made.modules() if isinstance(layer, Normalize)), None)
    if own is not None:
        own.mean.copy_(torch.tensor(network.mean or [0.0] * channels).view(-1, 1, 1))
        own.std.copy_(torch.tensor(network.std or [1.0] * channels).view(-1, 1, 1))
        return made
    return Normalized(Normalize(network.mean, network.std), made, channels) if network.mean else made


def _timm(network: Network) -> _Made:
    timm = _library("timm")
    name = network.arch.partition(":")[2]
    if not timm.is_model(name):
        raise UsageError(f"timm knows no {name}", nearest(name, timm.list_models()), code="unknown-arch")
    channels, about, given = network.shape[0], timm.get_pretrained_cfg(name), told(network)
    made = _called(lambda: timm.create_model(name, **given), network)
    own = about is not None and len(about.mean) == channels
    return made, channels, tuple(about.mean) if own else (), tuple(about.std) if own else ()


def _torchvision(network: Network) -> _Made:
    from torchvision import models as theirs

    name = network.arch.partition(":")[2]
    if name not in theirs.list_models(module=theirs):
        known = theirs.list_models(module=theirs)
        raise UsageError(f"torchvision knows no classifier {name}", nearest(name, known), code="unknown-arch")
    given = told(network)
    made = _called(lambda: theirs.get_model(name, **given), network)
    weights = getattr(theirs.get_model_weights(name), "DEFAULT", None)
    about = weights.transforms() if weights is not None else None
    return made, 3, tuple(getattr(about, "mean", ())), tuple(getattr(about, "std", ()))


def told(network: Network) -> dict[str, Any]:
    """What timm's or torchvision's factory is told beside the name."""
    if models.kind_of(network.arch) == "torchvision":
        return {"weights": None, "num_classes": network.classes} | arguments(network.args)
    channels, height, width = network.shape
    given = {"pretrained": False, "num_classes": network.classes, "in_chans": channels} | arguments(network.args)
    about = _library("timm").get_pretrained_cfg(network.arch.partition(":")[2])
    if about is not None and about.fixed_input_size and tuple(about.input_size[1:]) != (height, width):
        given.setdefault("img_size", (height, width))
    return given


def _file(network: Network) -> _Made:
    path, _, factory = network.arch.rpartition(":")
    code = models.unchanged_code(network)
    own = types.ModuleType(f"advmix_network_{network.code[:12]}")
    own.__file__ = path
    sys.modules[own.__name__] = own
    sys.path.insert(0, str(Path(path).parent))
    try:
        exec(compile(code, path, "exec"), own.__dict__)
    except AdvmixError:
        raise
    except Exception as error:
        raise UsageError(f"{path} cannot be run: {_said(error)}", "try it with python first") from error
    finally:
        sys.path.remove(str(Path(path).parent))
    function = getattr(own, factory, None)
    if not callable(function):
        there = [name for name, value in vars(own).items() if callable(value) and not name.startswith("_")]
        raise UsageError(f"{path} has no {factory}", nearest(factory, there), code="unknown-arch")
    given = _wanted(function, network)
    made = _called(lambda: function(**given), network)
    if not isinstance(made, nn.Module):
        raise UsageError(f"{factory} gives a {type(made).__name__}, not a torch.nn.Module", "return the network")
    return made, network.shape[0], (), ()


_MAKERS: Mapping[str, Callable[[Network], _Made]] = {"timm": _timm, "torchvision": _torchvision, "file": _file}

_MEANINGS = {
    "num_classes": 1, "classes": 1, "n_classes": 1, "in_chans": 0, "in_channels": 0, "channels": 0,
}  # fmt: skip
"""How factories call the number of classes (1) and of channels (0): given where they have a parameter of that name."""


def _wanted(function: Callable[..., Any], network: Network) -> dict[str, Any]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        parameters = types.MappingProxyType({})
    known = (network.shape[0], network.classes)
    given = {name: known[place] for name, place in _MEANINGS.items() if name in parameters}
    given |= arguments(network.args)
    anything = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    surplus = [name for name in given if name not in parameters]
    if surplus and not anything:
        raise UsageError(f"{network.label} has no argument {', '.join(surplus)}", nearest(surplus[0], parameters))
    missing = [
        name
        for name, each in parameters.items()
        if each.default is each.empty and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL) and name not in given
    ]
    if missing:
        raise UsageError(f"{network.label} wants {', '.join(missing)}", f"give --arch-arg {missing[0]}=VALUE")
    return given


def listed(pattern: str) -> list[str]:
    """The networks of timm or torchvision like `timm:resnet*`."""
    kind, _, like = pattern.partition(":")
    if kind == "timm":
        return [f"timm:{name}" for name in _library("timm").list_models(like)]
    if kind == "torchvision":
        from torchvision import models as theirs

        return [f"torchvision:{name}" for name in theirs.list_models(module=theirs, include=like)]
    return [name for name in models.ARCHITECTURES if fnmatch.fnmatchcase(name, pattern)]


def arguments(texts: tuple[str, ...]) -> dict[str, Any]:
    """KEY=VALUE as keyword arguments: numbers, True, None, tuples as Python writes them, all else text."""
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name.isidentifier():
            raise UsageError(f"--arch-arg {text}: {name!r} is no name", "write KEY=VALUE, for example width=2")
        if name in found:
            raise UsageError(f"--arch-arg {name} is given twice", "give it once")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found[name] = {"true": True, "false": False, "none": None}.get(value.lower(), value)
    return found


def _called(make: Callable[[], Any], network: Network) -> Any:
    try:
        return make()
    except AdvmixError:
        raise
    except Exception as error:
        raise UsageError(f"{network.arch} cannot be built: {_said(error)}", "see its --arch-arg") from error


def _said(error: BaseException) -> str:
    first = (str(error).splitlines() or [""])[0][:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _try(model: nn.Module, network: Network) -> None:
    """Raise UsageError unless it gives logits, a row an image."""
    model.eval()
    with torch.no_grad():
        try:
            said = model(torch.zeros(2, *network.shape))
        except Exception as error:
            size = "x".join(map(str, network.shape))
            raise UsageError(
                f"{network.arch} does not take images of {size}: {_said(error)}",
                "choose another --image-size, or another network",
            ) from error
    if not isinstance(said, torch.Tensor) or not said.is_floating_point():
        raise UsageError(f"{network.arch} gives a {type(said).__name__}, not a tensor of logits", "return the logits")
    if tuple(said.shape) != (2, network.classes):
        raise UsageError(
            f"{network.arch} gives {tuple(said.shape)} for 2 images, not (2, {network.classes})",
            f"it has to tell {network.classes} classes apart",
        )


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AdvmixError(
            f"networks of {name} need {name}, which is not here: {_said(error)}",
            f"install it: pip install {name}",
            code="missing-library",
        ) from None
