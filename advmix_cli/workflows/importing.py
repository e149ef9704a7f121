"""`advmix import`: checkpoints of others, taken in without executing anything in them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, data, models
from advmix_cli.errors import NotFoundError, UsageError
from advmix_cli.results import Result
from advmix_cli.settings import SCHEMA, digest
from advmix_cli.workflows.making import made, make_once, set_alias
from advmix_cli.workflows.session import Session
from advmix_cli.workflows.train import checkpoint_result

if TYPE_CHECKING:
    import torch

_NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")
_WRAPPERS = ("module.", "_orig_mod.", "model.")


def import_checkpoint(session: Session, file: Path, dataset: str, arch: str, alias: str | None = None) -> Result:
    """Take in the weights of a `.pt`, `.pth`, `.tar` or `.safetensors` file as a checkpoint of `arch`."""
    began, info = time.monotonic(), data.info(dataset)
    models.check_fit(arch, dataset, info.shape)
    if not file.is_file():
        raise NotFoundError(f"there is no file {file}", "check the path")
    weights = fitted(_tensors(file), arch, file)
    made_of = {"dataset": dataset, "weights": artifacts.tensors_digest(weights), **models.identity(arch)}
    own = digest({"schema": SCHEMA, "kind": "import", **made_of})
    name = f"{dataset}-{arch}-import-{own[:8]}"
    record = {
        "schema": SCHEMA,
        "kind": "checkpoint",
        "name": name,
        "key": own,
        "origin": "import",
        "source": file.name,
        "arch": arch,
        "dataset": dataset,
        "shape": list(info.shape),
        "classes": len(info.classes),
        "epochs": 0,
        "metrics": {},
        "made": made(session, time.monotonic() - began),
    }
    path = session.store.path("checkpoints", name)

    def make() -> None:
        session.store.write(path, artifacts.checkpoint_bytes(weights, weights, record))

    stored, cached = make_once(session, "checkpoints", name, own, artifacts.checkpoint_record, make)
    set_alias(session, alias, "checkpoints", name)
    return checkpoint_result(session, stored, cached, alias)


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    """The state dict in the file: the whole of it, or what lies under one of the usual names."""
    import torch

    content: Any
    if file.suffix == ".safetensors":
        artifacts.check_safetensors(file)
        content = artifacts.checkpoint_weights(file, "best")
    else:
        content = artifacts.load_plain(file, skip_foreign=True)
    for name in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict):
        raise UsageError(
            f"{file} holds no state dict but a {type(content).__name__}",
            "save model.state_dict() and import that",
        )
    tensors = {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise UsageError(f"{file} holds no tensors", "save model.state_dict() and import that")
    return tensors


def fitted(tensors: dict[str, torch.Tensor], arch: str, file: Path) -> dict[str, torch.Tensor]:
    """`tensors` under the architecture's own names, wrappers' prefixes and the report's names mapped.

    Raises UsageError, naming the first misfits, where a weight is missing, too many, or of another shape.
    """
    wanted = models.build(arch).state_dict()
    named = {_own_name(name, arch): tensor for name, tensor in tensors.items()}
    # The normalisation is this project's own layer: files of others rarely have it.
    own = {name: tensor for name, tensor in wanted.items() if "normalize" in name}
    named = own | named
    missing, surplus = sorted(wanted.keys() - named.keys()), sorted(named.keys() - wanted.keys())
    if missing or surplus:
        parts = [f"lacks {', '.join(missing[:3])}"] if missing else []
        parts += [f"has {', '.join(surplus[:3])}"] if surplus else []
        raise UsageError(
            f"{file.name} does not fit {arch}: it {' and '.join(parts)}",
            "choose the --arch that it was saved from",
        )
    for name, tensor in wanted.items():
        if named[name].shape != tensor.shape:
            raise UsageError(
                f"{file.name} does not fit {arch}: {name} is {tuple(named[name].shape)}, not {tuple(tensor.shape)}",
                "choose the --arch that it was saved from",
            )
        if not bool(named[name].isfinite().all()):
            raise UsageError(f"{file.name}: {name} holds values that are not finite", "import another epoch")
    return {name: named[name].to(tensor.dtype) for name, tensor in wanted.items()}


def _own_name(name: str, arch: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    for foreign, ours in models.info(arch).aliases:
        if name.startswith(foreign):
            return ours + name.removeprefix(foreign)
    return name
