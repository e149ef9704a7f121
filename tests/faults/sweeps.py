"""Each file operation of each command: killed, interrupted or refused there; and kills and Ctrl-C at any time."""

from __future__ import annotations

import errno
import random
import signal
from collections.abc import Iterator

from checks import after_fault, ended, mended
from family import Attempt, Cases, Family, one_by_one, seeds
from runner import Ran
from scenarios import SCENARIOS, Bench, Scenario
from shim import ACTIONS, ALL, CHANGES, Fault, mask

_WRITING = mask("create", "write", "sync", "rename", "mkdir", "link", "truncate")
_NAMING = mask("open", "create", "rename", "unlink", "mkdir", "link", "listing", "stat")
_REFUSED = {
    "EIO": ("fail", ALL),
    "ENOSPC": ("fail-on", _WRITING),
    "EACCES": ("fail", _NAMING),
    "EMFILE": ("fail", mask("open", "create", "listing")),
    "EROFS": ("fail-on", CHANGES & ~mask("write", "sync")),
    "EDQUOT": ("short", mask("write")),
}
"""What the system says, how often, and of what: a bad block once, a full disk from then on, a write that is cut."""


def sweep(parts: dict[str, int]) -> Cases:
    """Cases `SCENARIO PART N`: for each part, each of the operations of its kinds; the commands in turn."""

    def cases(bench: Bench, chance: random.Random) -> Iterator[str]:
        names = list(SCENARIOS)
        chance.shuffle(names)
        waiting: dict[str, list[str]] = {}
        while names:
            for name in list(names):
                if name not in waiting:
                    counts = {part: count(bench, SCENARIOS[name], kinds) for part, kinds in parts.items()}
                    waiting[name] = [f"{name} {part} {n + 1}" for part, many in counts.items() for n in range(many)]
                    chance.shuffle(waiting[name])
                if waiting[name]:
                    yield waiting[name].pop()
                else:
                    names.remove(name)

    return cases


def count(bench: Bench, scenario: Scenario, kinds: int) -> int:
    """How many such operations there are, undisturbed."""
    return sum(1 for kind in bench.undisturbed(scenario)[0].kinds if kind & kinds)


def disturbed(bench: Bench, scenario: Scenario, ran: Ran, signals: tuple[int, ...] = ()) -> list[str]:
    """All that must hold of a command that was disturbed, and of the same command again."""
    _, before, undisturbed = bench.undisturbed(scenario)
    problems = ended(ran, signals) + after_fault(before, undisturbed, bench.now())
    verified = bench.runner.run(["store", "verify"], bench.home)
    if verified.code:
        damaged = [line for line in verified.out.splitlines() if "ok" not in line.split()]
        problems.append(f"store verify: {verified.code} {verified.err.strip()[:120]} {damaged[:2]}")
    again = bench.run(scenario)
    problems += [f"again: {problem}" for problem in ended(again)]
    if again.code not in scenario.again:
        problems.append(f"again: exit {again.code}: {again.err.strip().splitlines()[-2:]}")
    return problems + [f"again: {problem}" for problem in mended(undisturbed, bench.now())]


def _at_an_operation(number: int, kinds: int) -> Attempt:
    def check(bench: Bench, case: str) -> list[str]:
        name, when, nth = case.split()
        bench.ready(SCENARIOS[name])
        ran = bench.run(SCENARIOS[name], Fault(ACTIONS[when], int(nth), number, kinds))
        return disturbed(bench, SCENARIOS[name], ran, (number,))

    return one_by_one(check)


def _refused(bench: Bench, case: str) -> list[str]:
    name, said, nth = case.split()
    how, kinds = _REFUSED[said]
    bench.ready(SCENARIOS[name])
    fault = Fault(ACTIONS[how], int(nth), getattr(errno, said), kinds)
    return disturbed(bench, SCENARIOS[name], bench.run(SCENARIOS[name], fault))


def _at_any_time(bench: Bench, case: str) -> list[str]:
    name, said, seed = case.split()
    scenario, number = SCENARIOS[name], signal.Signals[said]
    usual = bench.undisturbed(scenario)[0].seconds
    bench.fresh(scenario.store)
    child = bench.start(scenario)
    child.ends_within(random.Random(int(seed)).uniform(0, 1.1 * usual))
    child.send(number)
    return disturbed(bench, scenario, child.wait(usual + 10), (number,))


def _times(said: str) -> Cases:
    return seeds(lambda bench: [f"{name} {said}" for name in SCENARIOS])


FAMILIES = (
    Family(
        "kills", "SIGKILL before and after each operation that changes the disk, then the same command",
        sweep({"before": CHANGES, "after": CHANGES}), _at_an_operation(signal.SIGKILL, CHANGES), few=10,
    ),
    Family(
        "interrupts", "Ctrl-C at each file operation, then the same command",
        sweep({"before": ALL, "after": ALL}), _at_an_operation(signal.SIGINT, ALL), few=4,
    ),
    Family(
        "refusals", "EIO, ENOSPC, EACCES, EMFILE, EROFS and cut writes at each file operation, then the same command",
        sweep({said: kinds for said, (_, kinds) in _REFUSED.items()}), one_by_one(_refused), few=10,
    ),
    Family("kills-any", "SIGKILL at any time", _times("SIGKILL"), one_by_one(_at_any_time), few=2),
    Family("interrupts-any", "Ctrl-C at any time", _times("SIGINT"), one_by_one(_at_any_time), few=2),
)  # fmt: skip
