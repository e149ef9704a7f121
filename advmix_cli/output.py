"""The only module that prints. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.text import Text

from advmix_cli.errors import AdvmixError
from advmix_cli.layout import laid_out, wrapped
from advmix_cli.results import Facts, Result, Table, duration, shown
from advmix_cli.settings import SCHEMA, plain

if TYPE_CHECKING:
    from rich.progress import Progress

_PLAIN_WIDTH = 10_000
_PLAIN_EVERY_S = 10.0


class _Console(RichConsole):
    """Rich ends the process when a reader leaves; here that is for the command to decide."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _console(stream: TextIO | None, *, folded: bool = False) -> RichConsole:
    """Text for people, in lines that only the terminal folds, so that names can be copied. None: nobody listens."""
    if stream is None:
        stream = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives
    width = None if folded and stream.isatty() else _PLAIN_WIDTH
    return _Console(file=stream, highlight=False, soft_wrap=True, width=width)


@contextlib.contextmanager
def _readers_may_leave() -> Iterator[None]:
    """A closed pipe is no failure: whoever read has seen enough, and what was made is in the store.

    Raises AdvmixError where the output cannot be written for another reason, a full disk say.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        _let_go(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise AdvmixError(
                f"cannot write the result: {error.strerror or error}",
                "what was made is in the store: the same command gives it again",
                code="output",
            ) from error


def _let_go(stream: TextIO | None) -> None:
    """Write no more there: or Python complains once more at exit."""
    with contextlib.suppress(OSError, ValueError):
        if stream is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _text(text: str, style: str = "") -> Text:
    return Text(shown(text), style=style)


def prepare() -> None:
    """Let what the terminal's encoding lacks be written as escapes, and no file take the place of a closed stream."""
    for handle in range(3):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Output:
    """How one command speaks: to people, quietly (`-q`: references alone), or in JSON. Also the workflows' reporter.

    `form` is how its tables are written: on a terminal's lines, or in one of `formats.FORMATS`.
    """

    def __init__(self, command: str, *, quiet: bool = False, as_json: bool = False, form: str = "table") -> None:
        self.command, self.quiet, self.as_json, self.form = command, quiet, as_json, form
        self._out, self._err = _console(sys.stdout), _console(sys.stderr, folded=True)

    # The result

    def emit(self, result: Result) -> None:
        """Print what a command gives back."""
        with _readers_may_leave():
            self._emit(result)
        if result.hint and not self.quiet:
            self._say(_text(f"next: {result.hint}", "dim"))
        if result.problem is not None:
            self._explain(result.problem)

    def _emit(self, result: Result) -> None:
        if self.as_json:
            self._envelope(result.data, result.problem)
        elif self.quiet:
            for ref in result.refs:
                self._out.print(_text(ref))
        elif self.form != "table":
            from advmix_cli.formats import FORMATS

            write = FORMATS[self.form]
            self._out.print(write(result), end="", markup=False)
        else:
            for i, block in enumerate(result.blocks):
                if i:
                    self._out.print()
                self._facts(block) if isinstance(block, Facts) else self._table(block, self._out)

    def error(self, error: AdvmixError) -> None:
        """Say what is wrong and what to do."""
        if self.as_json:
            with _readers_may_leave():
                self._envelope({}, error)
        self._explain(error)

    def _explain(self, error: AdvmixError) -> None:
        self._say(Text.assemble(("error: ", "bold red"), shown(error.message)))
        if error.hint:
            self._say(_text(f"hint: {error.hint}"))

    def _say(self, text: Text) -> None:
        """On stderr; a reader that left, or a full disk, does not change how the command ends."""
        try:
            self._err.print(text)
        except OSError:
            _let_go(sys.stderr)

    def _envelope(self, data: dict[str, Any], error: AdvmixError | None) -> None:
        errors = [{"code": error.code, "message": error.message, "hint": error.hint}] if error else []
        envelope = {
            "schema": SCHEMA,
            "command": self.command,
            "status": "error" if error else "ok",
            "data": plain(data),
            "errors": errors,
        }
        self._out.print(json.dumps(envelope, allow_nan=False), markup=False)

    def _facts(self, facts: Facts) -> None:
        width = max((len(label) for label, _ in facts.rows), default=0)
        for label, value in facts.rows:
            self._out.print(_text(f"{label:<{width}}  {value}" if width else value))

    def plan(self, table: Table) -> None:
        """Show on stderr what a question is about."""
        self._table(table, _console(sys.stderr))

    def _table(self, table: Table, console: RichConsole) -> None:
        width = RichConsole(file=console.file).width if console.is_terminal else None
        if table.rows:
            console.print(laid_out(table, width))
        if table.note:
            console.print(_text(wrapped(shown(table.note), width), "dim"))

    # What is said on the way

    def note(self, text: str) -> None:
        """Something to know; not said with -q."""
        if not self.quiet:
            self._say(_text(text, "dim"))

    def warn(self, text: str) -> None:
        """Something to mind."""
        self._say(_text(f"warning: {text}", "yellow"))

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None = None, unit: str = "") -> Iterator[_Bar | _Lines]:
        """A bar with rate and time left on a terminal, else a plain line now and then; nothing with -q.

        Of units that have no name the share that is done is shown.
        """
        if self.quiet or not self._err.is_terminal:
            yield _Lines(self, what, total, unit)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        done = (MofNCompleteColumn(), TextColumn(f"{unit}  {{task.fields[rate]}}"))
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            *(done if unit else (TextColumn("{task.percentage:.0f} %"),)),
            TextColumn("{task.fields[about]}"),
            TextColumn("{task.fields[left]}", style="progress.remaining"),
        )
        with Progress(*columns, console=self._err, transient=True) as bar:
            yield _Bar(bar, bar.add_task(escape(shown(what)), total=total, rate="", about="", left=""))

    @contextlib.contextmanager
    def live(self) -> Iterator[Callable[[Table], bool]]:
        """Tables one in place of the other, on a terminal; elsewhere, with -q and --json one is enough."""
        if self.quiet or self.as_json or not self._err.is_terminal:
            yield lambda table: False
            return
        from rich.live import Live

        with Live(console=self._err, transient=True, auto_refresh=False) as shown_now:

            def show(table: Table) -> bool:
                shown_now.update(laid_out(table, self._err.width), refresh=True)
                return True

            yield show


class _Pace:
    """How much of a work is done and how fast it goes, by what was done since it could be watched."""

    def __init__(self, total: float | None) -> None:
        self.done, self.total, self.rate = 0.0, total or 0.0, 0.0
        self._before, self._began = 0.0, time.monotonic()

    def __call__(self, n: float, left: float | None, before: bool) -> None:
        self.done += n
        self._before += n if before else 0.0
        self.total = max(self.total, self.done) if left is None else self.done + left
        taken = time.monotonic() - self._began
        self.rate = (self.done - self._before) / taken if taken else 0.0

    @property
    def left(self) -> str:
        """How long the rest will take, for people; nothing where that is not known."""
        return f"{duration((self.total - self.done) / self.rate)} left" if self.rate and self.done < self.total else ""


class _Bar:
    """Progress on a terminal. Rich's own speed begins anew with each other total."""

    def __init__(self, bar: Progress, task: Any) -> None:
        self._bar, self._task, self._pace = bar, task, _Pace(bar.tasks[0].total)

    def __call__(self, n: float, left: float | None = None, before: bool = False) -> None:
        pace = self._pace
        pace(n, left, before)
        self._bar.update(
            self._task, advance=n, total=pace.total, rate=f"{pace.rate:,.0f}/s" if pace.rate else "", left=pace.left
        )

    def about(self, text: str) -> None:
        """Beside the bar."""
        self._bar.update(self._task, about=escape(shown(text)))

    def line(self, text: str) -> None:
        """Above the bar."""
        self._bar.console.print(_text(text))


class _Lines:
    """Progress in a log: the lines of the work itself and, where it has none, one every ten seconds."""

    def __init__(self, output: Output, what: str, total: float | None, unit: str) -> None:
        self._output, self._what, self._pace, self._unit = output, what, _Pace(total), unit
        self._said, self._about = time.monotonic(), ""

    def __call__(self, n: float, left: float | None = None, before: bool = False) -> None:
        pace = self._pace
        pace(n, left, before)
        if time.monotonic() - self._said >= _PLAIN_EVERY_S and pace.left:
            about = f", {self._about}" if self._about else ""
            named = f"{pace.done:g}/{pace.total:g} {self._unit}, {pace.rate:.0f}/s"
            self.line(f"{self._what}: {named if self._unit else f'{pace.done / pace.total:.0%}'}{about}, {pace.left}")

    def about(self, text: str) -> None:
        """In the next line."""
        self._about = text

    def line(self, text: str) -> None:
        """On a line of its own."""
        self._said = time.monotonic()
        if not self._output.quiet:
            self._output._say(_text(text))
