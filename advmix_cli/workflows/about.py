"""`advmix info`, `presets` and `methods`: what is installed, what is set, and how one can train."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
from typing import Any

from advmix_cli import data, presets
from advmix_cli._version import __version__
from advmix_cli.errors import UsageError, known_name
from advmix_cli.models import ARCHITECTURES
from advmix_cli.names import full_name, kind_of, parted
from advmix_cli.results import Facts, Result, Table, shown
from advmix_cli.settings import number
from advmix_cli.store import SUFFIXES
from advmix_cli.threats import Threat
from advmix_cli.ways import METHODS, Option
from advmix_cli.workflows.session import Session

_PACKAGES = ("torch", "torchvision", "safetensors", "typer", "rich", "numpy", "matplotlib", "pillow")


def info(session: Session) -> Result:
    """Versions, device, folders and what is cached: what one pastes into a bug report."""
    import torch

    device = session.device()
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    free = session.store.free_bytes()
    facts: dict[str, Any] = {
        "advmix": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **versions,
        "device": f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "store": str(session.store.root),
        "store free": "no folder yet" if free is None else f"{free / 1e9:.1f} GB",
        "data": str(session.data_root),
        **{f"data {name}": "there" if data.present(name, session.data_root) else "not there" for name in data.DATASETS},
        **{kind: len(session.store.names(kind)) for kind in SUFFIXES},
        "architectures": ", ".join(ARCHITECTURES),
    }
    return Result(facts, [], [Facts([(name, str(value)) for name, value in facts.items()])])


def list_presets(session: Session, name: str | None) -> Result:
    """Every preset's settings, a table for each command: of one preset, or of one data set, or all."""
    chosen, sets = list(presets.PRESETS), list(presets.TRAIN["default"])
    if name in presets.PRESETS:
        chosen = [name]
    elif name is not None:
        if kind_of(name) == "named":
            known_name(parted(name)[0], (*presets.PRESETS, *data.DATASETS), "preset or data set")
        sets = [full_name(name)]
    infos = [session.dataset(each) for each in sets]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    blocks: list[Table | Facts] = []
    for command, table in (("train", presets.TRAIN), ("advtrain", presets.ADVTRAIN), ("attack", presets.ATTACK)):
        found[command] = {preset: {} for preset in chosen}
        for info in infos:
            columns = {}
            for preset in chosen:
                with contextlib.suppress(UsageError):  # it says nothing about the set
                    columns[preset] = dict(presets.recipe(table, preset, info))
                    found[command][preset][info.name] = dict(columns[preset])
            for preset, values in columns.items():
                if command != "train":
                    threat = _threat(command, preset, info)
                    values |= {"eps": threat.eps, "alpha": threat.alpha}
            settings = dict.fromkeys(setting for values in columns.values() for setting in values)
            rows = [(setting, *(_value(values.get(setting)) for values in columns.values())) for setting in settings]
            if rows:
                blocks.append(Table(("setting", *columns), rows, title=f"{command} --dataset {shown(info.name)}"))
    blocks.append(Facts([(preset, _MEANINGS[preset]) for preset in presets.PRESETS]))
    return Result(
        {"presets": found, "mix_alpha": presets.MIX_ALPHA},
        chosen,
        blocks,
        "a command's own defaults: advmix train --help",
    )


_MEANINGS = {
    "default": "a modern recipe that needs a fraction of the report's epochs",
    "report": "the text of the report; where it is silent, its code's values",
    "as-run": "what the report's published code ran, its attack included; never mixed with correct numbers",
}


def _threat(command: str, preset: str, info: data.DatasetInfo) -> Threat:
    if command == "attack":
        return presets.threat(preset, info)
    adversary = presets.advtrain_settings(preset, info, info.arch).adversary
    assert adversary is not None
    return adversary.threat


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, float):
        return number(value)
    return str(value)


def list_methods(session: Session, name: str | None) -> Result:
    """The ways of adversarial training; or what one of them may be told."""
    chosen = [METHODS[known_name(name, METHODS, "method")]] if name else list(METHODS.values())
    found = [
        {
            "name": each.name, "title": each.title, "reference": each.reference, "mixes": list(each.mixes),
            "certified": each.certified,
            "options": {key: dataclasses.asdict(option) for key, option in each.options.items()},
        }
        for each in chosen
    ]  # fmt: skip
    rows = [(each.name, each.title, ", ".join(each.mixes), each.reference) for each in chosen]
    blocks = [Table(("method", "what", "goes with --mix", "source"), rows)]
    if name:
        (only,) = chosen
        told = [
            (key, _usual(option), f"{option.low:g} to {option.high:g}", option.help)
            for key, option in only.options.items()
        ]
        blocks += [Table(("--method-arg", "default", "range", "what"), told)] if told else []
    hint = f"train with it: advmix advtrain --method {chosen[0].name}" if name else "more of one: advmix methods trades"
    return Result({"methods": found}, [each.name for each in chosen], list(blocks), hint)


def _usual(option: Option) -> str:
    grey = "" if option.small_grey is None else f"; {option.small_grey:g} for small grey images"
    return f"{option.usual:g}{grey}"
