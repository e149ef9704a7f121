"""A folder to publish: the weights, what they are the weights of, and how they are loaded."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, models
from advmix_cli._version import __version__
from advmix_cli.errors import UsageError
from advmix_cli.models import Network
from advmix_cli.names import kind_of
from advmix_cli.results import shown
from advmix_cli.workflows.references import ModelRef, load_model
from advmix_cli.workflows.session import Session

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def check(model: ModelRef) -> None:
    """Raise UsageError where other weights are meant than the record is of."""
    digests = model.record["digests"]
    if model.digest != digests["best"]:
        raise UsageError(
            f"{model.label}: a folder to publish has the chosen weights, whose figures its record gives",
            f"leave @{model.which} out",
        )


def weights(session: Session, model: ModelRef) -> bytes:
    """The chosen weights under plain names, with the whole record, as the zoo has them."""
    for path in _paths(model):
        session.report.warn(f"the record in {WEIGHTS} names {path}")
    best = artifacts.checkpoint_weights(model.path, "best")
    return artifacts.checkpoint_bytes(best, best, {k: v for k, v in model.record.items() if k != "digests"})


def _paths(model: ModelRef) -> list[str]:
    """What of a record is of this machine."""
    dataset = [model.dataset] if kind_of(model.dataset) in ("folder", "npz") else []
    return [shown(each) for each in dataset + ([model.arch] if models.kind_of(model.arch) == "file" else [])]


def config(card: dict[str, Any], network: Network) -> str:
    """What the weights are the weights of, for programs."""
    model = card["model"]
    return json.dumps(
        {
            "library_name": "advmix", "advmix_version": __version__, "name": model["name"],
            "architecture": model["arch"], "arguments": list(network.args), "code_sha256": model["code_sha256"],
            "input": {"shape": model["shape"], "range": [0, 1], "type": "float32"},
            "normalisation": model["normalisation"] and {**model["normalisation"], "inside_the_model": True},
            "num_classes": model["classes"], "classes": model["class_names"], "weights": WEIGHTS,
            "weights_digest": model["digest"], "load": card["load"],
        },
        indent=2,
    ) + "\n"  # fmt: skip


def with_advmix(network: Network, ref: str) -> str:
    """How advmix loads them; `ref` is a reference or a file."""
    if models.kind_of(network.arch) == "file" and ref == WEIGHTS:  # is not run unless it is named
        return shlex.join(["advmix", "import", WEIGHTS, "--arch", f"FILE.py:{network.arch.rpartition(':')[2]}"])
    ours = ", run_code=True" if models.kind_of(network.arch) == "file" else ""
    return (
        "import advmix_cli\n\n"
        f"model = advmix_cli.load({json.dumps(ref, ensure_ascii=False)}{ours})  # images in [0,1] to logits"
    )


def with_torch(model: ModelRef) -> str:
    """The same in torch: the network itself, its weights, and what goes before it."""
    from advmix_cli.models.normalize import Normalized

    built, network = load_model(model, "cpu"), model.network
    inner = isinstance(built, Normalized)
    named = (
        "{name.removeprefix('network.'): each for name, each in weights.items() if name.startswith('network.')}"
        if inner
        else "weights"
    )
    lines = [*_made(network), f"net.load_state_dict({named})", "net.eval()", *_before(built, network)]
    return "\n".join(["from safetensors.torch import load_file", *lines])


def _before(built: nn.Module, network: Network) -> list[str]:
    from advmix_cli.models.normalize import Normalized

    said, lines = "x", []
    if isinstance(built, Normalized):
        if built.channels != network.shape[0]:
            said = f"x.expand(-1, {built.channels}, -1, -1)"
        if built.normalize is not None:
            lines = ["mean, std = weights['normalize.mean'], weights['normalize.std']"]
            said = f"({said} - mean) / std"
    sides = ", ".join(map(str, network.shape))
    return [*lines, f"logits = net({said})  # x: float images (N, {sides}) in [0,1]"]


def _made(network: Network) -> list[str]:
    """The lines that make the network and read its weights."""
    from advmix_cli.models import building

    read, kind = f"weights = load_file({WEIGHTS!r})", models.kind_of(network.arch)
    if kind == "built-in":
        module, _, function = models.info(network.arch).source.partition(":")
        channels, height, width = network.shape
        made = f"net = {function}({channels}, {network.classes}, {height}, {width})"
        return [f"from {module} import {function}  # layers of torch", "", read, made]
    if kind == "file":
        factory = network.arch.rpartition(":")[2]
        given = _arguments(building.arguments(network.args))
        return [
            f"from FILE import {factory}  # the network's own file, SHA-256 {network.code}", "", read,
            f"net = {factory}({given})  # with classes and channels where it takes them",
        ]  # fmt: skip
    module, function = ("timm", "create_model") if kind == "timm" else ("torchvision.models", "get_model")
    name, given = network.arch.partition(":")[2], _arguments(building.told(network))
    return [f"from {module} import {function}", "", read, f"net = {function}({name!r}, {given})"]


def _arguments(given: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in given.items())
