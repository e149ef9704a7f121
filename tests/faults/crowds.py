"""Many processes on one store: on one key, on one name, makers beside removers, one stopped while another works."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator

from checks import Files, ended, leads, mended, temporary
from family import Family, listed, one_by_one, seeds
from runner import Child, Ran
from scenarios import SCENARIOS, Bench, Scenario
from shim import AFTER, BEFORE, CHANGES, Fault
from sweeps import count

_MANY = 16
_LIMIT_S = 90.0

_ONE_KEY = (
    "train-first", "train-force", "advtrain-force", "attack", "attack-force", "eval-samples", "eval-report",
    "visualize-curves", "import", "train-seeds", "train-continued", "attack-continued",
)  # fmt: skip
_NAMES = ("train --limit 60 --epochs 1 --seed {n} --name same", "attack v --limit 4 --steps 1 --seed {n} --name same")

_OTHERS = ("store prune -y", "store remove {made} -y", "store verify", "store list", "the same", "store remove v t -y")
"""What is done while a maker stands still."""

_REPLACING = "train --limit 60 --epochs 2 --name t --force"
"""What is done while `store remove` of the same thing stands still."""

_MAKERS = ("train-named", "train-force", "attack", "attack-force", "eval-attack", "visualize-curves", "import")


def whole(bench: Bench) -> list[str]:
    """What is wrong with the store after all have ended: damage, and what was never finished."""
    verified = bench.runner.run(["store", "verify"], bench.home)
    problems = [f"store verify afterwards: {verified.code} {verified.err.strip()[:100]}"] if verified.code else []
    return problems + [f"{name.split('/')[0]}/.tmp- is left" for name in bench.now() if temporary(name)]


def _one_key(bench: Bench, case: str) -> list[str]:
    """All make the same: each ends well, and the store is as after one."""
    name, _ = case.split()
    scenario = SCENARIOS[name]
    _, _, undisturbed = bench.undisturbed(scenario)
    bench.fresh(scenario.store)
    ran = _all([bench.start(scenario) for _ in range(_MANY)])
    return _said(ran) + mended(undisturbed, bench.now())


def _one_name(bench: Bench, case: str) -> list[str]:
    """All make another thing and call it the same: all are there, and the name is one's."""
    number, seed = map(int, case.split())
    bench.fresh("full")
    before = set(bench.now())
    lines = [_NAMES[number].format(n=100 + seed % 1000 + n).split() for n in range(_MANY)]
    ran = _all([bench.runner.start([*line, "-q"], bench.home) for line in lines])
    problems = _said(ran) + whole(bench)
    made = {each.out.strip() for each in ran}
    now = bench.now()
    there = [one for one in made if one and any(f"/{one}." in name for name in set(now) - before)]
    if len(there) != _MANY:
        problems.append(f"{len(there)} of {_MANY} things are there")
    named = now.get("refs/same", b"").decode().strip().rpartition("/")[2]
    return problems + ([] if named in made else [f"same names {named!r}"])


def _churn(bench: Bench, case: str) -> list[str]:
    """Makers, and beside them readers and removers: whoever makes ends well, whatever else goes on."""
    (seed,) = case.split()
    chance = random.Random(int(seed))
    bench.fresh("stopped")
    # What the makers need is not among what is removed.
    lines = [f"train --limit 60 --epochs 1 --seed {chance.randrange(50)}" for _ in range(4)]
    lines += [f"attack v --limit 4 --steps 1 --seed {chance.randrange(50)} --batch-size 2" for _ in range(4)]
    makers = [*lines, "eval v --limit 5", "visualize curves t"]
    others = ["store prune -y", "store list", "store verify", "store remove r -y", "store list --json"]
    others += ["store prune -y", "store remove r w -y", "store remove c -y"]
    everything = [(line, True) for line in makers] + [(line, False) for line in others]
    chance.shuffle(everything)
    children = []
    for line, _ in everything:
        children.append(bench.runner.start(line.split(), bench.home))
        children[-1].ends_within(chance.uniform(0, 0.02))
    problems = []
    for (line, maker), ran in zip(everything, _all(children), strict=True):
        wrong = ended(ran)
        if maker and ran.code != 0 and not wrong:
            wrong = [f"exit {ran.code}: {ran.err.strip()[-150:]}"]
        problems += [f"{problem}, in {' '.join(line.split()[:2])}" for problem in wrong]
    return problems + whole(bench)


def _all(children: list[Child]) -> list[Ran]:
    return [child.wait(_LIMIT_S) for child in children]


def _said(ran: list[Ran]) -> list[str]:
    """What is wrong with how they ended."""
    problems = [problem for each in ran for problem in ended(each)]
    failed = [each for each in ran if each.code != 0]
    if failed and not problems:
        problems.append(f"{len(failed)} of {len(ran)} exit {failed[0].code}: {failed[0].err.strip()[-150:]}")
    return problems


def _between(bench: Bench, case: str) -> list[str]:
    """A maker stands still at one of its file operations while another command runs; then it goes on."""
    name, when, nth, which = case.split()
    scenario, other = SCENARIOS[name], (*_OTHERS, _REPLACING)[int(which)]
    _, before, undisturbed = bench.undisturbed(scenario)
    bench.fresh(scenario.store)
    action = BEFORE if when == "before" else AFTER
    maker = bench.start(scenario, Fault(action, int(nth), signal.SIGSTOP, CHANGES))
    if not maker.stops_within(20):
        return [f"never came to operation {nth}: {problem}" for problem in ended(maker.wait())]
    second = _second(bench, scenario, other, before, undisturbed)
    second.ends_within(0.5)  # or waits for the lock that the maker holds
    maker.send(signal.SIGCONT)
    ran, too = maker.wait(_LIMIT_S), second.wait(_LIMIT_S)
    problems = [f"maker: {problem}" for problem in ended(ran)]
    problems += [f"{problem}, in {other}" for problem in ended(too)]
    removing = other.startswith("store remove") or other == _REPLACING
    if ran.code != 0 and not removing:
        problems.append(f"maker: exit {ran.code}: {ran.err.strip()[-150:]}")
    if too.code != 0 and other in ("the same", "store list", "store prune -y"):
        problems.append(f"exit {too.code}: {too.err.strip()[-150:]}, in {other}")
    if other == _REPLACING:
        problems += _half_removed(before, bench.now(), "t")
    if too.code == 4:
        problems.append(f"intact files are called damaged: {too.out.strip()[-150:]}, in {other}")
    return problems + (whole(bench) if removing else whole(bench) or mended(undisturbed, bench.now()))


def _half_removed(before: Files, now: Files, alias: str) -> list[str]:
    """An artifact and its name are both there, or both are not: whoever came last."""
    ref = before[f"refs/{alias}"]
    parts = {name for name in before if leads(ref, {name: b""})}
    there, named = parts & now.keys(), now.get(f"refs/{alias}") == ref
    if (there == parts and named) or not (there or f"refs/{alias}" in now):
        return []
    return [f"half removed: {len(there)} of {len(parts)} files are there, {'with' if named else 'without'} a name"]


def _second(bench: Bench, scenario: Scenario, other: str, before: Files, made: Files) -> Child:
    """The other command, begun."""
    if other == "the same":
        return bench.start(scenario)
    if other == _REPLACING:
        return bench.runner.start(other.split(), bench.home)
    new = [name for name in made if made[name] != before.get(name) and name.split("/")[0] in _KINDS]
    target = new[0].rsplit("/", 1)[1].rsplit(".", 1)[0].removesuffix(".history")
    return bench.runner.start(other.format(made=target).split(), bench.home)


_KINDS = ("checkpoints", "samples", "evaluations", "figures")


def _interleavings(bench: Bench) -> list[str]:
    return [
        f"{name} {when} {nth + 1} {which}"
        for name in _MAKERS
        for nth in range(count(bench, SCENARIOS[name], CHANGES))
        for when in ("before", "after")
        for which in range(len(_OTHERS))
    ] + [
        f"store-remove {when} {nth + 1} {len(_OTHERS)}"
        for nth in range(count(bench, SCENARIOS["store-remove"], CHANGES))
        for when in ("before", "after")
    ]


def _churns(bench: Bench, chance: random.Random) -> Iterator[str]:
    while True:
        yield str(chance.randrange(10**9))


FAMILIES = (
    Family(
        "between", "a maker stopped at each change it makes while another command runs, then let go",
        listed(_interleavings), one_by_one(_between), few=4,
    ),
    Family(
        "one-key", f"{_MANY} processes that make the same", seeds(lambda bench: list(_ONE_KEY)), one_by_one(_one_key),
        few=1,
    ),
    Family(
        "one-name", f"{_MANY} processes that call different things the same",
        seeds(lambda bench: [str(number) for number in range(len(_NAMES))]), one_by_one(_one_name), few=1,
    ),
    Family("churn", "makers beside list, verify, prune and remove", _churns, one_by_one(_churn), few=1),
)  # fmt: skip
