"""The options that several commands share, their completion, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from advmix_cli import presets
from advmix_cli.config import ATTACK_LOSSES, ATTACKS, MIXES, NORMS, POLICIES, PRECISIONS, SPLITS, fraction, number
from advmix_cli.data import DATASETS
from advmix_cli.models import ARCHITECTURES
from advmix_cli.store import Store, check_alias


def _complete(*choices: str) -> Callable[[str], list[str]]:
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]


def _complete_refs(*kinds: str) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        store = Store()
        aliases = [alias for alias, (kind, _) in store.refs().items() if kind in kinds]
        names = [name for kind in kinds for name in store.names(kind)]
        return [name for name in ("latest", *aliases, *names) if name.startswith(incomplete)]

    return complete


def _number(text: str | float) -> float:
    if isinstance(text, float):
        return text
    try:
        return fraction(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; write a number or a fraction such as 0.3 or 8/255") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a whole number") from None


def _several(read: Callable[[str], Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Values with commas between, each once."""

    def parse(given: Any) -> tuple[Any, ...]:
        return given if isinstance(given, tuple) else tuple(dict.fromkeys(read(each) for each in str(given).split(",")))

    return parse


def _defaults(table: presets.Table, setting: str) -> str:
    """What the default preset says of a setting, data set by data set."""
    values = {name: values[setting] for name, values in table["default"].items() if setting in values}
    if len(set(values.values())) == 1:
        return _shown(next(iter(values.values())))
    return ", ".join(f"{name} {_shown(value)}" for name, value in values.items())


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)


def _eps_defaults() -> str:
    return ", ".join(f"{name} {number(presets.threat('default', name).eps)}" for name in presets.ATTACK["default"])


def _alias(name: str | None) -> str | None:
    return None if name is None else check_alias(name)


def _epochs(table: presets.Table) -> Any:
    return typer.Option("--epochs", help="Epochs.", show_default=_defaults(table, "epochs"))


def _batch_size(table: presets.Table) -> Any:
    return typer.Option("--batch-size", help="Images a step.", show_default=_defaults(table, "batch_size"))


def _learning_rate(table: presets.Table) -> Any:
    shown = _defaults(table, "lr")
    return typer.Option(
        "--lr", parser=_number, metavar="NUMBER", help="The (largest) learning rate.", show_default=shown
    )


def _steps(table: presets.Table, others: str = "") -> Any:
    shown = _defaults(table, "steps") + others
    return typer.Option("--steps", help="Iterations of the attack.", show_default=shown)


_MODELS = ("checkpoints",)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, also for errors.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only references, one a line.")]
Name = Annotated[
    str | None, typer.Option("--name", help="An alias for what is made.", show_default=False, callback=_alias)
]
Force = Annotated[bool, typer.Option("--force", help="Compute again what the store has, and replace it.")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        envvar="ADVMIX_DEVICE",
        help="auto, cpu, cuda, cuda:N or mps.",
        autocompletion=_complete("auto", "cpu", "cuda", "mps"),
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
        help="Path, name, prefix, alias, latest, or - for standard input; @best or @last.",
        autocompletion=_complete_refs(*_MODELS),
    ),
]
ModelArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help="Paths, names, prefixes, aliases or a pattern of them ('m-*'), latest, or - for one a line on standard "
        "input; @best or @last.",
        show_default="latest",
        autocompletion=_complete_refs(*_MODELS),
    ),
]
SamplesArgument = Annotated[
    str, typer.Argument(metavar="SAMPLES", help="A sample cache.", autocompletion=_complete_refs("samples"))
]
EvaluationArgument = Annotated[
    str,
    typer.Argument(metavar="EVALUATION", help="An evaluation.", autocompletion=_complete_refs("evaluations")),
]
SamplesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--samples",
        help="A sample cache, or - for standard input; may be given several times.",
        autocompletion=_complete_refs("samples"),
        show_default=False,
    ),
]
AnyArgument = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="Any artifact.",
        autocompletion=_complete_refs("checkpoints", "samples", "evaluations", "figures"),
    ),
]
AnyArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="REF",
        help="Any artifacts.",
        show_default=False,
        autocompletion=_complete_refs("checkpoints", "samples", "evaluations", "figures"),
    ),
]

Dataset = Annotated[str, typer.Option("--dataset", help="The data set.", autocompletion=_complete(*DATASETS))]
ModelDataset = Annotated[
    str | None,
    typer.Option("--dataset", help="The data set.", show_default="the model's", autocompletion=_complete(*DATASETS)),
]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        help="The architecture.",
        show_default=", ".join(f"{d.name} {d.arch}" for d in DATASETS.values()),
        autocompletion=_complete(*ARCHITECTURES),
    ),
]
Preset = Annotated[
    str,
    typer.Option("--preset", help="Named settings; see advmix presets.", autocompletion=_complete(*presets.PRESETS)),
]
Seed = Annotated[int, typer.Option("--seed", help="Where all randomness comes from.")]
Limit = Annotated[
    int | None, typer.Option("--limit", help="Use only the first N images.", metavar="N", show_default="all")
]
Split = Annotated[str, typer.Option("--split", help="test or train.", autocompletion=_complete(*SPLITS))]

EvalSplit = Annotated[
    str | None,
    typer.Option(
        "--split", help="test or train.", show_default="that of --samples, else test", autocompletion=_complete(*SPLITS)
    ),
]

Epochs = Annotated[int | None, _epochs(presets.TRAIN)]
TrainBatchSize = Annotated[int | None, _batch_size(presets.TRAIN)]
LearningRate = Annotated[float | None, _learning_rate(presets.TRAIN)]
AdvEpochs = Annotated[int | None, _epochs(presets.ADVTRAIN)]
AdvBatchSize = Annotated[int | None, _batch_size(presets.ADVTRAIN)]
AdvLearningRate = Annotated[float | None, _learning_rate(presets.ADVTRAIN)]
_TOGETHER = "several, with commas between, are trained together"
Mixes = Annotated[
    Any,
    typer.Option(
        "--mix",
        parser=_several(str),
        metavar="MIX,...",
        help=f"none, mixup or manifold; {_TOGETHER}.",
        autocompletion=_complete(*MIXES),
    ),
]
Seeds = Annotated[
    Any,
    typer.Option(
        "--seed",
        parser=_several(_whole),
        metavar="N,...",
        help=f"Where all randomness comes from; {_TOGETHER}.",
    ),
]
MixAlpha = Annotated[
    float | None,
    typer.Option(
        "--mix-alpha",
        parser=_number,
        metavar="NUMBER",
        help="Lambda is drawn from Beta(a, a).",
        show_default=", ".join(f"{mix} {alpha:g}" for mix, alpha in presets.MIX_ALPHA.items() if mix != "none"),
    ),
]
SoftLabels = Annotated[
    Any,
    typer.Option(
        "--soft-label",
        parser=_several(_number),
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
        autocompletion=_complete(*PRECISIONS),
    ),
]
AttackPrecision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="float32 or bf16, for pgd's gradients; verdicts are float32's.",
        show_default="float32",
        autocompletion=_complete(*PRECISIONS),
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
            ref for ref in ("untrained", *_complete_refs(*_MODELS)(incomplete)) if ref.startswith(incomplete)
        ],
    ),
]
InitDataset = Annotated[
    str | None,
    typer.Option("--dataset", help="The data set.", show_default="that of --init", autocompletion=_complete(*DATASETS)),
]
InitArch = Annotated[
    str | None,
    typer.Option(
        "--arch", help="The architecture.", show_default="that of --init", autocompletion=_complete(*ARCHITECTURES)
    ),
]
Policy = Annotated[
    str,
    typer.Option(
        "--policy",
        help="normal, or partial-pgd: mix with a shuffled clean batch (with --mix mixup).",
        autocompletion=_complete(*POLICIES),
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Say how the time of each epoch divides.")]

Norm = Annotated[
    str,
    typer.Option("--norm", help="linf or l2.", autocompletion=_complete(*NORMS)),
]
Attack = Annotated[
    str,
    typer.Option("--attack", help=f"{', '.join(ATTACKS)}.", autocompletion=_complete(*ATTACKS)),
]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        help=f"Attack each model itself, with {', '.join(ATTACKS)}; may be given several times, the worst case counts.",
        autocompletion=_complete(*ATTACKS),
        show_default=False,
    ),
]
Eps = Annotated[
    float | None,
    typer.Option(
        "--eps",
        parser=_number,
        metavar="NUMBER",
        help="The budget in pixel units, e.g. 0.3 or 8/255.",
        show_default=_eps_defaults(),
    ),
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha",
        parser=_number,
        metavar="NUMBER",
        help="The step size.",
        show_default="2.5 eps / steps",
    ),
]
Steps = Annotated[int | None, _steps(presets.ATTACK, "; apgd and fab 100")]
AttackLoss = Annotated[
    str | None,
    typer.Option(
        "--loss",
        help="What pgd climbs: ce, dlr or cw (the margin).",
        show_default="ce",
        autocompletion=_complete(*ATTACK_LOSSES),
    ),
]
Targets = Annotated[
    int | None,
    typer.Option(
        "--targets",
        metavar="K",
        help="Drive to each of the K likeliest wrong classes in turn.",
        show_default="pgd 0: any wrong class; apgd-t, fab-t 9",
    ),
]
Queries = Annotated[
    int | None, typer.Option("--queries", help="How often square may ask.", show_default="square 5000, square-pgd 2000")
]
EarlyStop = Annotated[
    bool,
    typer.Option("--early-stop", help="Let pgd leave an image at its first success, which eval always does."),
]
TrainSteps = Annotated[int | None, _steps(presets.ADVTRAIN)]
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
Out = Annotated[
    Path | None, typer.Option("--out", help="Also write the picture here (.png or .svg).", show_default=False)
]
Count = Annotated[int, typer.Option("--count", min=1, max=20, help="Images across.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")]
