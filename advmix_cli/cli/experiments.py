"""`run` and `reproduce`: experiments as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advmix_cli.cli import options as o
from advmix_cli.cli.base import carry_out
from advmix_cli.cli.base import run as run_command
from advmix_cli.cli.values import complete
from advmix_cli.errors import UsageError
from advmix_cli.presets import PRESETS
from advmix_cli.results import Facts, Result
from advmix_cli.workflows.session import Session

if TYPE_CHECKING:
    from advmix_cli.experiments import Experiment

_CONTINUES = "what is done is in the store: the same command goes on"

_Scale = Annotated[
    str | None,
    typer.Option("--scale", help="Which of the file's scales.", show_default="the file's first"),
]
_Seeds = Annotated[
    int | None,
    typer.Option("--seeds", min=1, max=1000, help="Seeds 0 to N - 1 of each run.", show_default="the file's"),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, part by part, and do nothing.")]
_KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Where a part fails, go on with those that do not need it.")
]
_On = Annotated[
    str | None,
    typer.Option(
        "--on", help="Each part as a job: slurm, local (processes), or debug (in this one).", show_default="no jobs",
        autocompletion=complete("local", "slurm", "debug"),
    ),
]  # fmt: skip
_Workers = Annotated[
    int | None, typer.Option("--workers", min=1, max=10_000, help="With --on: jobs at a time.", show_default="2")
]
_Slurm = Annotated[
    list[str] | None,
    typer.Option("--slurm", metavar="KEY=VALUE", help="With --on slurm: partition=..., account=..., and others."),
]
_Watch = Annotated[
    bool, typer.Option("--watch", help="Only show what each part is at, while other processes do the work.")
]
_Out = Annotated[
    Path | None,
    typer.Option("--out", help="The folder that tables and pictures go to.", show_default="FILE-SCALE"),
]


def run(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TOML file; --init writes one.")],
    scale: _Scale = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="A table or figure, or several with commas.", show_default="all"),
    ] = None,
    seeds: _Seeds = None,
    dry_run: _DryRun = False,
    keep_going: _KeepGoing = False,
    out: _Out = None,
    on: _On = None,
    workers: _Workers = None,
    slurm: _Slurm = None,
    watch: _Watch = False,
    init: Annotated[bool, typer.Option("--init", help="Write a commented example to FILE, and do nothing.")] = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    format: o.Format = "table",
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Carry out an experiment: its models, attacks and evaluations, its tables, figures and claims."""
    if init:
        run_command(ctx, lambda session: _written(session, file))
        return

    def request() -> Experiment:
        from advmix_cli.experiments import Experiment

        return Experiment(
            file, scale, only, seeds=seeds, dry_run=dry_run, keep_going=keep_going, out=out, on=on, workers=workers,
            slurm=slurm or (), watch=watch,
        )  # fmt: skip

    carry_out(ctx, request, stopped=_CONTINUES)


def _written(session: Session, file: Path) -> Result:
    from advmix_cli.experiments import EXAMPLE, shipped

    if file.exists():
        raise UsageError(f"{file} is there", "give another name")
    session.store.write(file.absolute(), shipped(EXAMPLE).encode())
    return Result({"file": str(file)}, [str(file)], [Facts([("written", str(file))])], f"advmix run {file} --dry-run")


def reproduce(
    ctx: typer.Context,
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WHAT]...", help="table1 to table8, figure2 to figure10, or all.", show_default="all"),
    ] = None,
    scale: _Scale = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset", help="mnist or cifar10.", show_default="both", autocompletion=complete("mnist", "cifar10")
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset", help="The settings of all parts.", show_default="the scale's", autocompletion=complete(*PRESETS)
        ),
    ] = None,
    seeds: _Seeds = None,
    dry_run: _DryRun = False,
    keep_going: _KeepGoing = False,
    out: _Out = None,
    on: _On = None,
    workers: _Workers = None,
    slurm: _Slurm = None,
    watch: _Watch = False,
    device: o.Device = "auto",
    threads: o.Threads = None,
    format: o.Format = "table",
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Make the report's tables and figures again, its own numbers beside them, and judge its claims."""

    def request() -> Experiment:
        from advmix_cli.experiments import Experiment

        only = None if what is None or "all" in what else what
        override: dict[str, Any] = {} if preset is None else {"preset": preset}
        return Experiment(
            None, scale, only, dataset, seeds, override, dry_run, keep_going, out, on, workers, slurm or (), watch
        )  # fmt: skip

    carry_out(ctx, request, stopped=_CONTINUES)
