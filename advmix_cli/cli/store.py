"""`store list|show|path|verify|rename|unalias|remove|prune`."""

from __future__ import annotations

from typing import Annotated

import typer

from advmix_cli.cli import options as o
from advmix_cli.cli.base import confirmed, reference, references, run, show_help
from advmix_cli.cli.values import complete_refs
from advmix_cli.errors import known_name
from advmix_cli.results import Facts, Result
from advmix_cli.workflows import store as workflow
from advmix_cli.workflows.session import Session

app = typer.Typer(help="What was made: list, show, path, verify, rename, unalias, remove, prune.")
app.callback(invoke_without_command=True)(show_help)


@app.command("list")
def list_(
    ctx: typer.Context,
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help=", ".join(workflow.KINDS) + ".",
            show_default="all",
            autocompletion=lambda: list(workflow.KINDS),
        ),
    ] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """List artifacts, the newest first."""

    def work(session: Session) -> Result:
        return workflow.listing(session, None if kind is None else known_name(kind, workflow.KINDS, "kind"))

    run(ctx, work)


@app.command()
def show(
    ctx: typer.Context,
    ref: o.AnyArgument,
    command: Annotated[bool, typer.Option("--command", help="Only the command that made it.")] = False,
    toml: Annotated[
        bool, typer.Option("--toml", help="Only the part of an experiment's file that would make it.")
    ] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Show the record of an artifact: what it was made from, how, and what came out."""

    def work(session: Session) -> Result:
        named = reference(ref, "artifact")
        if not command and not toml:
            return workflow.show(session, named)
        made = workflow.made_by(session, named)
        if command:
            return Result({"command": made}, [made], [Facts([("", made)])])
        from advmix_cli.experiments.commands import part_of_file

        part = part_of_file(made, named.partition("@")[0])
        return Result({"toml": part}, [part.rstrip()], [Facts([("", part.rstrip())])])

    run(ctx, work)


@app.command()
def path(ctx: typer.Context, ref: o.AnyArgument, json: o.Json = False, quiet: o.Quiet = False) -> None:
    """Print the path of an artifact."""
    run(ctx, lambda session: workflow.where(session, reference(ref, "artifact")))


@app.command()
def verify(ctx: typer.Context, refs: o.AnyArguments = None, json: o.Json = False, quiet: o.Quiet = False) -> None:
    """Read artifacts (all, if none is named) whole and compare their digests."""
    run(ctx, lambda session: workflow.verify(session, references(refs or [])))


@app.command()
def rename(
    ctx: typer.Context,
    old: Annotated[
        str, typer.Argument(metavar="ALIAS", help="An alias.", autocompletion=complete_refs(*workflow.KINDS))
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What it is to be called.")],
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Rename an alias."""
    run(ctx, lambda session: workflow.rename(session, old, new))


@app.command()
def unalias(ctx: typer.Context, aliases: o.AnyArguments = None, json: o.Json = False, quiet: o.Quiet = False) -> None:
    """Drop aliases; what they name stays."""
    run(ctx, lambda session: workflow.unalias(session, references(aliases or [])))


@app.command()
def remove(
    ctx: typer.Context,
    refs: o.AnyArguments = None,
    dry_run: o.DryRun = False,
    yes: o.Yes = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Remove artifacts, after showing what goes."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import removal

        plan = removal.plan_removal(session, references(refs or []))
        return removal.carry_out(session, plan, dry_run=dry_run, confirm=confirmed(yes))

    run(ctx, work)


@app.command()
def prune(
    ctx: typer.Context,
    dry_run: o.DryRun = False,
    yes: o.Yes = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Remove what nothing needs: leftovers of interrupted work, and what was made from models that are gone."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import removal

        return removal.carry_out(session, removal.plan_pruning(session), dry_run=dry_run, confirm=confirmed(yes))

    run(ctx, work)
