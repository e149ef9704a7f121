"""`eval` with strong attacks, --audit, --report and seeds, as people call it."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Run

from advmix_cli import audit
from advmix_cli.workflows.unfinished import Unfinished


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps, so that an audit takes seconds."""
    monkeypatch.setattr(audit, "PUBLISHED", {k: v | {"steps": 10} for k, v in audit.PUBLISHED.items()})
    monkeypatch.setattr(audit, "STEPS_GRID", (1, 5, 10, 20, 40, 80))


def test_the_worst_case_is_taken_image_by_image(trained: Path, advmix: Run) -> None:
    attacks = ("apgd-ce", "square", "fgsm")
    line = ["eval", "a", "b", "--limit", "40", "--eps", "0.1", "--steps", "5", "--queries", "60", "--json"]
    data = advmix(*line, *(word for attack in attacks for word in ("--attack", attack))).data
    by = {(row["model"], row["on"]): row for row in data["rows"]}
    for model in ("a", "b"):
        each = [by[model, on]["accuracy"] for on in ("apgd-ce-0.1-5", "square-0.1-60", "fgsm-0.1")]
        assert by[model, "worst case"]["accuracy"] <= min(each)
    compared = {each["on"]: each for each in data["comparisons"]}
    for on in ("clean", "worst case"):
        difference = by["a", on]["accuracy"] - by["b", on]["accuracy"]
        assert compared[on]["difference"] == pytest.approx(difference)
    assert {each["model"] for each in data["calibration"]} == {"a", "b"}
    again = advmix(*line, *(word for attack in attacks for word in ("--attack", attack))).data
    assert again["cached"]
    assert again["rows"] == data["rows"]


def test_a_cache_of_the_ensemble_is_one_like_any_other(trained: Path, advmix: Run, tmp_path: Path) -> None:
    data = advmix("attack", "a", "--attack", "autoattack", "--eps", "0.3", "--limit", "10", "--json").data
    parts = ["apgd-ce", "apgd-t", "fab-t", "square", "square-pgd"]
    assert [stage["attack"].split("-0.3")[0] for stage in data["stages"]] == parts
    assert data["stages"][-1]["robust_accuracy"] == data["robust_accuracy"]
    (_, row) = advmix("eval", "--samples", data["samples"], "--json").data["rows"]
    assert row["accuracy"] == data["robust_accuracy"]
    assert advmix("visualize", "samples", data["samples"], "--count", "4", "--out", tmp_path / "s.png").code == 0


def test_an_audit_says_its_verdict_and_can_fail(trained: Path, advmix: Run, quick: None, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    line = ("eval", "a", "--audit", "--limit", "20", "--json")
    data = advmix(*line).data
    assert data["audit"]["verdict"] in audit.VERDICTS
    assert {"name", "verdict", "value", "advice"} <= set(data["audit"]["checks"][0])
    several = advmix("eval", "a", "b", "--audit", "--limit", "20", "--json").data["audit"]
    assert [each["model"] for each in several] == ["a", "b"]
    for kind in ("strength", "landscape", "reliability"):
        out = tmp_path / f"{kind}.svg"
        assert advmix("visualize", kind, data["evaluation"], "--out", out).code == 0
        assert out.read_text().startswith("<?xml")
    suspicious = dataclasses.replace(audit.Check("planted", "suspicious", 9, "look"))
    monkeypatch.setitem(audit.STAGES, "planted", lambda run: [suspicious])
    outcome = advmix(*line, "--fail-on", "suspicious", "--force")
    assert outcome.code == 1
    assert outcome.errors[0]["code"] == "masked-gradients"
    assert advmix(*line, "--fail-on", "masked").code == 0


def test_the_report_is_one_file_that_asks_nothing_of_anyone(trained: Path, advmix: Run, quick: None,
                                                            tmp_path: Path) -> None:  # fmt: skip
    out = tmp_path / "out.html"
    outcome = advmix("eval", "a", "b", "a@last", "--attack", "fgsm", "--audit", "--limit", "20", "--report", out,
                     "--json")  # fmt: skip
    assert outcome.data["report"] == str(out)
    page = out.read_text()
    assert page.count("<img ") == 4
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)
    assert "<script" not in page
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here: the page was not opened")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    done = subprocess.run(
        [chromium, *flags.split(), "--disable-component-update", "--disable-sync", "--enable-logging=stderr",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=390,900", f"--screenshot={tmp_path / 'shot.png'}",
         out.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (tmp_path / "shot.png").stat().st_size > 10_000
    assert "CONSOLE" not in done.stderr, done.stderr


def test_seeds_are_summed_up_and_named_by_a_pattern(trained: Path, advmix: Run) -> None:
    tiny = ("train", "--limit", "200", "--epochs", "1", "-q", "--mix", "mixup")
    for seed in (0, 1, 2):
        assert advmix(*tiny, "--seed", str(seed), "--name", f"m-s{seed}").code == 0
    data = advmix("eval", "m-s*", "a", "--limit", "50", "--json").data
    assert [row["model"] for row in data["rows"]] == ["m-s0", "m-s1", "m-s2", "a"]
    (clean,) = data["seeds"]
    values = [row["accuracy"] for row in data["rows"][:3]]
    assert clean["label"] == "m-s*"
    assert clean["seeds"] == [0, 1, 2]
    assert clean["mean"] == pytest.approx(sum(values) / 3)
    assert advmix("eval", "nothing-*").code == 3


def test_a_stopped_evaluation_continues(trained: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["eval", "a", "b", "--attack", "apgd-ce", "--attack", "square", "--eps", "0.05", "--steps", "5",
            "--queries", "40", "--limit", "60", "--batch-size", "20", "--json"]  # fmt: skip
    real, writes = Unfinished.write, [0]

    def stop(self: Unfinished, state: dict[str, object]) -> None:
        real(self, state)
        writes[0] += 1
        if writes[0] == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("advmix_cli.workflows.unfinished._EVERY_S", 0)
        patch.setattr(Unfinished, "write", stop)
        assert advmix(*line).code == 130
    assert list((trained / "unfinished").iterdir())
    continued = advmix(*line)
    assert "continuing" in continued.err
    assert not [path for path in (trained / "unfinished").iterdir() if path.suffix == ".pt"]
    fresh = advmix(*line, "--force").data
    assert continued.data["rows"] == fresh["rows"]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("eval a --fail-on masked", 2, "--audit"),
        ("eval a --audit --fail-on maybe", 2, "unknown verdict"),
        ("eval a --report out.txt", 2, ".html"),
        ("eval a --report nowhere/out.html", 3, "no folder"),
        ("eval a --attack apgd", 2, "apgd-ce"),
        ("eval a --attack autoattack --steps 5", 2, "--steps does not apply"),
        ("eval a --attack square --steps 5", 2, "--steps does not apply"),
        ("eval a --attack pgd --loss hinge", 2, "unknown loss"),
        ("attack a --attack apgd-ce --alpha 0.1", 2, "--alpha does not apply"),
        ("attack a --targets -1", 2, "--targets"),
        ("attack a --targets 10 --limit 5", 2, "9 wrong classes"),
        ("attack a --attack square --queries 0", 2, "at least 1"),
        ("visualize landscape", 3, ""),
    ],
)
def test_bad_inputs(trained: Path, advmix: Run, line: str, code: int, said: str) -> None:
    outcome = advmix(*line.split())
    assert outcome.code == code, outcome.err
    assert said in outcome.err
    assert "Traceback" not in outcome.err
