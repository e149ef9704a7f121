"""`advmix import`: checkpoints of others, taken in without executing anything in them; and this project's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, data, files, models
from advmix_cli.errors import UnsafeError, UsageError
from advmix_cli.results import Result, shown
from advmix_cli.settings import SCHEMA, digest
from advmix_cli.workflows.making import made, make_once, set_alias
from advmix_cli.workflows.references import history
from advmix_cli.workflows.session import Session
from advmix_cli.workflows.train import checkpoint_result

if TYPE_CHECKING:
    import torch

_NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")
_WRAPPERS = ("module.", "_orig_mod.", "model.")
_NORMALISATION = "normalize"


def import_checkpoint(
    session: Session, file: Path, dataset: str | None, arch: str | None, alias: str | None = None
) -> Result:
    """Take in the weights of a `.pt`, `.pth`, `.tar` or `.safetensors` file as a checkpoint of `arch`.

    A checkpoint of this project's stays what it is: its settings, its history and both of its weights.
    """
    file = files.home(file)
    if file.suffix == ".safetensors" and artifacts.is_ours(file):
        return _own(session, file, {"dataset": dataset, "arch": arch}, alias)
    began, info = time.monotonic(), data.info(dataset or "mnist")
    arch = arch or info.arch
    models.check_fit(arch, info.name, info.shape)
    tensors = _tensors(session, file)
    weights = fitted(tensors, arch, file)
    made_of = {"dataset": info.name, "weights": artifacts.tensors_digest(weights), **models.identity(arch)}
    own = digest({"schema": SCHEMA, "kind": "import", **made_of})
    name = f"{info.name}-{arch}-import-{own[:8]}"
    record = {
        "schema": SCHEMA,
        "kind": "checkpoint",
        "name": name,
        "key": own,
        "origin": "import",
        "source": shown(file.name),
        "normalisation": _normalisation(session, weights, tensors, arch),
        "arch": arch,
        "dataset": info.name,
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


def _own(session: Session, file: Path, said: dict[str, str | None], alias: str | None) -> Result:
    """The store's own file, brought back under its own name, after it was verified."""
    record = artifacts.checkpoint_record(file)
    for option, value in said.items():
        if value not in (None, record[option]):
            raise UsageError(f"{file.name} has the {option} {record[option]}, not {value}", f"leave --{option} out")
    name = record["name"]

    def make() -> None:
        content = files.read(file)
        if "history_sha256" in record:  # a file of the first form: its history moves in
            rest = {key: value for key, value in record.items() if key != "history_sha256"}
            best, last = (artifacts.checkpoint_weights(file, which) for which in ("best", "last"))
            content = artifacts.checkpoint_bytes(best, last, rest | {"history": history(file, record)})
        session.store.write(session.store.path("checkpoints", name), content)

    stored, cached = make_once(session, "checkpoints", name, record["key"], artifacts.checkpoint_record, make)
    set_alias(session, alias, "checkpoints", name)
    return checkpoint_result(session, stored, cached, alias)


def _tensors(session: Session, file: Path) -> dict[str, torch.Tensor]:
    """The state dict in the file: the whole of it, or what lies under one of the usual names."""
    if file.suffix == ".safetensors":
        return artifacts.safetensors(file)
    archive = artifacts.read_archive(file)
    content = archive.value
    while isinstance(content, dict) and (inner := [name for name in _NESTED if isinstance(content.get(name), dict)]):
        if len(inner) > 1:
            raise UsageError(f"{file} holds several state dicts: {', '.join(inner)}", "save one of them, alone")
        content = content[inner[0]]
    found = content.items() if isinstance(content, dict) else ()
    tensors = {str(name): value for name, value in found if artifacts.is_tensor(value)}
    if not tensors and archive.foreign:
        raise UnsafeError(
            f"{file} holds no state dict but what would have to be executed: it would call "
            f"{', '.join(sorted(archive.foreign)[:4])}",
            "save model.state_dict() and import that",
        )
    if not tensors:
        raise UsageError(
            f"{file} holds no state dict but a {type(content).__name__}", "save model.state_dict() and import that"
        )
    if archive.foreign:
        session.report.note(f"left out, and not executed: {', '.join(sorted(archive.foreign))}")
    loaded: dict[str, torch.Tensor] = archive.loaded(tensors)
    return loaded


def fitted(tensors: dict[str, torch.Tensor], arch: str, file: Path) -> dict[str, torch.Tensor]:
    """`tensors` under the architecture's own names, wrappers' prefixes and the report's names mapped.

    Raises UsageError, naming the first misfits, where a weight is missing, too many, there twice, of another shape, or
    not finite as the architecture has it.
    """
    wanted, named, given = models.build(arch).state_dict(), dict[str, Any](), dict[str, str]()
    for name, tensor in tensors.items():
        own = _own_name(name, arch)
        if own in named:
            raise UsageError(f"{file.name} has {given[own]} beside {name}, which are one", "save one of them, alone")
        named[own], given[own] = tensor, name
    # The normalisation is this project's own layer: files of others rarely have it.
    named = {name: tensor for name, tensor in wanted.items() if _NORMALISATION in name} | named
    missing, surplus = sorted(wanted.keys() - named.keys()), sorted(named.keys() - wanted.keys())
    if missing or surplus:
        parts = [f"lacks {', '.join(missing[:3])}"] if missing else []
        parts += [f"has {', '.join(given[name] for name in surplus[:3])}"] if surplus else []
        raise UsageError(
            f"{file.name} does not fit {arch}: it {' and '.join(parts)}",
            "choose the --arch that it was saved from",
        )
    fitting = {}
    for name, tensor in wanted.items():
        if named[name].shape != tensor.shape:
            raise UsageError(
                f"{file.name} does not fit {arch}: {name} is {tuple(named[name].shape)}, not {tuple(tensor.shape)}",
                "choose the --arch that it was saved from",
            )
        if tensor.is_floating_point() and not named[name].is_floating_point():
            raise UsageError(
                f"{file.name}: {name} holds whole numbers, where weights are wanted", "import what was trained"
            )
        fitting[name] = named[name].to(tensor.dtype).contiguous()
        if not bool(fitting[name].isfinite().all()):
            raise UsageError(
                f"{file.name}: {name} holds values that are not finite as {str(tensor.dtype).removeprefix('torch.')}",
                "import another epoch",
            )
    return fitting


def _own_name(name: str, arch: str) -> str:
    while any(name.startswith(wrapper) for wrapper in _WRAPPERS):
        name = name.partition(".")[2]
    for foreign, ours in models.info(arch).aliases:
        if name.startswith(foreign):
            return ours + name.removeprefix(foreign)
    return name


def _normalisation(
    session: Session, weights: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], arch: str
) -> dict[str, Any] | None:
    """What the network does to its images first, and where that is from; said, since a wrong one costs accuracy."""
    layer = {name.rpartition(".")[2]: each for name, each in weights.items() if _NORMALISATION in name}
    if not layer:
        return None
    given = any(_NORMALISATION in _own_name(name, arch) for name in tensors)
    values = {part: [round(value, 4) for value in tensor.flatten().tolist()] for part, tensor in layer.items()}
    said = ", ".join(f"{part} {' '.join(map(str, numbers))}" for part, numbers in sorted(values.items()))
    if given:
        session.report.note(f"normalisation: {said}, from the file")
    else:
        session.report.warn(f"the file has no normalisation: {arch}'s own is used ({said}); was it trained with that?")
    return {"from": "file" if given else arch, **values}
