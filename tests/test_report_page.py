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
from advmix_cli.workflows.evaluation import looking

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


def captions(page: str) -> list[str]:
    return re.findall(r'<figure><img alt="(.*?)"', page)


def test_a_page_shows_images_as_they_were_attacked_and_how_the_models_learned(written: Written) -> None:
    seen = captions(written("a", "b", *ATTACK)[1])
    assert [caption for caption in seen if "attacked" in caption] == [f"Images attacked against {m}" for m in "ab"]
    assert sum("epochs of training" in caption for caption in seen) == 1
    alone = captions(written("a", *PROOF, *EPS)[1])
    assert not [caption for caption in alone if "attacked" in caption], "nothing was attacked"
    assert sum("epochs of training" in caption for caption in alone) == 1


def test_of_many_models_the_title_is_their_number_and_no_images_are_shown(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_MODELS", 1)
    _, page = written("a", "a@last", "b", "b@last", *ATTACK)
    assert "<h1>How robust: 4 models</h1>" in page
    assert not [caption for caption in captions(page) if "attacked against" in caption]


def test_a_model_from_elsewhere_has_no_epochs_to_show(written: Written, advmix: Run, tmp_path: Path) -> None:
    exported = tmp_path / "a.pth"
    assert advmix("export", "a", "--to", "state-dict", "--out", exported).code == 0
    assert advmix("import", exported, "--dataset", "glyphs", "--name", "theirs").code == 0
    seen = captions(written("theirs", *ATTACK)[1])
    assert "Images attacked against theirs" in seen
    assert not [caption for caption in seen if "epochs of training" in caption]
