"""How every command runs: a session, the work, the result; and references from standard input."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import typer

from advmix_cli import world
from advmix_cli.errors import AdvmixError, NotFoundError, StoppedError, UsageError, known_name
from advmix_cli.output import Output
from advmix_cli.results import Result
from advmix_cli.workflows.session import Session, Silent
from advmix_cli.workflows.watching import Watching

if TYPE_CHECKING:
    from advmix_cli.workflows import removal


class _Request(Protocol):
    def resolve(self, session: Session) -> _Resolved: ...


class _Resolved(Protocol):
    def carry_out(self, session: Session) -> Result: ...


Request = TypeVar("Request")

_IN_RANKS = ("train", "advtrain", "attack", "eval")
"""Commands that several processes can share."""

_HALF_DONE = "nothing half done is left; the same command begins again"


def asked(ctx: typer.Context, kind: type[Request], **read: Any) -> Request:
    """The request of that kind that the command's options make; `read` are those that are not taken as they are."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in ctx.params.items() if name in names} | read)


def carry_out(ctx: typer.Context, request: Callable[[], _Request], *, stopped: str) -> None:
    """Make a request, resolve it and do its work."""
    run(ctx, lambda session: request().resolve(session).carry_out(session), stopped=stopped)


def run(ctx: typer.Context, work: Callable[[Session], Result], *, stopped: str = _HALF_DONE) -> None:
    """Do the work of a command and print its result; a finding that is an error ends with its exit code.

    Of the command's options those are used that every command has, and those of its session.
    """
    command, given = " ".join(ctx.command_path.split()[1:]), ctx.params
    output = Output(command, quiet=given.get("quiet", False), as_json=given.get("json", False), form=_form(given))
    ranks = world.of_environment(os.environ)
    if command in _IN_RANKS:
        ranks = world.join()
    elif not ranks.first:
        return  # the first does it alone
    try:
        session = Session.open(
            output if ranks.first else Silent(),
            device=given.get("device", "auto"),
            threads=given.get("threads"),
            # That of training is a setting: it changes weights.
            batch_size=given.get("batch_size") if command in ("attack", "eval") else None,
            force=given.get("force", False),
            skip_damaged=given.get("skip_damaged", False),
            shard=given.get("shard"),
            sync_bn=given.get("sync_bn", False),
            watching=Watching(given.get("log"), given.get("tensorboard")),
            command=shlex.join(["advmix", *ctx.obj]),
        )
        with contextlib.redirect_stdout(sys.stderr):  # what a network of others prints is no result
            result = work(session)
    except KeyboardInterrupt:
        raise StoppedError("interrupted", stopped) from None
    world.leave()
    if ranks.first:
        output.emit(result)
    if result.problem is not None:
        raise typer.Exit(result.problem.exit_code)


def _form(given: dict[str, Any]) -> str:
    """How tables are to be written. Raises UsageError."""
    form = given.get("format", "table")
    if form == "table":
        return "table"
    for other in ("json", "quiet"):
        if given[other]:
            raise UsageError(f"--format {form} and --{other} say two forms", "give one of them")
    from advmix_cli.formats import FORMATS

    return known_name(form, ["table", *FORMATS], "format")


def show_help(ctx: typer.Context) -> None:
    """A group called without a command says what there is."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def confirmed(yes: bool) -> Callable[[removal.Plan], bool]:
    """Whether what is to be removed may go: with a `yes`, or asked on the terminal."""

    def confirm(plan: removal.Plan) -> bool:
        if yes:
            return True
        if sys.stdin is None or not sys.stdin.isatty():
            raise UsageError(
                "removing needs a yes, and there is no terminal to ask on",
                "add -y, or --dry-run to see what would go",
            )
        Output("").plan(plan.table())
        return typer.confirm(f"Remove these {len(plan.files)} files?", err=True)

    return confirm


def references(refs: list[str]) -> list[str]:
    """The references as given, each `-` replaced by the lines of standard input."""
    if refs.count("-") > 1:
        raise UsageError("standard input can be read once", "give - once")
    expanded: list[str] = []
    for ref in refs:
        expanded += _lines() if ref == "-" else [ref]
    return expanded


def reference(ref: str, what: str) -> str:
    """The one reference that is meant."""
    given = references([ref])
    if len(given) > 1:
        raise UsageError(
            f"{len(given)} references came on standard input, this takes one {what}",
            "one at a time: xargs -n 1",
        )
    return given[0]


def _lines() -> list[str]:
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "- reads references from standard input, which is a terminal",
            "pipe them in: advmix train -q | advmix attack -",
        )
    try:
        found = [line.strip() for line in sys.stdin if line.strip()]
    except UnicodeDecodeError:
        raise UsageError("standard input is no text", "pipe in references: advmix train -q | advmix attack -") from None
    if not found:
        raise NotFoundError(
            "no reference came on standard input", "did the command before the pipe fail?", code="empty"
        )
    return found


def as_error(error: Exception) -> AdvmixError:
    """What the parser refused, in this project's own words."""
    message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
    return UsageError(message.rstrip("."), "see --help")
