"""`train`, `attack`, `eval`, `import`, `presets`, `info` and `data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from advmix_cli import data, models, presets
from advmix_cli._version import __version__
from advmix_cli.cli import options as o
from advmix_cli.cli.base import at_most, reference, references, run, show_help
from advmix_cli.config import AttackSettings, EvalSettings
from advmix_cli.errors import UsageError, known_name
from advmix_cli.results import Result
from advmix_cli.workflows.common import Session, resolve_model

_CONTINUES = "the same command goes on after the last whole epoch"

data_app = typer.Typer(help="The data sets: what is there, fetch, verify.")
data_app.callback(invoke_without_command=True)(show_help)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the application."""
    app.callback(invoke_without_command=True)(root)
    for name, function, panel in (
        ("train", train, "Work"),
        ("advtrain", advtrain, "Work"),
        ("attack", attack, "Work"),
        ("eval", evaluate, "Work"),
        ("import", import_, "Work"),
        ("presets", list_presets, "Look and tidy"),
        ("info", info, "Look and tidy"),
    ):
        app.command(name, rich_help_panel=panel)(function)


def root(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Train image classifiers with mixup and manifold mixup, attack them, and believe the robust accuracy."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    show_help(ctx)


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
    alpha: o.TrainAlpha = None,
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


def attack(
    ctx: typer.Context,
    model: o.ModelArgument = None,
    attack: o.Attack = "pgd",
    norm: o.Norm = "linf",
    eps: o.Eps = None,
    alpha: o.Alpha = None,
    steps: o.Steps = None,
    restarts: o.Restarts = None,
    random_start: o.RandomStart = None,
    untrained: Annotated[
        bool,
        typer.Option(
            "--untrained",
            help="Attack a fresh network of the model's kind instead (--dataset and --arch choose another).",
        ),
    ] = False,
    dataset: o.ModelDataset = None,
    arch: Annotated[
        str | None,
        typer.Option("--arch", help="With --untrained: the architecture.", show_default="the data set's"),
    ] = None,
    split: o.Split = "test",
    limit: o.Limit = None,
    batch_size: o.BatchSize = 100,
    seed: o.Seed = 0,
    preset: o.Preset = "default",
    name: o.Name = None,
    force: o.Force = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Attack a model's test images within a budget: a sample cache and the robust accuracy."""
    given = {"eps": eps, "alpha": alpha, "steps": steps, "restarts": restarts, "random_start": random_start}

    def work(session: Session) -> Result:
        from advmix_cli.workflows.attack import Untrained
        from advmix_cli.workflows.attack import attack as run_attack

        if untrained and (dataset or arch):
            if model is not None:
                raise UsageError("a model and --dataset or --arch name two networks", "give one or the other")
            if dataset is None:
                shape = models.info(str(arch)).shape
                on = next(d.name for d in data.DATASETS.values() if d.shape == shape)
            else:
                on = dataset
            target: Any = Untrained(arch or data.info(on).arch, seed)
        else:
            if arch is not None:
                raise UsageError("--arch goes with --untrained", "a checkpoint knows its own architecture")
            target = resolve_model(session, reference("latest" if model is None else model, "model"))
            on = dataset or target.dataset
            target = Untrained(target.arch, seed) if untrained else target
        data.info(on)
        settings = AttackSettings(
            preset=preset,
            dataset=on,
            split=split,
            limit=at_most(limit, on, split),
            threat=presets.threat(preset, on, attack=attack, norm=norm, **given),
            batch_size=batch_size,
            seed=seed,
        )
        return run_attack(session, target, settings, name)

    run(ctx, work, json=json, quiet=quiet, device=device, threads=threads, force=force)


def evaluate(
    ctx: typer.Context,
    refs: o.ModelArguments = None,
    samples: o.SamplesOption = None,
    attack: o.Attacks = None,
    norm: o.Norm = "linf",
    eps: o.Eps = None,
    alpha: o.Alpha = None,
    steps: o.Steps = None,
    restarts: o.Restarts = None,
    random_start: o.RandomStart = None,
    dataset: o.ModelDataset = None,
    split: o.EvalSplit = None,
    limit: o.Limit = None,
    batch_size: o.BatchSize = 100,
    seed: o.Seed = 0,
    preset: o.Preset = "default",
    force: o.Force = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Evaluate models on clean images, on sample caches (transfer) and under attack: one table.

    With --samples and no model, the models that the caches were made against.
    """
    given = {"eps": eps, "alpha": alpha, "steps": steps, "restarts": restarts, "random_start": random_start}

    def work(session: Session) -> Result:
        from advmix_cli.workflows import evaluate as workflow

        known_name(preset, presets.PRESETS, "preset")
        if not attack and any(value is not None for value in given.values()):
            raise UsageError("these options describe an attack, and none is asked for", "add --attack pgd")
        if (refs or []).count("-") and (samples or []).count("-"):
            raise UsageError("standard input can be read once", "give - for the models or for --samples")
        caches = [workflow.resolve_samples(session, ref) for ref in references(samples or [])]
        if refs or not caches:
            chosen = [resolve_model(session, ref) for ref in references(refs or ["latest"])]
        else:
            chosen = list({m.digest: m for m in (workflow.attacked_model(session, cache) for cache in caches)}.values())
        known = [cache.record for cache in caches if cache.record is not None]
        on = dataset or (known[0]["dataset"] if known and not refs else chosen[0].dataset)
        data.info(on)
        if dataset is None and len({each.dataset for each in chosen}) > 1:
            raise UsageError("these models learned different data sets", "say on which to evaluate them: --dataset")
        part = split or (known[0]["split"] if known else "test")
        settings = EvalSettings(
            dataset=on,
            split=part,
            limit=at_most(limit, on, part),
            threats=presets.threats(preset, on, attack or [], norm=norm, **given),
            batch_size=batch_size,
            seed=seed,
        )
        return workflow.evaluate(session, chosen, caches, settings)

    run(ctx, work, json=json, quiet=quiet, device=device, threads=threads, force=force)


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


def list_presets(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[PRESET]", help="default, report or as-run.", show_default="all")
    ] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """List the named settings of train and attack."""
    from advmix_cli.workflows import about

    run(ctx, lambda session: about.list_presets(name), json=json, quiet=quiet)


def info(
    ctx: typer.Context,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Versions, device, folders and what is stored: paste this into a bug report."""
    from advmix_cli.workflows import about

    run(ctx, about.info, json=json, quiet=quiet, device=device, threads=threads)


_Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DATASET]...",
        help="Data sets.",
        show_default="all",
        autocompletion=lambda: list(data.DATASETS),
    ),
]


@data_app.command("list")
def data_list(ctx: typer.Context, json: o.Json = False, quiet: o.Quiet = False) -> None:
    """List the data sets and whether they are there."""
    from advmix_cli.workflows import about

    run(ctx, about.list_data, json=json, quiet=quiet)


@data_app.command("fetch")
def data_fetch(ctx: typer.Context, names: _Names = None, json: o.Json = False, quiet: o.Quiet = False) -> None:
    """Download data sets, verified, unless they are there."""
    from advmix_cli.workflows import about

    run(ctx, lambda session: about.check_data(session, names or [], fetch=True), json=json, quiet=quiet)


@data_app.command("verify")
def data_verify(ctx: typer.Context, names: _Names = None, json: o.Json = False, quiet: o.Quiet = False) -> None:
    """Read data sets whole and give the fingerprints of their images."""
    from advmix_cli.workflows import about

    run(ctx, lambda session: about.check_data(session, names or [], fetch=False), json=json, quiet=quiet)
