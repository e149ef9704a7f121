"""`visualize`: a command for each picture."""

from __future__ import annotations

import typer

from advmix_cli.cli import options as o
from advmix_cli.cli import subjects as s
from advmix_cli.cli.base import reference, references, run, show_help
from advmix_cli.cli.shape import App
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
    out: o.Out = None,
    force: o.Force = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Originals, attacked images and the perturbation, with what the model says of each (Figures 7 and 8)."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import visualize

        cache = resolve_samples(session, reference(samples, "sample cache"), of_a_stored_model(session))
        return visualize.samples(session, cache, count, out)

    run(ctx, work)


@app.command()
def curves(
    ctx: typer.Context,
    models: o.ModelArguments = None,
    out: o.Out = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Accuracy and loss over the epochs of several runs (Figures 3 to 6)."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import visualize

        chosen = resolve_models(session, references(models or ["latest"]), WITH_HISTORY)
        return visualize.curves(session, chosen, out)

    run(ctx, work)


@app.command()
def mixing(
    ctx: typer.Context,
    dataset: s.Dataset = "glyphs",
    mix_alpha: o.MixAlpha = None,
    count: o.Count = 8,
    seed: o.Seed = 0,
    out: o.Out = None,
    force: o.Force = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """A batch, its shuffled copy and their mix (Figure 2)."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import visualize

        alpha = MIX_ALPHA["mixup"] if mix_alpha is None else mix_alpha
        return visualize.mixing(session, full_name(dataset), alpha, count, seed, out)

    run(ctx, work)


def _of_evaluation(kind: str, title: str) -> None:
    """Add the command that draws `kind` of an evaluation."""

    @app.command(kind, help=title)
    def command(
        ctx: typer.Context,
        evaluation: o.EvaluationArgument = "latest",
        out: o.Out = None,
        force: o.Force = False,
        json: o.Json = False,
        quiet: o.Quiet = False,
    ) -> None:
        def work(session: Session) -> Result:
            from advmix_cli.workflows import visualize

            return visualize.evaluation(session, kind, reference(evaluation, "evaluation"), out)

        run(ctx, work)


for _kind, _title in {
    "matrix": "The accuracies of an evaluation as a heat map: models down, what they met across (Table 3).",
    "reliability": "Accuracy against confidence on clean images, from an evaluation.",
    "strength": "Accuracy against eps and against steps, from an evaluation with --audit.",
    "landscape": "The loss around one image of each model, from an evaluation with --audit.",
}.items():
    _of_evaluation(_kind, _title)
