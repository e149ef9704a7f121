"""What each part of an experiment is at, whoever carries it out: seen from the store, which is all that they share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Container, Sequence

from advmix_cli.errors import LockedError
from advmix_cli.experiments import carrying
from advmix_cli.experiments.plan import Part
from advmix_cli.results import Result, Table
from advmix_cli.workflows.session import Session

_STATES = ("running", "ready", "waiting", "done")
"""A process is at it; all that it needs is done; not yet; it is in the store."""

_EVERY_S = 2.0


def watch(session: Session, parts: Sequence[Part]) -> Result:
    """Show the states of all parts: on a terminal until all are done, elsewhere once."""
    left, found = dict.fromkeys(parts), carrying.Found()
    with session.report.live() as show:
        while True:
            left = dict.fromkeys(carrying.stored(session, left, found).failed)
            states = {part: _state(session, part, left) if part in left else "done" for part in parts}
            table = _table(states)
            if not show(table) or not left:
                break
            time.sleep(_EVERY_S)
    counts = Counter(states.values())
    data = {
        "parts": [{"kind": part.kind, "part": str(part), "state": state} for part, state in states.items()],
        "states": {state: counts[state] for state in _STATES},
    }
    return Result(data, [], [table])


def _state(session: Session, part: Part, left: Container[Part]) -> str:
    if any(need in left for need in part.needs):
        return "waiting"
    try:
        with session.store.lock(f"part-{part.key}"):
            return "ready"
    except LockedError:
        return "running"


def _table(states: dict[Part, str]) -> Table:
    """Those that something happens to come first: a terminal may have no room for all."""
    numbered = sorted(enumerate(states.items(), 1), key=lambda each: _STATES.index(each[1][1]))
    rows = [(str(i), part.kind, str(part), state) for i, (part, state) in numbered]
    counts = Counter(states.values())
    title = ", ".join(f"{counts[state]} {state}" for state in _STATES if counts[state])
    return Table(("part", "does", "what", "state"), rows, title=title, right=("part",))
