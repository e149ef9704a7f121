"""The options that several commands share, their completion, and how their values are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from advmix_cli import presets
from advmix_cli.cli.values import (
    alias,
    batch_size,
    complete,
    complete_refs,
    declared,
    epochs,
    eps_defaults,
    learning_rate,
    read_number,
    several,
    steps,
    whole,
)
from advmix_cli.config import HELD_OUT, POLICIES, SPLITS
from advmix_cli.threats import ATTACKS, LOSSES, NORMS, PRECISIONS
from advmix_cli.ways import MIXES

_MODELS = ("checkpoints",)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, also for errors.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only references, one a line.")]
Format = Annotated[
    str,
    typer.Option(
        "--format", help="How tables are written: table, csv, markdown or latex.",
        autocompletion=complete("table", "csv", "markdown", "latex"),
    ),
]  # fmt: skip
Name = Annotated[
    str | None, typer.Option("--name", help="An alias for what is made.", show_default=False, callback=alias)
]
Force = Annotated[bool, typer.Option("--force", help="Compute again what the store has, and replace it.")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        envvar="ADVMIX_DEVICE",
        help="auto, cpu, cuda, cuda:N or mps.",
        autocompletion=complete("auto", "cpu", "cuda", "mps"),
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="CPU threads.",
        show_default="the cores this process may use",
    ),
]

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="Path, name, prefix, alias, zoo:NAME, latest, or - for standard input; @best, @last or @ema.",
        autocompletion=complete_refs(*_MODELS),
    ),
]
ModelArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help="Paths, names, prefixes, aliases or a pattern of them ('m-*'), zoo:NAME, latest, or - for one a line on "
        "standard input; @best, @last or @ema.",
        show_default="latest",
        autocompletion=complete_refs(*_MODELS),
    ),
]
SamplesArgument = Annotated[
    str, typer.Argument(metavar="SAMPLES", help="A sample cache.", autocompletion=complete_refs("samples"))
]
EvaluationArgument = Annotated[
    str,
    typer.Argument(metavar="EVALUATION", help="An evaluation.", autocompletion=complete_refs("evaluations")),
]
EvaluationArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="EVALUATION", help="Evaluations, or - for one a line on standard input.", show_default="latest",
        autocompletion=complete_refs("evaluations"),
    ),
]  # fmt: skip
SamplesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--samples",
        help="A sample cache, or - for standard input; may be given several times.",
        autocompletion=complete_refs("samples"),
        show_default=False,
    ),
]
AnyArgument = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="Any artifact.",
        autocompletion=complete_refs("checkpoints", "samples", "evaluations", "figures"),
    ),
]
AnyArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="REF",
        help="Any artifacts.",
        show_default=False,
        autocompletion=complete_refs("checkpoints", "samples", "evaluations", "figures"),
    ),
]

Preset = Annotated[
    str,
    typer.Option("--preset", help="Named settings; see advmix presets.", autocompletion=complete(*presets.PRESETS)),
]
Seed = Annotated[int, typer.Option("--seed", help="Where all randomness comes from.")]
Limit = Annotated[
    int | None, typer.Option("--limit", help="Use only the first N images.", metavar="N", show_default="all")
]
TrainLimit = Annotated[
    int | None,
    typer.Option(
        "--limit", help="Learn from the first N images, and judge on at most as many.", metavar="N", show_default="all"
    ),
]
Split = Annotated[str, typer.Option("--split", help="test or train.", autocompletion=complete(*SPLITS))]

EvalSplit = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="test, train, or validation: the images that the models' training held out.",
        show_default="that of --samples, else test",
        autocompletion=complete(*SPLITS, HELD_OUT),
    ),
]

Epochs = Annotated[int | None, epochs(presets.TRAIN)]
TrainBatchSize = Annotated[int | None, batch_size(presets.TRAIN)]
LearningRate = Annotated[float | None, learning_rate(presets.TRAIN)]
AdvEpochs = Annotated[int | None, epochs(presets.ADVTRAIN)]
AdvBatchSize = Annotated[int | None, batch_size(presets.ADVTRAIN)]
AdvLearningRate = Annotated[float | None, learning_rate(presets.ADVTRAIN)]
_TOGETHER = "several, with commas between, are trained together"
Mixes = Annotated[
    Any,
    typer.Option(
        "--mix",
        parser=several(str),
        metavar="MIX,...",
        help=f"none, mixup or manifold; {_TOGETHER}.",
        autocompletion=complete(*MIXES),
    ),
]
Seeds = Annotated[
    Any,
    typer.Option(
        "--seed",
        parser=several(whole),
        metavar="N,...",
        help=f"Where all randomness comes from; {_TOGETHER}.",
    ),
]
MixAlpha = Annotated[
    float | None,
    typer.Option(
        "--mix-alpha",
        parser=read_number,
        metavar="NUMBER",
        help="Lambda is drawn from Beta(a, a).",
        show_default=", ".join(f"{mix} {alpha:g}" for mix, alpha in presets.MIX_ALPHA.items() if mix != "none"),
    ),
]
SoftLabels = Annotated[
    Any,
    typer.Option(
        "--soft-label",
        parser=several(read_number),
        metavar="SIGMA,...",
        help=f"Give each wrong class SIGMA of the label; {_TOGETHER}.",
        show_default="0",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="float32 or bf16, for training.",
        show_default="float32",
        autocompletion=complete(*PRECISIONS),
    ),
]
AttackPrecision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="float32 or bf16, for pgd's gradients; verdicts are float32's.",
        show_default="float32",
        autocompletion=complete(*PRECISIONS),
    ),
]

Init = Annotated[
    str | None,
    typer.Option(
        "--init",
        metavar="MODEL",
        help="Where to begin: a model, or untrained for fresh weights.",
        show_default="the latest standard checkpoint of the data set",
        autocompletion=lambda incomplete: [
            ref for ref in ("untrained", *complete_refs(*_MODELS)(incomplete)) if ref.startswith(incomplete)
        ],
    ),
]
Policy = Annotated[
    str,
    typer.Option(
        "--policy",
        help="normal, or partial-pgd: mix with a shuffled clean batch (with --mix mixup).",
        autocompletion=complete(*POLICIES),
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Say how the time of each epoch divides.")]

Norm = Annotated[
    str,
    typer.Option("--norm", help="linf or l2.", autocompletion=complete(*NORMS)),
]
Attack = Annotated[
    str,
    typer.Option("--attack", help=f"{', '.join(ATTACKS)}.", autocompletion=complete(*ATTACKS)),
]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        help=f"Attack each model itself, with {', '.join(ATTACKS)}, or several with commas: the worst case counts.",
        autocompletion=complete(*ATTACKS),
        show_default=False,
    ),
]
Eps = Annotated[
    float | None,
    typer.Option(
        "--eps",
        parser=read_number,
        metavar="NUMBER",
        help="The budget in pixel units, e.g. 0.3 or 8/255.",
        show_default=eps_defaults(),
    ),
]
Strengths = Annotated[
    Any,
    typer.Option(
        "--eps",
        parser=several(read_number),
        metavar="NUMBER,...",
        help="The budget in pixel units, e.g. 0.3 or 8/255; several, with commas between: accuracy against eps.",
        show_default=eps_defaults(),
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha",
        parser=read_number,
        metavar="NUMBER",
        help="The step size.",
        show_default="2.5 eps / steps",
    ),
]
Steps = Annotated[int | None, steps(presets.ATTACK, of_attacks=True)]
AttackLoss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        help="What pgd climbs: ce, dlr or cw (the margin).",
        show_default="ce",
        autocompletion=complete(*LOSSES),
    ),
]
Targets = Annotated[
    int | None,
    typer.Option(
        "--targets",
        metavar="K",
        help="Drive to each of the K likeliest wrong classes in turn.",
        show_default=declared("targets", "pgd 0: any wrong class"),
    ),
]
Queries = Annotated[
    int | None, typer.Option("--queries", help="How often square may ask.", show_default=declared("queries"))
]
EarlyStop = Annotated[
    bool,
    typer.Option("--early-stop", help="Let pgd leave an image at its first success, which eval always does."),
]
TrainSteps = Annotated[int | None, steps(presets.ADVTRAIN)]
Restarts = Annotated[
    int | None,
    typer.Option(
        "--restarts",
        help="Tries, of which the worst counts for each image.",
        show_default="1",
    ),
]
RandomStart = Annotated[
    bool | None,
    typer.Option(
        "--random-start/--no-random-start",
        help="Begin at a random point of the ball.",
        show_default="random-start",
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Images at a time.", show_default="what suits the device")
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N",
        help="Attack the Ith of N parts of the images, from 0: the last to end puts all together.", show_default="all",
    ),
]  # fmt: skip
Out = Annotated[
    Path | None, typer.Option("--out", help="Also write the picture here (.png or .svg).", show_default=False)
]
Count = Annotated[int, typer.Option("--count", min=1, max=20, help="Images across.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")]
