"""`train`, `advtrain` and `import`: checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advmix_cli import data, presets
from advmix_cli.cli import options as o
from advmix_cli.cli.base import at_most, reference, run
from advmix_cli.results import Result
from advmix_cli.workflows.common import Session, resolve_model

_CONTINUES = "the same command goes on after the last whole epoch"


def train(
    ctx: typer.Context,
    dataset: o.Dataset = "glyphs",
    arch: o.Arch = None,
    mix: o.Mix = "none",
    mix_alpha: o.MixAlpha = None,
    soft_label: o.SoftLabel = None,
    epochs: o.Epochs = None,
    batch_size: o.TrainBatchSize = None,
    lr: o.LearningRate = None,
    limit: o.Limit = None,
    seed: o.Seed = 0,
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
        from advmix_cli.workflows.train import train

        settings = presets.train_settings(
            preset,
            dataset,
            arch or data.info(dataset).arch,
            mix=mix,
            mix_alpha=mix_alpha,
            soft_label=soft_label,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            limit=at_most(limit, dataset, "train"),
            seed=seed,
            precision=precision,
        )
        return train(session, settings, name)

    run(ctx, work, json=json, quiet=quiet, device=device, threads=threads, force=force, stopped=_CONTINUES)


def advtrain(
    ctx: typer.Context,
    init: o.Init = None,
    dataset: o.InitDataset = None,
    arch: o.InitArch = None,
    mix: o.Mix = "none",
    mix_alpha: o.MixAlpha = None,
    policy: o.Policy = "normal",
    soft_label: o.SoftLabel = None,
    eps: o.Eps = None,
    alpha: o.Alpha = None,
    steps: o.TrainSteps = None,
    random_start: o.RandomStart = None,
    epochs: o.AdvEpochs = None,
    batch_size: o.AdvBatchSize = None,
    lr: o.AdvLearningRate = None,
    limit: o.Limit = None,
    seed: o.Seed = 0,
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
        from advmix_cli.workflows.train import standard_checkpoint, train

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
        settings = presets.advtrain_settings(
            preset,
            on,
            arch or (begin.arch if begin else data.info(on).arch),
            mix=mix,
            mix_alpha=mix_alpha,
            policy=policy,
            soft_label=soft_label,
            eps=eps,
            alpha=alpha,
            steps=steps,
            random_start=random_start,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            limit=at_most(limit, on, "train"),
            seed=seed,
            precision=precision,
        )
        return train(session, settings, name, init=begin, verbose=verbose)

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
