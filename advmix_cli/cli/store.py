"""`store list|show|path|verify|rename|unalias|remove|prune|locks|push|pull|sync|export|import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advmix_cli.cli import options as o
from advmix_cli.cli.base import confirmed, reference, references, run, show_help
from advmix_cli.cli.shape import App
from advmix_cli.cli.values import complete_refs
from advmix_cli.errors import UsageError, known_name
from advmix_cli.results import Facts, Result
from advmix_cli.store import SINGULAR
from advmix_cli.workflows import store as workflow
from advmix_cli.workflows.session import Session

app = App(help="What was made: see it, name it, remove it, copy it elsewhere and back.")
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
    sort: Annotated[
        str,
        typer.Option(help=", ".join(workflow.SORTS) + ".", autocompletion=lambda: list(workflow.SORTS), metavar="BY"),
    ] = "age",
    like: Annotated[
        str | None,
        typer.Option(help="Only those of which a name or the model is like this, e.g. 'adv-*'.", metavar="PATTERN"),
    ] = None,
    format: o.Format = "table",
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """List artifacts, the newest first."""

    def work(session: Session) -> Result:
        named = {one: kinds for kinds, word in SINGULAR.items() for one in (kinds, word)}
        return workflow.listing(session, None if kind is None else named[known_name(kind, named, "kind")], sort, like)

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


@app.command()
def locks(
    ctx: typer.Context,
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND", help="system, or lease.", show_default="say which",
            autocompletion=lambda: list(workflow.LOCKS),
        ),
    ] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:  # fmt: skip
    """Say how processes keep out of each other's way: by the system's locks, or leases that are renewed."""
    run(ctx, lambda session: workflow.locks(session, kind))


_Refs = Annotated[
    list[str],
    typer.Argument(
        metavar="[REF]... URL", help="Artifacts (all, if none is named), and where: s3://, gs://, file://, ..."
    ),
]


def _copying(ctx: typer.Context, what: str, given: list[str], dry_run: bool) -> None:
    def work(session: Session) -> Result:
        from advmix_cli.workflows import sharing

        *refs, url = given
        if "://" not in url:
            raise UsageError(f"{url!r} is no URL", "the last word says where: file:///folder, s3://bucket/folder")
        result: Result = getattr(sharing, what)(session, references(refs), url, dry_run=dry_run)
        return result

    run(ctx, work, stopped="what is there is whole: the same command goes on")


@app.command()
def push(
    ctx: typer.Context, refs: _Refs, dry_run: o.DryRun = False, json: o.Json = False, quiet: o.Quiet = False
) -> None:
    """Copy artifacts, with what they were made from, to a URL; nothing there is overwritten."""
    _copying(ctx, "push", refs, dry_run)


@app.command()
def pull(
    ctx: typer.Context, refs: _Refs, dry_run: o.DryRun = False, json: o.Json = False, quiet: o.Quiet = False
) -> None:
    """Copy artifacts, with what they were made from, out of a URL; nothing here is overwritten."""
    _copying(ctx, "pull", refs, dry_run)


@app.command()
def sync(
    ctx: typer.Context, refs: _Refs, dry_run: o.DryRun = False, json: o.Json = False, quiet: o.Quiet = False
) -> None:
    """Copy both ways what the other lacks."""
    _copying(ctx, "sync", refs, dry_run)


@app.command()
def export(
    ctx: typer.Context,
    refs: Annotated[
        list[str], typer.Argument(metavar="[REF]... FILE", help="Artifacts (all, if none is named), and a new file.")
    ],
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write artifacts, with what they were made from, into one file for a colleague."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import sharing

        *named, file = refs
        return sharing.export(session, references(named), Path(file))

    run(ctx, work)


@app.command("import")
def import_(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What store export wrote.")],
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Take in all artifacts of a file that export wrote; nothing here is overwritten."""

    def work(session: Session) -> Result:
        from advmix_cli.workflows import sharing

        return sharing.take_in(session, file)

    run(ctx, work)
