"""The page of `eval --report`: a reader finds how robust, against what, how sure and made how."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome, Run

from advmix_cli.config import VERDICTS

EPS = ("--eps", "0.02")
Written = Callable[..., tuple[Outcome, str]]
ATTACK, PROOF = ("--attack", "fgsm", *EPS), ("--certify", "--bounds", "ibp")


def cards(page: str) -> dict[str, str]:
    """The large figure of each model."""
    return dict(re.findall(r'<article class="card"><h2>(.*?)</h2><p class="figure">(.*?)</p>', page))


@pytest.fixture
def written(trained: Path, advmix: Run, tmp_path: Path) -> Written:
    """Evaluate, and give what is said with the page."""

    def run(*arguments: str) -> tuple[Outcome, str]:
        out = tmp_path / "out.html"
        outcome = advmix("eval", *arguments, "--limit", "20", "--report", out, "--json")
        assert outcome.code == 0, outcome.err
        return outcome, out.read_text()

    return run


@pytest.mark.parametrize(("asked", "figure"), [
    ((), "not attacked"),
    (ATTACK, "at most {high:.1f} % robust"),
    ((*PROOF, *EPS), "at least {low:.1f} % robust"),
    ((*ATTACK, *PROOF), "{low:.1f} to {high:.1f} % robust"),
])  # fmt: skip
def test_the_headline_is_what_is_known_of_each_model(written: Written, asked: tuple[str, ...], figure: str) -> None:
    outcome, page = written("a", "b", *asked)
    of = {(row["model"], row["bound"]): row["accuracy"] for row in outcome.data["rows"] if row["on"] != "clean"}
    expected = {model: figure.format(low=of.get((model, "lower"), -1), high=of.get((model, "upper"), -1))
                for model in ("a", "b")}  # fmt: skip
    assert cards(page) == expected
    assert page.index("20 images of ") < page.index('class="card"') < page.index("<table>")


def test_the_least_that_any_attack_leaves_is_the_headline(written: Written) -> None:
    outcome, page = written("a", *ATTACK, "--attack", "pgd", "--attack", "square", "--steps", "3", "--queries", "9")
    (together,) = (row["accuracy"] for row in outcome.data["rows"] if row["on"] == "worst case")
    assert cards(page) == {"a": f"at most {together:.1f} % robust"}


def test_what_an_audit_found_is_seen_and_what_passed_is_folded(written: Written) -> None:
    outcome, page = written("a", *ATTACK, "--audit")
    checks = outcome.data["audit"]["checks"]
    fine = sum(each["verdict"] == "ok" for each in checks)
    folded = page.split(f"<summary>{fine} checks in order</summary>")[1].split("</details>")[0]
    assert folded.count("<tr>") == 1 + fine
    assert not any(f">{verdict}<" in folded for verdict in VERDICTS[1:])
    robust = outcome.data["audit"]["robust"]["accuracy"]
    assert cards(page)["a"] == f"at most {robust:.1f} % robust"


def test_the_data_are_saved_from_the_page(written: Written, advmix: Run) -> None:
    outcome, page = written("a", "b", *ATTACK)
    links = re.findall(r'<a download="([^"]+)" href="data:[a-z/]+;base64,([^"]+)">', page)
    saved = {name: base64.b64decode(content).decode() for name, content in links}
    name = outcome.data["evaluation"]
    rows = list(csv.DictReader(io.StringIO(saved[f"{name}.csv"])))
    told = outcome.data["rows"]
    assert [float(row["accuracy"]) for row in rows] == [row["accuracy"] for row in told]
    assert json.loads(saved[f"{name}.json"])["rows"] == told
