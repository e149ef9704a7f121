"""`advmix card`: what is known of a model, as Markdown with the hub's metadata, and as a folder to publish.

Nothing is computed: the model's record and the evaluations that the store has of it are read.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from advmix_cli import files, zoo
from advmix_cli.errors import UsageError
from advmix_cli.results import Facts, Result, counted
from advmix_cli.workflows.card import folder
from advmix_cli.workflows.card.facts import gathered
from advmix_cli.workflows.card.markdown import markdown
from advmix_cli.workflows.references import ModelRef, resolve_model
from advmix_cli.workflows.session import Session

README = "README.md"


def card(session: Session, ref: str, out: str | None, *, push_ready: bool) -> Result:
    """The card of the model, on standard output or in `out`: a file, or a folder that gets a README.md.

    `push_ready`: the folder gets the weights and what they are the weights of, too. Raises UsageError for a file that
    is there, unless the session is told to replace it.
    """
    where = _where(session, out, push_ready)
    model = resolve_model(session, ref)
    found = _card(session, model, push_ready)
    contents = {where: markdown(found).encode()} if where else {}
    if push_ready and where:
        contents = {
            where.with_name(folder.WEIGHTS): folder.weights(session, model),
            where.with_name(folder.CONFIG): folder.config(found, model.network).encode(),
        } | contents
    for path, content in contents.items():
        session.store.write(path, content)
    written = [str(path) for path in contents]
    text = markdown(found).rstrip("\n")
    rows = [("card", str(where)), *(("beside it", path) for path in written[:-1]), ("of", model.name)]
    rows += [("figures", _said(found))]
    return Result(
        {"card": found, "path": str(where) if where else None, "files": written},
        [str(where.parent if push_ready else where) if where else model.name],
        [Facts(rows if where else [("", text)])],
        _next(found, model, where, push_ready),
    )


def _card(session: Session, model: ModelRef, push_ready: bool) -> dict[str, Any]:
    """What is known, how it is loaded and made again, and what would measure it."""
    found = gathered(session, model)
    named = _named(model)
    load = {"advmix": folder.with_advmix(model, folder.WEIGHTS if push_ready else named)}
    load |= {"torch": folder.with_torch(model)} if push_ready else {}
    commands = [each["command"] for each in found["training"] if each.get("command")]
    commands += found.pop("measured_with")
    for each in found["evaluations"][::-1]:
        commands += [*(cache["command"] for cache in each["caches"]), each["command"]]
    return found | {"load": load, "commands": list(dict.fromkeys(filter(None, commands))), "measure": _measure(named)}


def _measure(named: str) -> str:
    return f"advmix eval {shlex.quote(named)} --attack autoattack --certify --audit --limit 1000"


def _named(model: ModelRef) -> str:
    """How commands call it: of a file elsewhere by its name alone, for a card is read elsewhere."""
    return model.label if model.stored or model.label.startswith(zoo.PREFIX) else f"./{model.label}"


def _where(session: Session, out: str | None, push_ready: bool) -> Path | None:
    """The file that the card goes to, None for standard output."""
    if out is None:
        if push_ready:
            raise UsageError("--push-ready writes a folder", "say which: --out DIR")
        return None
    if not out.strip():
        raise UsageError("--out is empty", "name a file or a folder")
    given = files.home(Path(out)).absolute()
    if push_ready and files.there(given) and not given.is_dir():
        raise UsageError(f"{out} is a file, and --push-ready writes a folder", "give another name")
    inside = push_ready or out.endswith(os.sep) or given.is_dir()
    where = given / README if inside else given
    if Path(os.path.realpath(session.store.root)) in Path(os.path.realpath(where)).parents:
        raise UsageError(f"{out} is in the store", "write the card elsewhere")
    beside = (folder.WEIGHTS, folder.CONFIG) if push_ready else ()
    for path in (where, *(where.with_name(name) for name in beside)):
        if files.there(path) and (path.is_dir() or not session.force):
            raise UsageError(f"{path} is there", "give another name, or --force to replace it")
    return where


def _said(found: dict[str, Any]) -> str:
    figures, evaluations = len(found["figures"]), len(found["evaluations"])
    return f"{counted(figures, 'figure')} of {counted(evaluations, 'evaluation')}" if figures else "nothing is measured"


def _next(found: dict[str, Any], model: ModelRef, where: Path | None, push_ready: bool) -> str:
    here = model.label if model.stored or model.label.startswith(zoo.PREFIX) else str(model.path)
    if not found["figures"]:
        return f"measure it: {_measure(here)}"
    if push_ready and where:
        return f"publish it: hf upload USER/NAME {shlex.quote(str(where.parent))}"
    return f"as a folder to publish: advmix card {shlex.quote(here)} --push-ready --out DIR"
