"""The command line. Only this package imports typer; torch and matplotlib are imported by the work itself."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated

import typer

from advmix_cli import world
from advmix_cli._version import __version__
from advmix_cli.cli import about, attacking, experiments, figures, store, training
from advmix_cli.cli.base import as_error, show_help
from advmix_cli.cli.shape import App
from advmix_cli.errors import AdvmixError, StoppedError
from advmix_cli.output import Output, prepare

app = App(
    name="advmix",
    help="Train image classifiers with mixup and manifold mixup, attack them, and believe the robust accuracy.",
    epilog="Commands feed each other: advmix train -q | advmix attack - -q | advmix eval --samples -",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    rich_markup_mode=None,  # plain help answers a fifth sooner
)


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Train image classifiers with mixup and manifold mixup, attack them, and believe the robust accuracy."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
    show_help(ctx)


for name, function in (
    ("train", training.train),
    ("advtrain", training.advtrain),
    ("attack", attacking.attack),
    ("eval", attacking.evaluate),
    ("import", training.import_),
    ("run", experiments.run),
    ("reproduce", experiments.reproduce),
):
    app.command(name)(function)
app.add_typer(figures.app, name="visualize")
app.command("presets")(about.list_presets)
app.command("info")(about.info)
app.command("models")(about.list_models)
app.command("methods")(about.list_methods)
app.command("card")(about.card)
app.command("export")(about.export)
app.add_typer(about.data_app, name="data")
app.add_typer(store.app, name="store")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 usage, 3 not found, 4 damaged, 5 locked, 130, 143 stopped."""
    given = sys.argv[1:] if arguments is None else arguments
    code = _run(given)
    world.end(code)
    sys.exit(code)


STOPS: list[int] = []
"""The signals that told this process to stop: Ctrl-C, or the SIGTERM by which schedulers end jobs."""


def heed_stops() -> None:
    """Remember a signal to stop, which raises KeyboardInterrupt, where nobody else heeds it."""

    def told(number: int, frame: FrameType | None) -> None:
        STOPS.append(number)
        raise KeyboardInterrupt

    STOPS.clear()
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is usual:
            signal.signal(number, told)


def _run(arguments: list[str]) -> int:
    prepare()
    heed_stops()
    output = Output(_command(arguments), as_json="--json" in arguments)
    try:
        code = app(args=arguments, prog_name="advmix", standalone_mode=False, obj=arguments)
        return code if isinstance(code, int) else 0
    except AdvmixError as error:
        _trace()
        return _say(output, error)
    except typer.TyperException as error:
        return _say(output, as_error(error))
    except (typer.Abort, KeyboardInterrupt):
        return _say(output, StoppedError("interrupted", "nothing was done"))
    except Exception as error:
        _trace()
        if STOPS:  # what others make of a KeyboardInterrupt within them
            return _say(output, StoppedError("interrupted", "the same command begins again, or continues"))
        if _lacks_memory(error):
            return _say(output, AdvmixError("there is not enough memory", "try a smaller --batch-size", code="memory"))
        if isinstance(error, OSError):
            at = f" ({error.filename})" if error.filename else ""
            return _say(output, AdvmixError(f"the system refuses: {error.strerror or error}{at}", code="system"))
        message = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return _say(output, AdvmixError(message, "unexpected: ADVMIX_DEBUG=1 shows where", code="unexpected"))


def _lacks_memory(error: Exception) -> bool:
    words = ("can't allocate memory", "cannot allocate memory", "failed to map segment", "can't start new thread")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in (*words, "out of memory"))


def _say(output: Output, error: AdvmixError) -> int:
    said = world.word(error)
    if said is None:
        return error.exit_code
    try:
        output.error(said)
    except AdvmixError as unwritable:  # the error itself, as JSON: it is said on stderr then
        output.as_json = False
        output.error(unwritable)
    return 128 + STOPS[-1] if STOPS and isinstance(error, StoppedError) else error.exit_code


def _trace() -> None:
    if os.environ.get("ADVMIX_DEBUG") == "1":
        traceback.print_exc()


def _command(arguments: list[str]) -> str:
    """The command's words, for the envelope of an error that the parser finds."""
    groups = {"visualize", "data", "store"}
    words = [word for word in arguments if not word.startswith("-")]
    return " ".join(words[: 2 if words and words[0] in groups else 1])
