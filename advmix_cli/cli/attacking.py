"""`attack` and `eval`: sample caches and tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advmix_cli.cli import options as o
from advmix_cli.cli import subjects as s
from advmix_cli.cli.base import asked, carry_out, reference, references
from advmix_cli.cli.values import complete, complete_refs
from advmix_cli.errors import UsageError
from advmix_cli.judging import BOUNDS
from advmix_cli.ways import INFERENCES

if TYPE_CHECKING:
    from advmix_cli import requests

_CONTINUES = "the same command goes on from where it last kept its state, every ten seconds"


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
    dataset: s.ModelDataset = None,
    image_size: s.ImageSize = None,
    skip_damaged: s.SkipDamaged = False,
    arch: Annotated[
        str | None,
        typer.Option("--arch", help="With --untrained: the network.", show_default="the data set's"),
    ] = None,
    arch_arg: s.ArchArgs = None,
    normalize: s.Normalize = None,
    split: o.Split = "test",
    limit: o.Limit = None,
    batch_size: o.BatchSize = None,
    shard: o.Shard = None,
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
    from advmix_cli import requests

    carry_out(
        ctx,
        lambda: asked(ctx, requests.Attack, model=None if model is None else reference(model, "model")),
        stopped=_CONTINUES,
    )


def evaluate(
    ctx: typer.Context,
    refs: o.ModelArguments = None,
    samples: o.SamplesOption = None,
    attack: o.Attacks = None,
    norm: o.Norm = "linf",
    eps: o.Strengths = None,
    alpha: o.Alpha = None,
    steps: o.Steps = None,
    restarts: o.Restarts = None,
    random_start: o.RandomStart = None,
    loss: o.AttackLoss = None,
    targets: o.Targets = None,
    queries: o.Queries = None,
    precision: o.AttackPrecision = None,
    dataset: s.ModelDataset = None,
    image_size: s.ImageSize = None,
    skip_damaged: s.SkipDamaged = False,
    split: o.EvalSplit = None,
    limit: o.Limit = None,
    batch_size: o.BatchSize = None,
    shard: o.Shard = None,
    seed: o.Seed = 0,
    preset: o.Preset = "default",
    audit: Annotated[
        bool, typer.Option("--audit", help="Look for masked gradients: is the robust accuracy what it seems?")
    ] = False,
    certify: Annotated[
        bool,
        typer.Option(
            "--certify", help="Prove a lower bound, so that the true robust accuracy lies in a bracket (linf, l2)."
        ),
    ] = False,
    bounds: Annotated[
        str | None,
        typer.Option(
            "--bounds",
            help="With --certify: ibp (intervals), crown (linear bounds), best (whichever proves an image), or exact "
            "(a solver decides what best leaves: for small networks of certified training, linf).",
            show_default="best",
            autocompletion=complete(*BOUNDS),
        ),
    ] = None,
    inference: Annotated[
        str | None,
        typer.Option(
            "--inference",
            help=f"Verdicts from mixtures with training images, by {' or '.join(INFERENCES)}; attacked by EOT.",
            show_default=False,
            autocompletion=complete(*INFERENCES),
        ),
    ] = None,
    inference_arg: Annotated[
        list[str] | None,
        typer.Option(
            "--inference-arg",
            metavar="KEY=VALUE",
            help="What it may be told: " + ", ".join(dict.fromkeys(o for w in INFERENCES.values() for o in w.options)),
            show_default=False,
            autocompletion=complete(*dict.fromkeys(f"{o}=" for w in INFERENCES.values() for o in w.options)),
        ),
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option("--fail-on", help="With --audit: exit 1 on suspicious or on masked.", show_default=False),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Also write tables and pictures into one HTML file.", show_default=False),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="MODEL",
            help="Compare each model with this one, image by image.",
            show_default=False,
            autocompletion=complete_refs("checkpoints"),
        ),
    ] = None,
    pairwise: Annotated[
        bool, typer.Option("--pairwise", help="Compare each two models (two alone are compared anyway).")
    ] = False,
    name: o.Name = None,
    force: o.Force = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    format: o.Format = "table",
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Evaluate models on clean images, on sample caches (transfer) and under attack: one table.

    With --samples and no model, the models that the caches were made against; with several eps, accuracy against eps.
    """

    def request() -> requests.Evaluate | requests.EvaluateEach:
        from advmix_cli import requests

        if (refs or []).count("-") and (samples or []).count("-"):
            raise UsageError("standard input can be read once", "give - for the models or for --samples")
        named = {"models": references(refs or []), "samples": references(samples or []), "attack": attack or []}
        one = asked(ctx, requests.Evaluate, **named, eps=eps[0] if eps else None)
        return requests.EvaluateEach(one, eps) if eps and len(eps) > 1 else one

    carry_out(ctx, request, stopped=_CONTINUES)
