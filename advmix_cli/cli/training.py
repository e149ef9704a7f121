"""`train`, `advtrain` and `import`: checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advmix_cli.cli import options as o
from advmix_cli.cli import subjects as s
from advmix_cli.cli.base import asked, carry_out, reference, run
from advmix_cli.cli.values import complete, read_number
from advmix_cli.results import Result
from advmix_cli.ways import AUGMENTS, METHODS, MIX_ORDERS
from advmix_cli.workflows.session import Session

_Method = Annotated[
    str,
    typer.Option(
        "--method",
        help=f"How: {', '.join(METHODS)}; see advmix methods.",
        autocompletion=complete(*METHODS),
    ),
]
_MethodArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--method-arg",
        metavar="KEY=VALUE",
        help="What a method may be told, see advmix methods; may be given several times.",
        show_default=False,
        autocompletion=complete(*(f"{name}=" for each in METHODS.values() for name in each.options)),
    ),
]
_MixOrder = Annotated[
    str,
    typer.Option(
        "--mix-order",
        help="attack-mix, or mix-attack: attack the mixed images with their mixed labels (with --mix mixup).",
        autocompletion=complete(*MIX_ORDERS),
    ),
]
_Awp = Annotated[
    float | None,
    typer.Option(
        "--awp",
        parser=read_number,
        metavar="GAMMA",
        help="Update at weights that are moved against the model by GAMMA of their size.",
        show_default="0",
    ),
]
_Ema = Annotated[
    float | None,
    typer.Option(
        "--ema",
        parser=read_number,
        metavar="DECAY",
        help="Average the weights over steps; the average is judged and chosen, @ema is the last one.",
        show_default="0: no average",
    ),
]
_Augment = Annotated[
    str | None,
    typer.Option(
        "--augment",
        help=f"{', '.join(AUGMENTS)}.",
        show_default="the recipe's",
        autocompletion=complete(*AUGMENTS),
    ),
]

_SyncBn = Annotated[
    bool,
    typer.Option("--sync-bn", help="With several ranks, on GPUs: batch norm over all ranks' images."),
]

_Log = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE", help="Write a JSON line an epoch to FILE.jsonl.", show_default=False),
]
_TensorBoard = Annotated[
    Path | None,
    typer.Option("--tensorboard", metavar="DIR", help="Write TensorBoard's event files below DIR.", show_default=False),
]

_CONTINUES = "the same command goes on after the last whole epoch"


def train(
    ctx: typer.Context,
    dataset: s.Dataset = "glyphs",
    image_size: s.ImageSize = None,
    skip_damaged: s.SkipDamaged = False,
    arch: s.Arch = None,
    arch_arg: s.ArchArgs = None,
    normalize: s.Normalize = None,
    weights: s.OthersWeights = None,
    mix: o.Mixes = "none",
    mix_alpha: o.MixAlpha = None,
    mix_stages: s.MixStages = None,
    soft_label: o.SoftLabels = None,
    epochs: o.Epochs = None,
    batch_size: o.TrainBatchSize = None,
    lr: o.LearningRate = None,
    limit: o.TrainLimit = None,
    seed: o.Seeds = 0,
    precision: o.Precision = None,
    augment: _Augment = None,
    ema: _Ema = None,
    preset: o.Preset = "default",
    name: o.Name = None,
    force: o.Force = False,
    sync_bn: _SyncBn = False,
    log: _Log = None,
    tensorboard: _TensorBoard = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train a classifier on clean images, with mixup, manifold mixup or neither: a checkpoint."""
    from advmix_cli import requests

    carry_out(ctx, lambda: asked(ctx, requests.Train), stopped=_CONTINUES)


def advtrain(
    ctx: typer.Context,
    init: o.Init = None,
    method: _Method = "pgd",
    method_arg: _MethodArgs = None,
    dataset: s.InitDataset = None,
    image_size: s.ImageSize = None,
    skip_damaged: s.SkipDamaged = False,
    arch: s.InitArch = None,
    arch_arg: s.ArchArgs = None,
    normalize: s.Normalize = None,
    weights: s.OthersWeights = None,
    mix: o.Mixes = "none",
    mix_alpha: o.MixAlpha = None,
    mix_stages: s.MixStages = None,
    mix_order: _MixOrder = "attack-mix",
    policy: o.Policy = "normal",
    soft_label: o.SoftLabels = None,
    eps: o.Eps = None,
    alpha: o.Alpha = None,
    steps: o.TrainSteps = None,
    random_start: o.RandomStart = None,
    awp: _Awp = None,
    epochs: o.AdvEpochs = None,
    batch_size: o.AdvBatchSize = None,
    lr: o.AdvLearningRate = None,
    limit: o.TrainLimit = None,
    seed: o.Seeds = 0,
    precision: o.Precision = None,
    augment: _Augment = None,
    ema: _Ema = None,
    preset: o.Preset = "default",
    name: o.Name = None,
    force: o.Force = False,
    verbose: o.Verbose = False,
    sync_bn: _SyncBn = False,
    log: _Log = None,
    tensorboard: _TensorBoard = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train against an attack or on bounds, from a standard checkpoint or from fresh weights: a checkpoint."""
    from advmix_cli import requests

    fresh = init in (None, "untrained")
    carry_out(
        ctx,
        lambda: asked(ctx, requests.AdvTrain, init=init if fresh else reference(str(init), "model")),
        stopped=_CONTINUES,
    )


def import_(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .pt, .pth, .tar or .safetensors file with a state dict.")
    ],
    dataset: s.ImportDataset = None,
    image_size: s.ImageSize = None,
    arch: s.Arch = None,
    arch_arg: s.ArchArgs = None,
    normalize: s.Normalize = None,
    name: o.Name = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Take in a checkpoint made elsewhere, or bring back one of advmix's own. Nothing in the file is executed."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows.choosing import Asked
        from advmix_cli.workflows.importing import import_checkpoint

        return import_checkpoint(
            session, file, Asked(dataset, image_size, arch, tuple(arch_arg or ()), normalize), name
        )

    run(ctx, work)
