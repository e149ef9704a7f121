"""What work costs and what is left of it, as a bar is told."""

from __future__ import annotations

import dataclasses
import io
import math
import types
from typing import Any

import pytest
from conftest import on_cpu
from rich.console import Console
from test_attacks import batch, lenet
from torch import nn

from advmix_cli import attacks, output
from advmix_cli.passes import Passes, Work
from advmix_cli.threats import ATTACKS, Part, Threat

__all__ = ["lenet"]

_SHORT = {
    "autoattack": (
        Part("apgd-ce", {"steps": 10}),
        Part("apgd-t", {"steps": 10, "targets": 3}),
        Part("fab-t", {"steps": 10, "targets": 3}),
        Part("square", {"queries": 120}),
        Part("square-pgd", {"queries": 40, "steps": 4, "restarts": 3}),
    ),
    "fast": (
        Part("pma", {"steps": 10}),
        Part("apgd-t", {"steps": 10, "targets": 3}),
        Part("square-pgd", {"queries": 120, "steps": 4}),
        Part("square-pgd", {"queries": 40, "steps": 4, "restarts": 2}, near=0.1, masked=math.inf),
        Part("pma", {"steps": 10, "restarts": 2}, near=0.1),
    ),
}


def told_of(model: nn.Module, threat: Threat, **more: Any) -> tuple[list[tuple[float, float]], attacks.AttackedSet]:
    x, y = batch(64)
    told: list[tuple[float, float]] = []
    found = attacks.attack_set(
        model, x, y, threat, seed=0, batch_size=8, on_work=lambda done, left: told.append((done, left)), **more
    )
    return told, found


@on_cpu
@pytest.mark.parametrize("eps", [0.06, 0.08])
@pytest.mark.parametrize("attack", _SHORT)
def test_what_is_left_of_an_ensemble_is_foreseen(
    lenet: nn.Sequential, attack: str, eps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTACKS, attack, dataclasses.replace(ATTACKS[attack], parts=_SHORT[attack]))
    told, found = told_of(lenet, Threat.of(attack, "linf", eps))
    whole = sum(after.passes.cost for after in found.after.values())
    assert 0 < int(found.robust.sum()) < int(found.clean.sum())
    done = 0.0
    for now, left in told:
        done += now
        if 0.25 * whole <= done < 0.9 * whole:
            assert 1 / 1.5 < left / (whole - done) < 1.5, (done / whole, left, whole - done)
    assert done == whole
    assert told[-1][1] == 0


@on_cpu
def test_where_all_steps_are_taken_what_is_left_is_known(lenet: nn.Sequential) -> None:
    told, found = told_of(lenet, Threat(eps=0.05, steps=5))
    (after,) = found.after.values()
    each = 5 * 3 + 1  # the verdict is one more
    assert attacks.foreseen(Threat(eps=0.05, steps=5)) == each - 1
    assert after.passes.cost == 64 * each
    assert [left for _, left in told] == [64 * (each - 1), *((64 - 8 * done) * each for done in range(1, 9))]


@on_cpu
def test_a_part_of_the_samples_tells_of_its_own(lenet: nn.Sequential) -> None:
    told, _ = told_of(lenet, Threat(eps=0.05, steps=5), only=range(16, 32))
    assert told[0] == (0, 16 * 15)
    assert sum(done for done, _ in told) == 16 * 16


def test_a_gradient_costs_two_more() -> None:
    assert Passes(7, 2).cost == 11


def test_several_jobs_are_told_as_one() -> None:
    told: list[tuple[float, float, bool]] = []
    jobs = {(model, job): cost for model in "ab" for job, cost in {"clean": 10.0, "pgd": 100.0}.items()}
    work = Work(lambda done, left, before: told.append((done, left, before)), jobs)
    work("a", "clean", 4)
    work("a", "clean", 6)
    work("a", "pgd", 30, 20)
    work("a", "pgd", 20, 0)
    work("b", "clean", 10)
    work("b", "pgd", 0, 50)
    work("b", "pgd", 50, 0)
    assert told == [
        (4, 216, False), (6, 210, False), (30, 130, True), (20, 60, False), (10, 50, False), (0, 50, True),
        (50, 0, False),
    ], "the second model's PGD is as the first's, and what a job begins by telling was done before"  # fmt: skip


def test_units_without_a_name_are_shown_as_a_share(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "time", types.SimpleNamespace(monotonic=lambda: now))
    now = 0.0
    with output.Output("eval").progress("evaluating") as progress:
        progress(100, left=900, before=True)
        now = 20.0
        progress(100, left=300)
        progress.about("7 still robust")
        now = 40.0
        progress(100, left=100)
        progress(900, left=100, before=True)  # what the next job had done when it was stopped
        now = 60.0
        progress(100, left=100)
    assert capsys.readouterr().err.splitlines() == [
        "evaluating: 40%, 60 s left",
        "evaluating: 75%, 7 still robust, 20 s left",
        "evaluating: 93%, 7 still robust, 20 s left",
    ]


def test_a_bar_says_what_is_left_though_the_total_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "time", types.SimpleNamespace(monotonic=lambda: now))
    out, written, now = output.Output("eval"), io.StringIO(), 0.0
    out._err = Console(file=written, force_terminal=True, width=80, color_system=None)
    with out.progress("evaluating") as progress:
        progress(900, left=100, before=True)
        for left in (80, 50):
            now += 10.0
            progress(10, left=left)
            progress._bar.refresh()  # type: ignore[union-attr]
    shown = [line.split()[-3:] for line in written.getvalue().splitlines() if "left" in line]
    for seconds in ("80", "50"):
        assert [seconds, "s", "left"] in shown, shown


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_bar_shows_the_share_and_fits(columns: int) -> None:
    written = io.StringIO()
    out = output.Output("eval")
    out._err = Console(file=written, force_terminal=True, width=columns, color_system=None)
    with out.progress("evaluating") as progress:
        progress(100, left=300)
        progress.about("7 still robust")
        progress._bar.refresh()  # type: ignore[union-attr]
        progress(100, left=100)
        progress._bar.refresh()  # type: ignore[union-attr]
    shown = written.getvalue()
    assert "25 %" in shown
    assert "67 %" in shown
