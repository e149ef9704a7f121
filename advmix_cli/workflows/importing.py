"""`advmix import`: checkpoints of others, taken in without executing anything in them; and this project's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, files, models
from advmix_cli.names import kind_of, portable, short_name
from advmix_cli.results import Result, shown
from advmix_cli.settings import SCHEMA, digest
from advmix_cli.workflows import weights
from advmix_cli.workflows.checkpoints import checkpoint_result
from advmix_cli.workflows.choosing import Asked
from advmix_cli.workflows.making import made, make_once, set_alias
from advmix_cli.workflows.references import history
from advmix_cli.workflows.session import Session

if TYPE_CHECKING:
    import torch


def import_checkpoint(session: Session, file: Path, asked: Asked, alias: str | None = None) -> Result:
    """Take in the weights of a `.pt`, `.pth`, `.tar` or `.safetensors` file as a checkpoint.

    A checkpoint of this project's stays what it is: its settings, its history and both of its weights.
    """
    file = files.home(file)
    if file.suffix == ".safetensors" and artifacts.is_ours(file):
        return _own(session, file, asked, alias)
    began = time.monotonic()
    info, network = asked.resolve(session, usual="mnist")
    models.check_fit(network, info.name)
    tensors = weights.read(file, session.report.note)
    model = models.build(network)
    taken, _ = weights.fitted(tensors, model, network, file)
    made_of = {"dataset": portable(info.name), "weights": artifacts.tensors_digest(taken), **network.identity()}
    if kind_of(info.name) != "named":
        made_of["fingerprint"] = session.fingerprint(info.name)
    own = digest({"schema": SCHEMA, "kind": "import", **made_of})
    name = f"{short_name(info.name)}-{network.label}-import-{own[:8]}"
    record = {
        "schema": SCHEMA,
        "kind": "checkpoint",
        "name": name,
        "key": own,
        "origin": "import",
        "source": shown(file.name),
        "normalisation": _normalisation(session, taken, tensors, network),
        "arch": network.arch,
        "network": network.to_dict(),
        "dataset": info.name,
        "shape": list(info.shape),
        "classes": len(info.classes),
        "class_names": list(info.classes),
        "epochs": 0,
        "metrics": {},
        "made": made(session, time.monotonic() - began),
    }
    path = session.store.path("checkpoints", name)

    def make() -> None:
        session.store.write(path, artifacts.checkpoint_bytes(taken, taken, record))

    stored, cached = make_once(session, "checkpoints", name, own, artifacts.checkpoint_record, make)
    set_alias(session, alias, "checkpoints", name)
    return checkpoint_result(session, stored, cached, alias)


def _own(session: Session, file: Path, asked: Asked, alias: str | None) -> Result:
    """The store's own file, brought back under its own name, after it was verified.

    One whose network is a file of its own is only taken where the command line names that: from then on it is run.
    """
    record = artifacts.checkpoint_record(file)
    asked.check_own(file, record)
    name = record["name"]

    def make() -> None:
        content = files.read(file)
        if "history_sha256" in record:  # a file of the first form: its history moves in
            rest = {key: value for key, value in record.items() if key != "history_sha256"}
            best, last = (artifacts.checkpoint_weights(file, which) for which in ("best", "last"))
            ema = artifacts.checkpoint_weights(file, "ema") if "ema" in record["digests"] else None
            content = artifacts.checkpoint_bytes(best, last, rest | {"history": history(file, record)}, ema)
        session.store.write(session.store.path("checkpoints", name), content)

    stored, cached = make_once(session, "checkpoints", name, record["key"], artifacts.checkpoint_record, make)
    set_alias(session, alias, "checkpoints", name)
    return checkpoint_result(session, stored, cached, alias)


def _normalisation(
    session: Session, taken: dict[str, torch.Tensor], tensors: dict[str, torch.Tensor], network: models.Network
) -> dict[str, Any] | None:
    """What the network does to its images first, and where that is from; said, since a wrong one costs accuracy."""
    layer = {name.rpartition(".")[2]: each for name, each in taken.items() if weights.NORMALISATION in name}
    if not layer:
        return None
    given = any(weights.NORMALISATION in weights.own_name(name, network, taken) for name in tensors)
    values = {part: [round(value, 4) for value in tensor.flatten().tolist()] for part, tensor in layer.items()}
    said = ", ".join(f"{part} {' '.join(map(str, numbers))}" for part, numbers in sorted(values.items()))
    if given:
        session.report.note(f"normalisation: {said}, from the file")
    elif network.mean is not None:
        session.report.note(f"normalisation: {said}")
    else:
        session.report.warn(
            f"the file has no normalisation: {network.label}'s own is used ({said}); was it trained with that?"
        )
    return {"from": "file" if given else network.label, **values}
