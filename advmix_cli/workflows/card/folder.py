"""A folder to publish: the weights, what they are the weights of, and how they are loaded."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, models
from advmix_cli._version import __version__
from advmix_cli.models import Network
from advmix_cli.names import kind_of
from advmix_cli.results import shown
from advmix_cli.workflows.references import ModelRef, history, load_model
from advmix_cli.workflows.session import Session

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def _alone(model: ModelRef) -> bool:
    """Whether the weights go without the record: it is of others, or names a file that only this machine has."""
    return model.digest != model.record["digests"]["best"] or models.kind_of(model.arch) == "file"


def weights(session: Session, model: ModelRef) -> bytes:
    """The weights under plain names; the chosen ones with the whole record, as the zoo has them."""
    meant = artifacts.checkpoint_weights(model.path, model.which)
    if _alone(model):
        return artifacts.weights_bytes(meant)
    if kind_of(model.dataset) in ("folder", "npz"):
        session.report.warn(f"the record in {WEIGHTS} names {shown(model.dataset)}")
    record = {k: v for k, v in model.record.items() if k not in ("digests", "history_sha256")}
    if "history_sha256" in model.record:  # a file of the first form: its history moves in
        record["history"] = history(model.path, model.record)
    return artifacts.checkpoint_bytes(meant, meant, record)


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


def with_advmix(model: ModelRef, ref: str = WEIGHTS) -> str:
    """How advmix loads them: by a reference, or out of the folder."""
    network = model.network
    if ref == WEIGHTS and _alone(model):
        return _import(model)
    ours = ", run_code=True" if models.kind_of(network.arch) == "file" else ""
    return (
        "import advmix_cli\n\n"
        f"model = advmix_cli.load({json.dumps(ref, ensure_ascii=False)}{ours})  # images in [0,1] to logits"
    )


def _import(model: ModelRef) -> str:
    """The command that takes in weights without a record."""
    network, kind = model.network, kind_of(model.dataset)
    dataset = f"{kind}:PATH" if kind in ("folder", "npz") else model.dataset
    arch = f"FILE.py:{network.label}" if models.kind_of(network.arch) == "file" else network.arch
    words = ["advmix", "import", WEIGHTS, "--dataset", dataset, "--arch", arch]
    words += [word for given in network.args for word in ("--arch-arg", given)]
    if network.mean is not None and network.std is not None:
        parts = (",".join(f"{value:g}" for value in part) for part in (network.mean, network.std))
        words += ["--normalize", ":".join(parts) if network.mean else "none"]
    return shlex.join(words)


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
