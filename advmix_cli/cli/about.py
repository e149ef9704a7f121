"""`presets`, `info` and `data`: what is set, what is installed, what is there."""

from __future__ import annotations

from typing import Annotated

import typer

from advmix_cli import data
from advmix_cli.cli import options as o
from advmix_cli.cli.base import run, show_help

data_app = typer.Typer(help="The data sets: what is there, fetch, verify.")
data_app.callback(invoke_without_command=True)(show_help)


def list_presets(
    ctx: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="PRESET", help="default, report or as-run.", show_default="all")
    ] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """List the named settings of train and attack."""
    from advmix_cli.workflows import about

    run(ctx, lambda session: about.list_presets(name))


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


_Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DATASET",
        help="Data sets.",
        show_default="all",
        autocompletion=lambda: list(data.DATASETS),
    ),
]


@data_app.command("list")
def data_list(ctx: typer.Context, json: o.Json = False, quiet: o.Quiet = False) -> None:
    """List the data sets and whether they are there."""
    from advmix_cli.workflows import about

    run(ctx, about.list_data)


@data_app.command("fetch")
def data_fetch(ctx: typer.Context, names: _Names = None, json: o.Json = False, quiet: o.Quiet = False) -> None:
    """Download data sets, verified, unless they are there."""
    from advmix_cli.workflows import about

    run(ctx, lambda session: about.check_data(session, names or [], fetch=True))


@data_app.command("verify")
def data_verify(ctx: typer.Context, names: _Names = None, json: o.Json = False, quiet: o.Quiet = False) -> None:
    """Read data sets whole and give the fingerprints of their images."""
    from advmix_cli.workflows import about

    run(ctx, lambda session: about.check_data(session, names or [], fetch=False))
