"""`eval --eps A,B`: accuracy against eps, an evaluation for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Run

from advmix_cli import figures

_EVAL = ("eval", "a", "b", "--attack", "pgd,fgsm", "--steps", "3", "--limit", "20")


def test_each_eps_is_an_evaluation_and_all_are_one_table(trained: Path, advmix: Run) -> None:
    found = advmix(*_EVAL, "--eps", "2/255,0.1", "--certify", "--bounds", "ibp", "--json").data
    assert len(found["evaluations"]) == 2
    for eps, name in zip(("2/255", "0.1"), found["evaluations"], strict=True):
        alone = advmix(*_EVAL, "--eps", eps, "--certify", "--bounds", "ibp", "--json").data
        assert (alone["evaluation"], alone["cached"]) == (name, True), "one alone is answered by the store"
        kept = [row for row in found["rows"] if row["evaluation"] == name and row["bound"]]
        assert [{k: v for k, v in row.items() if k not in ("eps", "evaluation")} for row in kept] == [
            row for row in alone["rows"] if row["bound"]
        ]
    assert [(row["model"], row["eps"]) for row in found["rows"] if row["on"] == "clean"] == [("a", 0.0), ("b", 0.0)]
    assert {bracket["eps"] for bracket in found["brackets"]} == {2 / 255, 0.1}

    table = advmix(*_EVAL, "--eps", "2/255,0.1", "--certify", "--bounds", "ibp", "--format", "markdown").out
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| ")]
    assert lines[0] == ["model", "eps", "under attack", "proved"]
    assert [line[:2] for line in lines[2:]] == [
        ["a", "0"],
        ["", "2/255"],
        ["", "0.1"],
        ["b", "0"],
        ["", "2/255"],
        ["", "0.1"],
    ]
    worst = [row["accuracy"] for row in found["rows"] if row["on"] == "worst case"]
    assert [float(line[2].split()[0]) for line in lines[2:] if line[1] != "0"] == pytest.approx(
        [*worst[::2], *worst[1::2]]
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--eps", "0.1,0.2", "--audit"), "--audit is for one eps, not 2"),
        (("--eps", "0.1,0.2", "--samples", "pa"), "--samples is for one eps"),
        (("--eps", "0.1,0.2", "--report", "r.html"), "--report is for one eps"),
        (("--eps", "0.1,0.2", "--name", "n"), "--name is for one eps"),
        (("--eps", "0.1,0.2", "--baseline", "b"), "--baseline is for one eps"),
        (("--eps", "0.1,2"), "more than the whole range"),
        (("--eps", "0.1,"), "not a finite number"),
        (("--eps", "0.1,x"), "not a finite number"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_done(
    trained: Path, advmix: Run, more: tuple[str, ...], said: str
) -> None:
    refused = advmix(*_EVAL, *more)
    assert refused.code == 2
    assert said in refused.err
    assert not list((trained / "evaluations").glob("*"))


def test_the_same_eps_twice_is_one(trained: Path, advmix: Run) -> None:
    assert "evaluation" in advmix(*_EVAL, "--eps", "0.1,0.1", "--json").data


def test_evaluations_at_several_eps_are_one_picture(
    trained: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Any, str]] = []
    eps = figures.eps
    monkeypatch.setattr(figures, "eps", lambda *given: drawn.append(given) or eps(*given))
    found = advmix(*_EVAL, "--eps", "0.1,2/255", "--certify", "--bounds", "ibp", "--json").data
    names = found["evaluations"]
    assert Path(advmix("visualize", "eps", *names, "--json").data["png"]).exists()
    ((models, title),) = drawn
    assert [label for label, *_ in models] == ["a", "b"]
    assert "under pgd, fgsm\ndotted" in title
    for label, left, proved in models:
        own = [row for row in found["rows"] if row["model"] == label]
        clean = next(row["accuracy"] for row in own if row["on"] == "clean")
        for points, bound, most in ((left, "upper", min), (proved, "lower", max)):
            known = [
                most(row["accuracy"] for row in own if (row["eps"], row["bound"]) == (eps, bound))
                for eps in (2 / 255, 0.1)
            ]
            assert [each[:2] for each in points] == list(zip((0.0, 2 / 255, 0.1), (clean, *known), strict=True))
    assert advmix("visualize", "eps", "-", "--json", stdin="\n".join(names)).data["cached"]


def test_what_is_of_no_eps_or_of_other_images_is_not_drawn(trained: Path, advmix: Run) -> None:
    few, clean = (advmix("eval", "a", "--limit", n, *attack, "-q").out.strip()
                  for n, attack in (("10", ("--attack", "fgsm")), ("20", ())))  # fmt: skip
    for names, said in (([clean], "nothing was attacked"), ([few, clean], "of other images")):
        refused = advmix("visualize", "eps", *names)
        assert refused.code == 2
        assert said in refused.err
    missing = advmix("visualize", "eps", "nobody")
    assert missing.code == 3, missing.err
