"""`visualize`: a command for each picture."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from advmix_cli.cli import options as o
from advmix_cli.cli import subjects as s
from advmix_cli.cli.base import reference, references, run, show_help
from advmix_cli.cli.shape import App
from advmix_cli.cli.values import complete, several, whole
from advmix_cli.errors import UsageError, known_name
from advmix_cli.names import full_name
from advmix_cli.presets import MIX_ALPHA
from advmix_cli.results import Result
from advmix_cli.workflows.references import WITH_HISTORY, of_a_stored_model, resolve_models, resolve_samples
from advmix_cli.workflows.session import Session

app = App(help="Pictures, as PNG and SVG.")
app.callback(invoke_without_command=True)(show_help)


@app.command()
def samples(
    ctx: typer.Context,
    samples: o.SamplesArgument = "latest",
    count: o.Count = 10,
    index: Annotated[
        Any,
        typer.Option(
            "--index", parser=several(whole), metavar="N,...", show_default=False,
            help="These images, by their numbers, instead of --count.",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only", help="Images that are broken: wrong when attacked alone, or standing.", show_default=False,
            autocompletion=complete("broken", "standing"),
        ),
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Also a row attacked against an untrained network, as in Figure 7.")
    ] = False,
    out: o.Out = None,
    name: o.Name = None,
    force: o.Force = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:  # fmt: skip
    """Originals, attacked images and the perturbation, with what the model says of each (Figures 7 and 8)."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import visualize

        if index is not None and only is not None:
            raise UsageError("--index and --only both choose the images", "leave one of them out")
        which = known_name(only, ("broken", "standing"), "choice") if only else None
        cache = resolve_samples(session, reference(samples, "sample cache"), of_a_stored_model(session))
        return visualize.samples(
            session, cache, visualize.Choice(count, index or (), which, untrained), visualize.To(out, name)
        )

    run(ctx, work)


@app.command()
def confusion(
    ctx: typer.Context,
    samples: o.SamplesArgument = "latest",
    out: o.Out = None,
    name: o.Name = None,
    force: o.Force = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """What images of each class are taken for, clean and attacked, from a sample cache."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import visualize

        cache = resolve_samples(session, reference(samples, "sample cache"), of_a_stored_model(session))
        return visualize.confusion(session, cache, visualize.To(out, name))

    run(ctx, work)


@app.command()
def curves(
    ctx: typer.Context,
    models: o.ModelArguments = None,
    out: o.Out = None,
    name: o.Name = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Accuracy and loss over the epochs of several runs (Figures 3 to 6)."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import visualize

        chosen = resolve_models(session, references(models or ["latest"]), WITH_HISTORY)
        return visualize.curves(session, chosen, visualize.To(out, name))

    run(ctx, work)


@app.command()
def mixing(
    ctx: typer.Context,
    dataset: s.Dataset = "glyphs",
    mix_alpha: o.MixAlpha = None,
    count: o.Count = 8,
    seed: o.Seed = 0,
    out: o.Out = None,
    name: o.Name = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """A batch, its shuffled copy and their mix (Figure 2)."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import visualize

        alpha = MIX_ALPHA["mixup"] if mix_alpha is None else mix_alpha
        return visualize.mixing(session, full_name(dataset), alpha, count, seed, visualize.To(out, name))

    run(ctx, work)


@app.command()
def eps(
    ctx: typer.Context,
    evaluations: o.EvaluationArguments = None,
    out: o.Out = None,
    name: o.Name = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """What attacks leave and bounds prove, against eps, from evaluations that differ in it."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import visualize

        return visualize.eps(session, references(evaluations or ["latest"]), visualize.To(out, name))

    run(ctx, work)


def _of_evaluation(kind: str, title: str) -> None:
    """Add the command that draws `kind` of an evaluation."""

    @app.command(kind, help=title)
    def command(
        ctx: typer.Context,
        evaluation: o.EvaluationArgument = "latest",
        out: o.Out = None,
        name: o.Name = None,
        force: o.Force = False,
        json: o.Json = False,
        quiet: o.Quiet = False,
    ) -> None:
        def work(session: Session) -> Result:
            from advmix_cli.workflows import visualize

            return visualize.evaluation(session, kind, reference(evaluation, "evaluation"), visualize.To(out, name))

        run(ctx, work)


for _kind, _title in {
    "matrix": "The accuracies of an evaluation as a heat map: models down, what they met across (Table 3).",
    "compare": "The accuracies of an evaluation as points with their intervals, a line a model.",
    "classes": "The accuracy of each class, clean and attacked, from an evaluation.",
    "reliability": "Accuracy against confidence on clean images, from an evaluation.",
    "strength": "Accuracy against eps and against steps, from an evaluation with --audit.",
    "landscape": "The loss around one image of each model, from an evaluation with --audit.",
}.items():
    _of_evaluation(_kind, _title)
