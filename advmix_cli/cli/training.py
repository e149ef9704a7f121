"""`train`, `advtrain` and `import`: checkpoints."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from advmix_cli import data, presets
from advmix_cli.cli import options as o
from advmix_cli.cli.base import at_most, reference, run
from advmix_cli.config import TrainSettings
from advmix_cli.results import Result
from advmix_cli.workflows.common import ModelRef, Session, resolve_model

_CONTINUES = "the same command goes on after the last whole epoch"


def _train(
    session: Session,
    settings: Callable[..., TrainSettings],
    several: dict[str, tuple[Any, ...] | None],
    name: str | None,
    *,
    init: ModelRef | None = None,
    verbose: bool = False,
) -> Result:
    """Train what `settings` makes of each combination of the options in `several` (None: not given)."""
    from advmix_cli.workflows.together import Run, train_together
    from advmix_cli.workflows.train import train

    values = {option: given or (None,) for option, given in several.items()}
    combinations = [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
    if len(combinations) == 1:
        return train(session, settings(**combinations[0]), name, init=init, verbose=verbose)
    runs = []
    for chosen in combinations:
        parts = [_PARTS[option].format(value) for option, value in chosen.items() if len(values[option]) > 1]
        runs.append(Run(" ".join(parts), settings(**chosen), name and "-".join([name, *parts])))
    return train_together(session, runs, init=init, verbose=verbose)


_PARTS = {"mix": "{}", "soft_label": "{:g}", "seed": "s{}"}
"""How a run of several is called after what tells it from the others."""


def train(
    ctx: typer.Context,
    dataset: o.Dataset = "glyphs",
    arch: o.Arch = None,
    mix: o.Mixes = "none",
    mix_alpha: o.MixAlpha = None,
    soft_label: o.SoftLabels = None,
    epochs: o.Epochs = None,
    batch_size: o.TrainBatchSize = None,
    lr: o.LearningRate = None,
    limit: o.Limit = None,
    seed: o.Seeds = 0,
    precision: o.Precision = None,
    preset: o.Preset = "default",
    name: o.Name = None,
    force: o.Force = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train a classifier on clean images, with mixup, manifold mixup or neither: a checkpoint."""

    def work(session: Session) -> Result:
        settings = functools.partial(
            presets.train_settings,
            preset,
            dataset,
            arch or data.info(dataset).arch,
            mix_alpha=mix_alpha,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            limit=at_most(limit, dataset, "train"),
            precision=precision,
        )
        return _train(session, settings, {"mix": mix, "soft_label": soft_label, "seed": seed}, name)

    run(ctx, work, json=json, quiet=quiet, device=device, threads=threads, force=force, stopped=_CONTINUES)


def advtrain(
    ctx: typer.Context,
    init: o.Init = None,
    dataset: o.InitDataset = None,
    arch: o.InitArch = None,
    mix: o.Mixes = "none",
    mix_alpha: o.MixAlpha = None,
    policy: o.Policy = "normal",
    soft_label: o.SoftLabels = None,
    eps: o.Eps = None,
    alpha: o.Alpha = None,
    steps: o.TrainSteps = None,
    random_start: o.RandomStart = None,
    epochs: o.AdvEpochs = None,
    batch_size: o.AdvBatchSize = None,
    lr: o.AdvLearningRate = None,
    limit: o.Limit = None,
    seed: o.Seeds = 0,
    precision: o.Precision = None,
    preset: o.Preset = "default",
    name: o.Name = None,
    force: o.Force = False,
    verbose: o.Verbose = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train against PGD, from a standard checkpoint or from fresh weights: a checkpoint (Algorithms 1 and 2)."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows.train import standard_checkpoint

        if dataset is not None:
            data.info(dataset)
        fresh = init == "untrained"
        if fresh:
            begin = None
        elif init is None:
            begin = standard_checkpoint(session, dataset)
        else:
            begin = resolve_model(session, reference(init, "model"))
        on = dataset or (begin.dataset if begin else "glyphs")
        settings = functools.partial(
            presets.advtrain_settings,
            preset,
            on,
            arch or (begin.arch if begin else data.info(on).arch),
            mix_alpha=mix_alpha,
            policy=policy,
            eps=eps,
            alpha=alpha,
            steps=steps,
            random_start=random_start,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            limit=at_most(limit, on, "train"),
            precision=precision,
        )
        several = {"mix": mix, "soft_label": soft_label, "seed": seed}
        return _train(session, settings, several, name, init=begin, verbose=verbose)

    run(ctx, work, json=json, quiet=quiet, device=device, threads=threads, force=force, stopped=_CONTINUES)


def import_(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .pt, .pth, .tar or .safetensors file with a state dict.")
    ],
    dataset: o.Dataset = "mnist",
    arch: o.Arch = None,
    name: o.Name = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Take in a checkpoint made elsewhere. Nothing in the file is executed."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows.importing import import_checkpoint

        return import_checkpoint(session, file, dataset, arch or data.info(dataset).arch, name)

    run(ctx, work, json=json, quiet=quiet, force=force)
