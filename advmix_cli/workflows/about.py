"""`advmix info`, `presets` and `data`: what is installed, set and there."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from advmix_cli import data, presets
from advmix_cli._version import __version__
from advmix_cli.errors import AdvmixError, known_name
from advmix_cli.models import ARCHITECTURES
from advmix_cli.results import Facts, Result, Table
from advmix_cli.settings import number
from advmix_cli.store import SUFFIXES
from advmix_cli.threats import Threat
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
        "architectures": ", ".join(f"{arch.name} {arch.shape}" for arch in ARCHITECTURES.values()),
    }
    return Result(facts, [], [Facts([(name, str(value)) for name, value in facts.items()])])


def list_presets(name: str | None) -> Result:
    """Every preset's settings, a table for each command."""
    chosen = [known_name(name, presets.PRESETS, "preset")] if name else list(presets.PRESETS)
    found = {
        command: {preset: table[preset] for preset in chosen if preset in table}
        for command, table in (("train", presets.TRAIN), ("advtrain", presets.ADVTRAIN), ("attack", presets.ATTACK))
    }
    blocks: list[Table | Facts] = []
    for command, table in found.items():
        for dataset in data.DATASETS:
            columns = {preset: dict(sets[dataset]) for preset, sets in table.items() if dataset in sets}
            for preset, values in columns.items():
                if command != "train":
                    threat = _threat(command, preset, dataset)
                    values |= {"eps": threat.eps, "alpha": threat.alpha}
            settings = dict.fromkeys(setting for values in columns.values() for setting in values)
            rows = [(setting, *(_value(values.get(setting)) for values in columns.values())) for setting in settings]
            if rows:
                blocks.append(Table(("setting", *columns), rows, title=f"{command} --dataset {dataset}"))
    blocks.append(
        Facts(
            [
                ("default", "a modern recipe that needs a fraction of the report's epochs"),
                ("report", "the text of the report; where it is silent, its code's values"),
                (
                    "as-run",
                    "what the report's published code ran, its attack included; never mixed with correct numbers",
                ),
            ]
        )
    )
    return Result(
        {"presets": found, "mix_alpha": presets.MIX_ALPHA},
        chosen,
        blocks,
        "a command's own defaults: advmix train --help",
    )


def _threat(command: str, preset: str, dataset: str) -> Threat:
    if command == "attack":
        return presets.threat(preset, dataset)
    adversary = presets.advtrain_settings(preset, dataset, data.info(dataset).arch).adversary
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


def list_data(session: Session) -> Result:
    """The data sets and whether they are there."""
    sets: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "title": entry.title,
            "train": entry.sizes["train"],
            "test": entry.sizes["test"],
            "shape": list(entry.shape),
            "arch": entry.arch,
            "present": data.present(entry.name, session.data_root),
        }
        for entry in data.DATASETS.values()
    ]
    table = Table(
        ("name", "train", "test", "shape", "default arch", "there", "what"),
        [
            (
                str(s["name"]),
                str(s["train"]),
                str(s["test"]),
                "x".join(map(str, s["shape"])),
                str(s["arch"]),
                "yes" if s["present"] else "no",
                str(s["title"]),
            )
            for s in sets
        ],
        right=("train", "test"),
        note=f"files are in {session.data_root} (set ADVMIX_DATA to change that)",
    )
    missing = [str(s["name"]) for s in sets if not s["present"]]
    return Result(
        {"root": str(session.data_root), "datasets": sets},
        [str(s["name"]) for s in sets],
        [table],
        f"get one: advmix data fetch {missing[0]}"
        if missing
        else f"train on one: advmix train --dataset {sets[-1]['name']}",
    )


def check_data(session: Session, names: list[str], *, fetch: bool) -> Result:
    """Fetch what is not there, or read what is; give the fingerprints of the images."""
    chosen = names or [n for n in data.DATASETS if fetch or data.present(n, session.data_root)]
    found = {}
    for name in chosen:
        data.info(name)
        if not fetch and not data.present(name, session.data_root):
            raise AdvmixError(
                f"{name} is not in {session.data_root}",
                f"get it: advmix data fetch {name}",
                code="data-unavailable",
            )
        found[name] = session.fingerprint(name, fresh=True)
    return Result(
        {"root": str(session.data_root), "fingerprints": found},
        list(found),
        [
            Facts(
                [
                    (
                        name,
                        f"ok, {data.info(name).sizes['train']} + {data.info(name).sizes['test']} images, {value}",
                    )
                    for name, value in found.items()
                ]
            )
        ],
        f"use it: advmix train --dataset {chosen[0]}" if chosen else "",
    )
