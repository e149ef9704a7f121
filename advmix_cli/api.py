"""What Python users import: any `nn.Module`, images as tensors or arrays. No store is needed, and none is touched.

The settings are those that the command line would come to for such images. A model maps float images in [0,1],
(N,C,H,W), to logits (N,classes), with its normalisation inside; it is left as it was, on its device.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import attacks, auditing, evaluation, given, mixing, models, requests, splitting, training
from advmix_cli.answers import Attacked, Evaluated, Figure, Proved, Trained
from advmix_cli.data import ImageSet
from advmix_cli.errors import AdvmixError, UsageError
from advmix_cli.passes import Work

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from advmix_cli.auditing import Audit
    from advmix_cli.judging import Certificate
    from advmix_cli.workflows.session import Reporter, Session

    Array = torch.Tensor | np.ndarray

__all__ = [
    "Attacked", "Evaluated", "Figure", "Proved", "Trained", "attack", "audit", "certify", "datasets", "evaluate",
    "load", "train",
]  # fmt: skip


def attack(
    model: nn.Module,
    x: Array,
    y: Array,
    *,
    attack: str = "pgd",
    norm: str = "linf",
    eps: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Attacked:
    """Attack images (N,C,H,W), uint8 or float in [0,1], with labels (N,), within a ball of `eps`, in pixel units.

    `attack` and `options` are those of `advmix attack --help`, with underscores: steps, alpha, restarts, random_start,
    loss, targets, queries, early_stop, precision. Left out they are what that command would take for such images.
    `progress` None: shown on a terminal and in a notebook. Raises UsageError for what does not fit together.
    """
    images = given.images(model, x, y)
    asked = requests.Attack(attack=attack, norm=norm, eps=eps, seed=seed, **given.known(requests.Attack, options))
    threat = asked.threat(images.info)
    with _report(progress).progress("attacking") as bar:
        found = attacks.attack_set(
            model, images.x, images.y, threat, seed=seed, images=True, batch_size=batch_size, on_work=bar
        )
    assert found.x_adv is not None
    after = tuple(Figure(part, len(images), int(then.right.sum()), "upper") for part, then in found.after.items())
    robust = list(found.after.values())[threat.standard - 1].right
    return Attacked(threat, found.x_adv, found.clean, robust, after, found.change.linf, found.change.l2)


def evaluate(
    model: nn.Module,
    x: Array,
    y: Array,
    *,
    attack: str | Sequence[str] = (),
    norm: str = "linf",
    eps: float | None = None,
    audit: bool = False,
    certify: bool = False,
    bounds: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Evaluated:
    """How a model does on clean images and under attacks, the worst of which counts for each image; see `attack`.

    With `certify` the last figure is what is proved, a lower bound, and with `audit` it says whether the robust
    accuracy is what it seems. Raises AdvmixError, code `unsound`, where an image is proved right and was broken.
    """
    images = given.images(model, x, y)
    names = (attack,) if isinstance(attack, str) else tuple(attack)
    known = given.known(requests.Evaluate, options)
    asked = requests.Evaluate(attack=names, norm=norm, eps=eps, seed=seed, certify=certify, bounds=bounds, **known)
    settings = asked.settings(images.info, "test")
    report = _report(progress)
    jobs = {threat.label: len(images) * attacks.foreseen(threat) for threat in settings.threats}
    with report.progress("evaluating") as bar:
        work = functools.partial(
            Work(bar, {("", job): cost for job, cost in {"clean": len(images), **jobs}.items()}), ""
        )
        clean = functools.partial(work, "clean")
        scored = evaluation.score(model, images.x, images.y, batch_size=batch_size, on_batch=clean)
        figures = [Figure("clean", len(images), int(scored.correct.sum()))]
        standing = scored.correct
        for threat in settings.threats:
            found = attacks.attack_set(
                model, images.x, images.y, threat, seed=seed, batch_size=batch_size,
                on_work=functools.partial(work, threat.label),
            )  # fmt: skip
            right = list(found.after.values())[threat.standard - 1].right
            figures.append(Figure(threat.label, len(images), int(right.sum()), "upper"))
            standing = standing & found.robust
    if len(settings.threats) > 1:
        figures.append(Figure("worst case", len(images), int(standing.sum()), "upper"))
    if settings.certified is not None:
        proved = _proved(model, images, settings.certified, report)
        if bool((proved.right & ~standing).any()):
            raise AdvmixError("images are proved right, and broken", "one of both is a bug", code="unsound")
        figures.append(proved.figure)
    audited = _audited(model, images, norm, eps, seed, batch_size, report) if audit else None
    return Evaluated(tuple(figures), scored.loss, audited)


def certify(
    model: nn.Module,
    x: Array,
    y: Array,
    *,
    norm: str = "linf",
    eps: float | None = None,
    bounds: str = "best",
    progress: bool | None = None,
) -> Proved:
    """Prove for which images (N,C,H,W), uint8 or float in [0,1], a model is right everywhere within `eps`.

    `bounds` are `ibp`, `crown`, `best` or `exact`, as `advmix eval --bounds` has them. Raises UsageError, code
    `no-bound`, for a network with a layer that has none.
    """
    images = given.images(model, x, y)
    asked = requests.Evaluate(norm=norm, eps=eps, certify=True, bounds=bounds).certificate(images.info)
    return _proved(model, images, asked, _report(progress))


def audit(
    model: nn.Module,
    x: Array,
    y: Array,
    *,
    norm: str = "linf",
    eps: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool | None = None,
) -> Audit:
    """Look for masked gradients on at most 500 images: the checks, the verdict, and the strongest figure found."""
    return _audited(model, given.images(model, x, y), norm, eps, seed, batch_size, _report(progress))


def train(
    model: nn.Module | str,
    x: Array,
    y: Array,
    *,
    test: tuple[Array, Array] | None = None,
    adversarial: bool = False,
    device: str = "cpu",
    seed: int = 0,
    progress: bool | None = None,
    **options: Any,
) -> Trained:
    """Train a model, changed in place, or a network by its name (`advmix models`), on images and labels.

    `test` images are only watched; of the others a tenth is held out and chooses the epoch. `options` are those of
    `advmix train --help`, and where `adversarial` of `advmix advtrain --help`: mix, mix_stages, soft_label, epochs,
    batch_size, lr, steps, eps and others.
    """
    import torch

    kind = requests.AdvTrain if adversarial else requests.Train
    classes = given.classes(y)
    images = given.image_set(x, y, classes, "train")
    if isinstance(model, str):
        from advmix_cli.workflows.choosing import Asked

        pixels = attacks.to_float(images.x[:])
        mean, std = (tuple(each.tolist()) for each in (pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)).clamp(min=1e-4)))
        network = Asked(arch=model).network(dataclasses.replace(images.info, mean=mean, std=std))
        arch, model = network.arch, models.build(network, seed).to(device)
    else:
        arch = type(model).__name__
    where = given.device(model)
    held = {name: (value,) if name in ("mix", "soft_label") else value for name, value in options.items()}
    asked = kind(seed=(seed,), **given.known(kind, held))
    settings = asked.settings(images.info, arch)
    watched = given.image_set(*test, classes, "test") if test is not None else images.take(torch.arange(0))
    parts = splitting.split(images, watched, settings)
    splits = splitting.Splits(*(part.to(where) for part in (parts.train, parts.validation, parts.test)))
    mixing.places(model, settings.mix_stages)
    with _report(progress).progress("training", settings.epochs * len(splits.train), "images") as bar:
        found = training.train(model, splits, settings, on_batch=lambda epoch, n: bar(n))
    model.load_state_dict(found.best)
    return Trained(model.eval(), settings, tuple(found.history), found.best_epoch)


def load(
    ref: str = "latest", *, device: str = "cpu", home: str | Path | None = None, run_code: bool = False
) -> nn.Module:
    """The model that a reference names, in eval mode, ready for any other library.

    It maps float images in [0,1], shape (N,C,H,W) as `advmix store show REF` gives it, to logits (N,classes);
    normalisation is inside. `ref` is a path, a name, a unique prefix, an alias or `latest`, with `@best` or
    `@last` to pick the weights; `home` is the store, else `$ADVMIX_HOME`. A network that is a file of its own is only
    run with `run_code`. Raises `NotFoundError` (unknown or ambiguous), `DamagedError`, or `UsageError`.
    """
    from advmix_cli.workflows.references import load_model, resolve_model

    model = resolve_model(_session(home), ref)
    if models.kind_of(model.arch) == "file" and not run_code:
        raise UsageError(
            f"{model.label} is of a network that {model.arch.rpartition(':')[0]} would have to be run for",
            "if you trust that file: load(..., run_code=True)",
            code="code",
        )
    return load_model(model, device)


def datasets(
    name: str,
    split: str = "test",
    *,
    image_size: int | None = None,
    limit: int | None = None,
    home: str | Path | None = None,
) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Images, float in [0,1] (N,C,H,W), labels (N,) and the classes' names of a data set, as commands call it.

    A folder, an array file or another set of torchvision's is prepared in the store, `home`, else `$ADVMIX_HOME`.
    """
    from advmix_cli.names import full_name

    images = _session(home).images(full_name(name, image_size), split).first(limit)
    return attacks.to_float(images.x[:]), images.y, images.info.classes


def _session(home: str | Path | None) -> Session:
    from advmix_cli.workflows.session import Session

    return Session.open(home=None if home is None else Path(home).expanduser().absolute())


def _proved(model: nn.Module, images: ImageSet, certificate: Certificate, report: Reporter) -> Proved:
    from advmix_cli.bounds import certify_set

    with report.progress("proving") as bar:
        found = certify_set(
            model, images.x, images.y, certificate.eps, norm=certificate.norm, bounds=certificate.bounds, on_work=bar
        )
    return Proved(certificate, found.right, found.margin, found.losses, found.undecided)


def _audited(
    model: nn.Module,
    images: ImageSet,
    norm: str,
    eps: float | None,
    seed: int,
    batch_size: int | None,
    report: Reporter,
) -> Audit:
    threat = requests.Attack(norm=norm, eps=eps).threat(images.info)
    with report.progress("auditing", len(auditing.STAGES), "checks") as bar:
        return auditing.audit(
            model, images.x, images.y, threat, classes=len(images.info.classes), seed=seed, batch_size=batch_size,
            on_check=lambda name: bar(1),
        )  # fmt: skip


def _report(progress: bool | None) -> Reporter:
    from advmix_cli.workflows.session import Silent

    notebook = "ipykernel" in sys.modules
    shown = (sys.stderr is not None and sys.stderr.isatty()) or notebook if progress is None else progress
    if not shown:
        return Silent()
    from advmix_cli.output import Output

    return Output("")
