"""`eval` with strong attacks, --audit, --report and seeds, as people call it."""

from __future__ import annotations

import dataclasses
import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Run, on_cpu

from advmix_cli import auditing as audit
from advmix_cli import config
from advmix_cli.auditing import checks
from advmix_cli.threats import Threat
from advmix_cli.workflows import references
from advmix_cli.workflows.evaluation import report
from advmix_cli.workflows.unfinished import Unfinished


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps, so that an audit takes seconds."""
    monkeypatch.setattr(
        checks, "STRONG", {"apgd-ce": {"steps": 10}, "apgd-t": {"steps": 10}, "square": {"queries": 10}}
    )
    monkeypatch.setattr(checks, "STEPS_GRID", (1, 5, 10, 20, 40, 80))


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
    assert sum(stage["backward_passes"] for stage in data["stages"]) == pytest.approx(data["backward_passes"])
    assert 0 < data["backward_passes"] < data["forward_passes"]
    (_, row) = advmix("eval", "--samples", data["samples"], "--json").data["rows"]
    assert row["accuracy"] == data["robust_accuracy"]
    assert advmix("visualize", "samples", data["samples"], "--count", "4", "--out", tmp_path / "s.png").code == 0


def test_an_audit_says_its_verdict_and_can_fail(trained: Path, advmix: Run, quick: None, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    line = ("eval", "a", "--audit", "--limit", "20", "--json")
    data = advmix(*line).data
    assert data["audit"]["verdict"] in config.VERDICTS
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
    attacked = [f"Images attacked against {model}" for model in ("a", "b")]
    captions = [*report._CAPTIONS.values(), *attacked, "Accuracy and loss over the epochs of training"]
    assert sorted(map(html.unescape, re.findall('<img alt="([^"]*)"', page))) == sorted(captions)
    assert not re.search(r"(src|href)=[\"'](?!data:|#part-)", page)
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


@on_cpu
@pytest.mark.parametrize("after", [1, 4, 7])
def test_a_stopped_evaluation_continues_with_other_batches_and_threads(
    trained: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    line = ["eval", "a", "b", "--attack", "apgd-ce", "--attack", "square", "--eps", "0.05", "--steps", "5",
            "--queries", "40", "--limit", "60", "--json"]  # fmt: skip
    real, writes = Unfinished.flush, [0]

    def stop(self: Unfinished) -> None:
        real(self)
        writes[0] += 1
        if writes[0] == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("advmix_cli.workflows.unfinished._EVERY_S", 0)
        patch.setattr(Unfinished, "flush", stop)
        assert advmix(*line, "--batch-size", "20", "--threads", "2").code == 130
    assert list((trained / "unfinished").iterdir())
    continued = advmix(*line, "--batch-size", "7", "--threads", "1")
    assert "continuing" in continued.err
    assert not list((trained / "unfinished").iterdir())
    fresh = advmix(*line, "--force").data
    assert continued.data["rows"] == fresh["rows"]


@on_cpu
def test_a_stopped_audit_attacks_nothing_twice(
    trained: Path, advmix: Run, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("eval", "a", "--audit", "--limit", "20", "--json")
    real, attacks = checks.attack_set, [0]

    def attack_set(*args: object, **given: object) -> object:
        attacks[0] += 1
        if attacks[0] == 6:
            raise KeyboardInterrupt
        return real(*args, **given)

    monkeypatch.setattr("advmix_cli.workflows.unfinished._EVERY_S", 0)
    monkeypatch.setattr(checks, "attack_set", attack_set)
    assert advmix(*line).code == 130
    continued = advmix(*line)
    assert "continuing" in continued.err
    stopped = attacks[0]
    fresh = advmix(*line, "--force")
    assert stopped - 1 == attacks[0] - stopped
    assert continued.data["audit"] == fresh.data["audit"]


def test_a_state_is_as_large_as_what_is_new(trained: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = Unfinished._write

    def noted(self: Unfinished, pieces: list[dict[str, object]]) -> None:
        real(self, pieces)
        sizes.append(self._files[-1].stat().st_size)

    monkeypatch.setattr("advmix_cli.workflows.unfinished._EVERY_S", 0)
    monkeypatch.setattr(Unfinished, "_write", noted)
    outcome = advmix("attack", "a", "--limit", "400", "--steps", "2", "--batch-size", "20", "--json")
    images = 4 * 32 * 32
    assert len(sizes) > 15
    assert max(sizes) < 20 * images + 20_000
    assert Path(outcome.data["path"]).stat().st_size > 400 * images


def test_the_same_several_times_and_names_of_any_kind(trained: Path, advmix: Run, tmp_path: Path, quick: None) -> None:
    out = tmp_path / "r.html"
    line = (
        "eval",
        "a",
        "a",
        "a",
        "--attack",
        "pgd",
        "--attack",
        "pgd",
        "--limit",
        "20",
        "--steps",
        "2",
        "--report",
        out,
    )
    data = advmix(*line, "--json").data
    assert [row["model"] for row in data["rows"]] == ["a"] * 12
    assert [row["on"] for row in data["rows"][:4]] == ["clean", "pgd-0.3-2-early", "pgd-0.3-2-early", "worst case"]
    assert "a (3)" in out.read_text()
    assert data["seeds"] == []
    strange = tmp_path / "x$\\frac{$y.safetensors"
    shutil.copy(advmix("store", "path", "a").out.strip(), strange)
    (tmp_path / "other").mkdir()
    shutil.copy(strange, tmp_path / "other")
    both = advmix("eval", strange, tmp_path / "other" / strange.name, "b", "--attack", "fgsm", "--audit", "--limit",
                  "20", "--report", out, "--json")  # fmt: skip
    assert both.code == 0, both.err
    transfers = [check["name"] for check in both.data["audit"][2]["checks"] if "transfer" in check["name"]]
    assert len(transfers) == 1, "two files of the same weights are one model"
    assert advmix("visualize", "matrix").code == 0


def test_rows_say_what_they_bound(trained: Path, advmix: Run, tmp_path: Path) -> None:
    rows = advmix("eval", "a", "--samples", "pa", "--attack", "fgsm", "--limit", "20", "--json").data["rows"]
    assert [(row["on"], row["bound"]) for row in rows] == [("clean", None), ("pa", "upper"), ("fgsm-0.3", "upper")]
    assert rows[2]["linf_max"] == pytest.approx(0.3, abs=1e-6)
    assert rows[2]["l2_max"] > 1
    several = advmix("eval", "a", "--attack", "fgsm", "--attack", "pgd", "--steps", "2", "--limit", "20", "--json")
    assert several.data["rows"][-1]["bound"] == "upper"


def test_the_ensembles_own_figure_stands_beside_what_follows_it(
    trained: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"apgd-ce": {"steps": 3}, "apgd-t": {"steps": 2, "targets": 2}, "fab-t": {"steps": 2, "targets": 2},
           "square": {"queries": 5}, "square-pgd": {"queries": 300, "restarts": 6}}  # fmt: skip
    parts = property(
        lambda self: (
            tuple(Threat.of(name, self.norm, self.eps, **more) for name, more in few.items())
            if self.attack == "autoattack"
            else (self,)
        )
    )
    monkeypatch.setattr(Threat, "parts", parts)
    line = ("eval", "a", "--attack", "autoattack", "--eps", "0.1", "--limit", "60")
    data = advmix(*line, "--json").data
    assert [row["on"] for row in data["rows"]] == ["clean", "autoattack-0.1", "autoattack-0.1+square-pgd"]
    _, own, then = data["rows"]
    assert len(own["stages"]) == 4
    assert len(then["stages"]) == 5
    assert own["accuracy"] == own["stages"][-1]["robust_accuracy"] == then["stages"][3]["robust_accuracy"]
    assert then["accuracy"] == then["stages"][-1]["robust_accuracy"] < own["accuracy"]
    taken = round((own["accuracy"] - then["accuracy"]) * 60 / 100)
    assert f"square-pgd-0.1-300-x6 takes {taken} of the {round(own['accuracy'] * 0.6)} images" in advmix(*line).out
    attacked = advmix("attack", "a", "--attack", "autoattack", "--eps", "0.1", "--limit", "60", "--json").data
    assert attacked["robust_accuracy"] == own["accuracy"]
    assert attacked["stages"][-1]["robust_accuracy"] == then["accuracy"]


def test_seeds_are_summed_up_over_pipelines(trained: Path, advmix: Run) -> None:
    """A run that begins from a run: the seeds of both are its own, the weights between are not what it is known by."""
    for seed in ("0", "1"):
        first = ("train", "--limit", "200", "--epochs", "1", "--seed", seed, "--name", f"v{seed}", "-q")
        then = ("advtrain", "--init", f"v{seed}", "--limit", "200", "--epochs", "1", "--steps", "1", "--seed", seed)
        assert advmix(*first).code == 0
        assert advmix(*then, "--name", f"adv{seed}", "-q").code == 0
    data = advmix("eval", "adv0", "adv1", "v0", "v1", "--limit", "30", "--json").data
    assert [(each["models"], each["lineage_seeds"]) for each in data["seeds"]] == [
        (["adv0", "adv1"], [[0, 0], [1, 1]]), (["v0", "v1"], [[0], [1]])
    ]  # fmt: skip


def test_a_moved_alias_is_not_drawn_as_if_it_had_stayed(trained: Path, advmix: Run, tmp_path: Path) -> None:
    name = Path(advmix("store", "path", "a").out.strip()).stem
    evaluation = advmix("eval", "a", "b", "--limit", "20", "--json").data["evaluation"]
    assert f"a is {name}" in advmix("eval", "a", "b", "--limit", "20").out
    assert advmix("train", "--limit", "200", "--epochs", "1", "--name", "a", "-q").code == 0
    out = tmp_path / "m.svg"
    assert advmix("visualize", "matrix", evaluation, "--out", out).code == 0
    assert name in out.read_text()


def test_weights_that_were_replaced_meanwhile_are_not_used(
    trained: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = (Path(advmix("store", "path", alias).out.strip()) for alias in ("a", "b"))
    real = references.resolve_models

    def resolve(*given: object) -> object:
        found = real(*given)  # type: ignore[arg-type]
        shutil.copy(other, path)
        return found

    monkeypatch.setattr("advmix_cli.requests.attacking.resolve_models", resolve)
    outcome = advmix("eval", "a", "--limit", "20", "--json")
    assert (outcome.code, outcome.errors[0]["code"]) == (1, "replaced")
    assert not list((trained / "evaluations").glob("*"))


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
