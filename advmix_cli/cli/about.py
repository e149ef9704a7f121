"""`presets`, `info`, `models`, `card` and `data`: what is set, what is installed, what is there and known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advmix_cli import data
from advmix_cli.cli import options as o
from advmix_cli.cli import subjects as s
from advmix_cli.cli.base import confirmed, reference, run, show_help
from advmix_cli.cli.shape import App
from advmix_cli.cli.values import complete, complete_refs
from advmix_cli.results import Result
from advmix_cli.ways import METHODS
from advmix_cli.workflows.session import Session

data_app = App(help="The data sets: what is there, fetch, verify, remove.")
data_app.callback(invoke_without_command=True)(show_help)


def list_presets(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="PRESET", help="default, report or as-run; or a data set, such as folder:PATH.", show_default="all"
        ),
    ] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """List the named settings of train, advtrain and attack."""
    from advmix_cli.workflows import about

    run(ctx, lambda session: about.list_presets(session, name))


def list_methods(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="METHOD",
            help="One of them, for what it may be told.",
            show_default="all",
            autocompletion=lambda: list(METHODS),
        ),
    ] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """List the ways of adversarial training, or say what one of them may be told."""
    from advmix_cli.workflows import about

    run(ctx, lambda session: about.list_methods(session, name))


def info(
    ctx: typer.Context,
    device: o.Device = "auto",
    threads: o.Threads = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Versions, device, folders and what is stored: paste this into a bug report."""
    from advmix_cli.workflows import about

    run(ctx, about.info)


def list_models(
    ctx: typer.Context,
    arch: Annotated[
        str | None,
        typer.Argument(
            metavar="NETWORK",
            help="A name, timm:NAME, torchvision:NAME or FILE.py:FACTORY; with * in it a list.",
            show_default="what is built in",
        ),
    ] = None,
    dataset: s.ModelDataset = None,
    image_size: s.ImageSize = None,
    arch_arg: s.ArchArgs = None,
    normalize: s.Normalize = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """List the networks, or say what a name gives: shape, parameters, normalisation, stages to mix at."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import subjects
        from advmix_cli.workflows.choosing import Asked

        return subjects.list_models(session, Asked(dataset, image_size, arch, tuple(arch_arg or ()), normalize))

    run(ctx, work)


def card(
    ctx: typer.Context,
    model: o.ModelArgument = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            metavar="FILE|DIR",
            help="Where the card goes; in a folder as README.md.",
            show_default="standard output",
        ),
    ] = None,
    push_ready: Annotated[
        bool,
        typer.Option("--push-ready", help="With --out DIR: a folder for the hub, with weights and config.json."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write a model card: how it was trained, and what the store's evaluations say of it; nothing is computed."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows.card import card

        named = "latest" if model is None else reference(model, "model")
        return card(session, named, out, push_ready=push_ready)

    run(ctx, work)


def export(
    ctx: typer.Context,
    ref: Annotated[
        str,
        typer.Argument(
            metavar="REF", help="A model or a sample cache; see card, and eval --samples.",
            autocompletion=complete_refs("checkpoints", "samples"),
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to", help="Of a model onnx, torch-export, state-dict or safetensors; of a sample cache npz or png.",
            autocompletion=complete("onnx", "torch-export", "state-dict", "safetensors", "npz", "png"),
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE|DIR", help="Where it goes.", show_default="here, by its name"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    device: o.Device = "auto",
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:  # fmt: skip
    """Write a model or attacked images in a form that other programs read; it is read back and checked."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows.export import export

        return export(session, reference(ref, "artifact"), to, out)

    run(ctx, work)


_Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DATASET",
        help="Data sets: names, folder:PATH, npz:PATH, torchvision:NAME.",
        show_default="all",
        autocompletion=lambda: list(data.DATASETS),
    ),
]


@data_app.command("list")
def data_list(ctx: typer.Context, json: o.Json = False, quiet: o.Quiet = False) -> None:
    """List the data sets and whether they are there."""
    from advmix_cli.workflows import subjects

    run(ctx, subjects.list_data)


@data_app.command("fetch")
def data_fetch(
    ctx: typer.Context,
    names: _Names = None,
    skip_damaged: s.SkipDamaged = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Download data sets, verified, unless they are there; prepare folders, array files and torchvision's others."""
    _check(ctx, names, fetch=True)


@data_app.command("verify")
def data_verify(
    ctx: typer.Context,
    names: _Names = None,
    skip_damaged: s.SkipDamaged = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Read data sets whole and give the fingerprints of their images."""
    _check(ctx, names, fetch=False)


def _check(ctx: typer.Context, names: list[str] | None, *, fetch: bool) -> None:
    from advmix_cli.workflows import subjects

    run(ctx, lambda session: subjects.check_data(session, names or [], fetch=fetch))


@data_app.command("remove")
def data_remove(
    ctx: typer.Context,
    names: _Names = None,
    dry_run: o.DryRun = False,
    yes: o.Yes = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Remove what was prepared of data sets, after showing what goes; the images it was made from stay."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import removal

        plan = removal.plan_forgetting(session, names or [])
        return removal.carry_out(session, plan, dry_run=dry_run, confirm=confirmed(yes))

    run(ctx, work)
