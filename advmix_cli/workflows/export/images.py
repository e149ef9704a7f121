"""Attacked images in other forms; of those that round, what the attack still does is measured on what was written."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, files
from advmix_cli.errors import AdvmixError, DamagedError, NotFoundError, UsageError
from advmix_cli.results import Facts, Result, accuracy, changes
from advmix_cli.workflows.references import SamplesRef, attacked_model, load_model, resolve_samples
from advmix_cli.workflows.session import Session

if TYPE_CHECKING:
    import torch

LABELS = "labels.csv"


@dataclasses.dataclass(frozen=True)
class _Images:
    """Attacked images (N,C,H,W), their labels and numbers, and the originals where they are known."""

    x_adv: torch.Tensor
    labels: torch.Tensor
    index: torch.Tensor
    x: torch.Tensor | None


def export(session: Session, ref: str, to: str, path: Path) -> Result:
    """The sample cache `ref` names as an .npz file, or a folder of PNG files with their labels."""
    cache = resolve_samples(session, ref)
    x_adv, labels, index = artifacts.samples_tensors(cache.path, cache.record["digest"] if cache.record else None)
    images = _Images(x_adv, labels, index, _originals(session, cache, labels, index))
    return (_npz if to == "npz" else _png)(session, cache, images, path)


def _originals(session: Session, cache: SamplesRef, labels: torch.Tensor, index: torch.Tensor) -> torch.Tensor | None:
    """The clean images (N,C,H,W) in [0,1]; None where nobody knows them. Raises DamagedError where they do not fit."""
    from advmix_cli import attacks

    if cache.record is None:
        return None
    try:
        found = session.images(cache.record["dataset"], cache.record["split"])
    except AdvmixError as error:
        session.report.note(f"the originals are not there: {error.message}")
        return None
    if int(index.max()) >= len(found) or bool((found.y[index] != labels).any()):
        raise DamagedError(f"{cache.path} is damaged: its labels are not those of {found.info.name}", "make it again")
    return attacks.to_float(found.x[index])


def _npz(session: Session, cache: SamplesRef, images: _Images, path: Path) -> Result:
    import numpy as np

    arrays = {"x_adv": images.x_adv, "y": images.labels, "index": images.index}
    arrays |= {} if images.x is None else {"x": images.x}
    written = io.BytesIO()
    np.savez_compressed(written, **{name: tensor.numpy() for name, tensor in arrays.items()})  # type: ignore[arg-type]
    session.store.write(path, written.getvalue())
    shapes = {name: list(tensor.shape) for name, tensor in arrays.items()}
    rows = [("written", str(path)), ("of", cache.label)]
    rows += [(name, f"{arrays[name].numpy().dtype} {tuple(shape)}") for name, shape in shapes.items()]
    data = {"path": str(path), "form": "npz", "samples": cache.label, "n": len(images.labels), "arrays": shapes}
    return Result(data, [str(path)], [Facts(rows)])


def _png(session: Session, cache: SamplesRef, images: _Images, path: Path) -> Result:
    from advmix_cli import attacks
    from advmix_cli.workflows.export.grid import rounded

    if images.x_adv.shape[1] not in (1, 3):
        raise UsageError(f"PNG has one channel or three, these images {images.x_adv.shape[1]}", "--to npz takes them")
    pixels = rounded(images.x_adv, images.x, cache.threat)
    names = _write(session, pixels, images, path)
    back = attacks.to_float(_read(path, names))
    n, rows = len(names), [("written", f"{path}, {len(names)} images and {LABELS}"), ("of", cache.label)]
    data: dict[str, Any] = {"path": str(path), "form": "png", "samples": cache.label, "n": n}
    if images.x is None:
        rows.append(("rounding", "to the nearest value: the originals are not known"))
    else:
        change = attacks.perturbation(images.x, back, None)
        data |= {"linf_max": change.linf, "l2_max": change.l2}
        rows.append(("largest change", changes(data)))
        rows += _left(session, cache, images, back, data)
    return Result(data, [str(path)], [Facts(rows)])


def _write(session: Session, pixels: torch.Tensor, images: _Images, path: Path) -> list[str]:
    """The files, all or none; their names."""
    from PIL import Image

    digits = len(str(int(images.index.max())))
    which = list(zip(images.index.tolist(), images.labels.tolist(), strict=True))
    names = [f"{index:0{digits}d}-label{label}.png" for index, label in which]
    if len(set(names)) < len(names):
        raise DamagedError("the cache has an image twice", "make it again")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        with session.report.progress("writing", len(names), "images") as progress:
            for name, image in zip(names, pixels, strict=True):
                Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(partial / name)
                progress(1)
        with (partial / LABELS).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(
                [("file", "index", "label"), *((name, *each) for name, each in zip(names, which, strict=True))]
            )
        partial.replace(path)
    except OSError as error:
        raise files.cannot_write(path.parent, error, ours=False) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return names


def _read(path: Path, names: list[str]) -> torch.Tensor:
    """The images (N,C,H,W), uint8, as they lie there."""
    import numpy as np
    import torch
    from PIL import Image

    read = np.stack([np.array(Image.open(path / name)) for name in names])
    found = torch.from_numpy(read)
    return found[:, None] if found.ndim == 3 else found.permute(0, 3, 1, 2).contiguous()


def _left(
    session: Session, cache: SamplesRef, images: _Images, back: torch.Tensor, data: dict[str, Any]
) -> list[tuple[str, str]]:
    """What the attack does before and after rounding, for people, and into `data`."""
    from advmix_cli import evaluation

    try:
        model = attacked_model(session, cache)
    except (NotFoundError, UsageError) as error:
        return [("robust accuracy", f"not known: {error.message}")]
    device = session.device()
    net, labels = load_model(model, device), images.labels.to(device)
    right = {
        name: evaluation.score(net, x.to(device), labels, batch_size=session.batch_size).correct
        for name, x in (("clean", images.x), ("exact", images.x_adv), ("rounded", back))
        if x is not None
    }
    n, rows = len(labels), list[tuple[str, str]]()
    for name, of in (("exact", "robust accuracy of the cache"), ("rounded", "robust accuracy of the files")):
        stand = int((right["clean"] & right[name]).sum())
        data[f"{'' if name == 'exact' else 'rounded_'}robust_accuracy"] = 100 * stand / n
        rows.append((of, accuracy(stand, n)))
    return [("model", model.label), *rows]
