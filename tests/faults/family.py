"""What a part of the campaign is: cases, each a line of text that says how to have it again, and how they are tried."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator

from scenarios import Bench
from shim import missing

Tried = Iterator[tuple[str, list[str]]]
"""Cases with what is wrong in each; nothing where it held."""
Cases = Callable[[Bench, random.Random], Iterator[str]]
Attempt = Callable[[Bench, list[str]], Tried]


@dataclasses.dataclass(frozen=True)
class Family:
    """Cases of one sort."""

    name: str
    title: str
    cases: Cases
    """In the order in which they are tried; it may never end."""
    attempt: Attempt
    few: int
    """How many of them the short form tries."""
    batch: int = 1
    """How many are tried at a time."""
    skip: Callable[[], str] = missing
    """Why they cannot be tried here; nothing where they can."""


def one_by_one(check: Callable[[Bench, str], list[str]]) -> Attempt:
    """Cases that know nothing of each other."""

    def attempt(bench: Bench, cases: list[str]) -> Tried:
        for case in cases:
            yield case, check(bench, case)

    return attempt


def listed(names: Callable[[Bench], list[str]]) -> Cases:
    """Each of these once, in any order."""

    def cases(bench: Bench, chance: random.Random) -> Iterator[str]:
        found = names(bench)
        chance.shuffle(found)
        yield from found

    return cases


def seeds(prefixes: Callable[[Bench], list[str]]) -> Cases:
    """Any of these, with a number for its random choices, without end."""

    def cases(bench: Bench, chance: random.Random) -> Iterator[str]:
        found = prefixes(bench)
        while True:
            chance.shuffle(found)
            for prefix in found:
                yield f"{prefix} {chance.randrange(10**9)}"

    return cases
