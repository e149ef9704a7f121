"""The pictures of an experiment: drawn as `advmix visualize` draws them, and copied beside its tables."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advmix_cli.experiments.carrying import Found
from advmix_cli.experiments.plan import cells_of
from advmix_cli.experiments.shape import Cell, Experiment, Picture
from advmix_cli.presets import MIX_ALPHA
from advmix_cli.workflows import visualize
from advmix_cli.workflows.references import resolve_model, resolve_samples
from advmix_cli.workflows.session import Session

_SAMPLES = visualize.Choice(untrained=True)
"""As the report shows them."""


def draw(
    session: Session, experiment: Experiment, found: Found, only: Sequence[str] | None, out: Path
) -> list[dict[str, Any]]:
    """Each picture whose cells are there: its id, title and file in `out`."""
    drawn = []
    for picture in experiment.pictures.values():
        if only is not None and picture.id not in only:
            continue
        cells = [cell for cell in cells_of(experiment, picture.of) if cell in found.models]
        for number, path in enumerate(_files(session, picture, cells, found), 1):
            name = f"{picture.id}.png" if number == 1 else f"{picture.id}-{number}.png"
            shutil.copyfile(path, out / name)
            drawn.append({"id": picture.id, "title": picture.title, "file": name})
    return drawn


def _files(session: Session, picture: Picture, cells: Sequence[Cell], found: Found) -> list[str]:
    if not cells:
        return []
    if picture.kind == "curves":
        models = [dataclasses.replace(resolve_model(session, found.models[cell]), label=_label(cell)) for cell in cells]
        return [visualize.curves(session, models, visualize.To()).data["path"]]
    if picture.kind == "mixing":
        dataset = resolve_model(session, found.models[cells[0]]).dataset
        return [visualize.mixing(session, dataset, MIX_ALPHA["mixup"], 8, 0, visualize.To()).data["path"]]
    assert picture.attack is not None
    caches = [found.caches[picture.attack, cell] for cell in cells if (picture.attack, cell) in found.caches]
    return [
        visualize.samples(session, resolve_samples(session, each), _SAMPLES, visualize.To()).data["path"]
        for each in caches
    ]


def _label(cell: Cell) -> str:
    """What a picture calls a model: its values in the grid."""
    return ", ".join(f"{name} {value}" for name, value in cell.values) or cell.run
