"""`attack` and `eval`: sample caches and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from advmix_cli import data, models, presets
from advmix_cli.cli import options as o
from advmix_cli.cli.base import at_most, reference, references, run
from advmix_cli.config import AttackSettings, EvalSettings
from advmix_cli.errors import UsageError, known_name
from advmix_cli.results import Result
from advmix_cli.workflows.common import Session, resolve_model, resolve_models

_CONTINUES = "the same command goes on from where it last kept its state, every ten seconds"


def _of_the_attack(ctx: typer.Context) -> dict[str, Any]:
    """What the command line says of the attack, by the names of the threat's settings; None where it says nothing."""
    names = ("eps", "alpha", "steps", "restarts", "random_start", "loss", "targets", "queries", "precision")
    return {name: ctx.params[name] for name in names}


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
    loss: o.AttackLoss = None,
    targets: o.Targets = None,
    queries: o.Queries = None,
    precision: o.AttackPrecision = None,
    early_stop: o.EarlyStop = False,
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
    batch_size: o.BatchSize = None,
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
    given = _of_the_attack(ctx)

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
            threat=presets.threat(preset, on, attack=attack, norm=norm, early_stop=early_stop or None, **given),
            batch_size=batch_size,
            seed=seed,
        )
        return run_attack(session, target, settings, name)

    run(ctx, work, json=json, quiet=quiet, device=device, threads=threads, force=force, stopped=_CONTINUES)


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
    loss: o.AttackLoss = None,
    targets: o.Targets = None,
    queries: o.Queries = None,
    precision: o.AttackPrecision = None,
    dataset: o.ModelDataset = None,
    split: o.EvalSplit = None,
    limit: o.Limit = None,
    batch_size: o.BatchSize = None,
    seed: o.Seed = 0,
    preset: o.Preset = "default",
    audit: Annotated[
        bool, typer.Option("--audit", help="Look for masked gradients: is the robust accuracy what it seems?")
    ] = False,
    fail_on: Annotated[
        str | None,
        typer.Option("--fail-on", help="With --audit: exit 1 on suspicious or on masked.", show_default=False),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Also write tables and pictures into one HTML file.", show_default=False),
    ] = None,
    force: o.Force = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Evaluate models on clean images, on sample caches (transfer) and under attack: one table.

    With --samples and no model, the models that the caches were made against.
    """
    given = _of_the_attack(ctx)

    def work(session: Session) -> Result:
        from advmix_cli.workflows import evaluate as workflow

        known_name(preset, presets.PRESETS, "preset")
        only_audited = audit and all(value is None for name, value in given.items() if name != "eps")
        if not attack and not only_audited and any(value is not None for value in given.values()):
            raise UsageError("these options describe an attack, and none is asked for", "add --attack pgd")
        if fail_on is not None:
            known_name(fail_on, ("suspicious", "masked"), "verdict")
            if not audit:
                raise UsageError("--fail-on judges an audit, and none is asked for", "add --audit")
        workflow.check_report(report)
        if (refs or []).count("-") and (samples or []).count("-"):
            raise UsageError("standard input can be read once", "give - for the models or for --samples")
        caches = [workflow.resolve_samples(session, ref) for ref in references(samples or [])]
        if refs or not caches:
            chosen = resolve_models(session, references(refs or ["latest"]))
        else:
            chosen = list({m.digest: m for m in (workflow.attacked_model(session, cache) for cache in caches)}.values())
        known = [cache.record for cache in caches if cache.record is not None]
        on = dataset or (known[0]["dataset"] if known and not refs else chosen[0].dataset)
        data.info(on)
        if dataset is None and len({each.dataset for each in chosen}) > 1:
            raise UsageError("these models learned different data sets", "say on which to evaluate them: --dataset")
        part = split or (known[0]["split"] if known else "test")
        threats = presets.threats(preset, on, attack or [], norm=norm, early_stop=preset != "as-run", **given)
        settings = EvalSettings(
            dataset=on,
            split=part,
            limit=at_most(limit, on, part),
            threats=threats,
            batch_size=batch_size,
            seed=seed,
            audited=presets.threat("default", on, norm=norm, eps=eps) if audit else None,
        )
        return workflow.evaluate(session, chosen, caches, settings, report=report, fail_on=fail_on)

    run(ctx, work, json=json, quiet=quiet, device=device, threads=threads, force=force, stopped=_CONTINUES)
