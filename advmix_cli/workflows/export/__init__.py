"""`advmix export`: a network with its weights, or attacked images, in a form that other programs read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from advmix_cli import files
from advmix_cli.errors import UsageError, known_name
from advmix_cli.results import Result
from advmix_cli.workflows.export import images, networks
from advmix_cli.workflows.session import Session


class Form(NamedTuple):
    """What a thing of one kind becomes: `write(session, reference, form, path)`, and what its file's name ends in."""

    write: Callable[[Session, str, str, Path], Result]
    suffix: str


FORMS = {
    "onnx": Form(networks.export, ".onnx"),
    "torch-export": Form(networks.export, ".pt2"),
    "state-dict": Form(networks.export, ".pt"),
    "safetensors": Form(networks.export, ".safetensors"),
    "npz": Form(images.export, ".npz"),
    "png": Form(images.export, ""),
}
"""The first four are of models, the others of sample caches; `png` is a folder."""


def export(session: Session, ref: str, to: str, out: Path | None) -> Result:
    """What `ref` names, written to `out` (None: here, by its name). Raises UsageError where something is there."""
    form = FORMS[known_name(to, FORMS, "form")]
    name = Path(ref.rpartition(":")[2]).name.removesuffix(".safetensors").removesuffix(".pt")
    path = files.home(out or Path(f"{name}{form.suffix or '-png'}")).absolute()
    if Path(os.path.realpath(session.store.root)) in Path(os.path.realpath(path)).parents:
        raise UsageError(f"{path} is in the store", "write it elsewhere: --out PATH")
    replaceable = bool(form.suffix) and not path.is_dir()
    empty = not form.suffix and path.is_dir() and not any(path.iterdir())
    if files.there(path) and not empty and not (replaceable and session.force):
        raise UsageError(f"{path} is there", "give another name: --out" + (", or --force" if replaceable else ""))
    return form.write(session, ref, to, path)
