"""How every command runs: a session, the work, the result; and references from standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from advmix_cli import data
from advmix_cli.errors import AdvmixError, NotFoundError, StoppedError, UsageError
from advmix_cli.output import Output
from advmix_cli.results import Result
from advmix_cli.workflows.common import Session


def run(
    ctx: typer.Context,
    work: Callable[[Session], Result],
    *,
    json: bool = False,
    quiet: bool = False,
    device: str = "auto",
    threads: int | None = None,
    force: bool = False,
    stopped: str = "nothing half done is left; the same command begins again",
) -> None:
    """Do the work of a command and print its result; a finding that is an error ends with its exit code."""
    command = " ".join(ctx.command_path.split()[1:])
    output = Output(command, quiet=quiet, as_json=json)
    try:
        result = work(Session.open(output, device=device, threads=threads, force=force))
    except KeyboardInterrupt:
        raise StoppedError("interrupted", stopped) from None
    output.emit(result)
    if result.problem is not None:
        raise typer.Exit(result.problem.exit_code)


def at_most(limit: int | None, dataset: str, split: str) -> int | None:
    """The limit, None where it is no limit: the same images are the same work."""
    return None if limit is not None and limit >= data.info(dataset).sizes.get(split, 0) else limit


def show_help(ctx: typer.Context) -> None:
    """A group called without a command says what there is."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


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
