"""Tables for elsewhere, read back; and which models an evaluation compares."""

from __future__ import annotations

import csv
import io
import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Run

from advmix_cli.formats import FORMATS, markdown_rows
from advmix_cli.results import Result, Table
from advmix_cli.statistics import holm

HARD = "a_b & 50 % of {#1} | $x^2$ ~ [y] \\ z"
TABLE = Table(
    ("name", "n %"), [(HARD, "1"), ("[first]", "2")], title="all & sundry", right=("n %",), note="p < 0.05\nof 7"
)
RESULT = Result(
    {}, [], [TABLE], records=[{"name": HARD, "n": 1, "rate_ci95": [0.1, 0.9], "of": {"eps": 0.3}}, {"n": 2}]
)


def test_csv_is_read_back_with_its_numbers() -> None:
    first, second = csv.DictReader(io.StringIO(FORMATS["csv"](RESULT)))
    assert first == {"name": HARD, "n": "1", "rate_ci95_low": "0.1", "rate_ci95_high": "0.9", "of.eps": "0.3"}
    assert (second["name"], second["n"]) == ("", "2")
    shown = list(csv.reader(io.StringIO(FORMATS["csv"](Result({}, [], [TABLE])))))
    assert shown == [["name", "n %"], [HARD, "1"], ["[first]", "2"]]


def test_markdown_keeps_its_cells_apart() -> None:
    lines = markdown_rows(TABLE)
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in lines] == [3] * 4
    assert lines[1] == "| --- | ---: |"
    assert "**all & sundry**" in FORMATS["markdown"](RESULT)


def test_latex_has_no_letter_that_means_something() -> None:
    lines = FORMATS["latex"](RESULT).splitlines()
    assert lines[:3] == ["% all & sundry", "% p < 0.05", "% of 7"]
    assert lines[3] == r"\begin{tabular}{lr}"
    assert lines[-1] == r"\end{tabular}"
    rows = [line for line in lines if line.endswith(r" \\")]
    assert len(rows) == 3
    for row in rows:
        assert len(re.findall(r"(?<!\\)&", row)) == 1
        assert not re.search(r"(?<!\\)[%$#_]", row)
        assert not row.startswith("["), "behind a line's end that would be a length"
    assert r"a\_b \& 50 \% of \{\#1\} \textbar{} \$x\textasciicircum{}2\$" in rows[1]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex here")
def test_latex_compiles(trained: Path, advmix: Run, tmp_path: Path) -> None:
    told = advmix("eval", "a", "b", "--limit", "20", "--attack", "fgsm", "--format", "latex").out
    body = "\n".join((r"\documentclass{article}\begin{document}", FORMATS["latex"](RESULT), told, r"\end{document}"))
    (tmp_path / "tables.tex").write_text(body)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "tables.pdf").stat().st_size > 1000


def test_an_evaluation_in_other_forms(trained: Path, advmix: Run) -> None:
    line = ("eval", "a", "b", "--limit", "20", "--attack", "fgsm")
    rows = advmix(*line, "--json").data["rows"]
    outcome = advmix(*line, "--format", "CSV")
    read = list(csv.DictReader(io.StringIO(outcome.out)))
    assert [(row["model"], row["on"], float(row["accuracy"])) for row in read] == [
        (row["model"], row["on"], row["accuracy"]) for row in rows
    ]
    assert {row["threat.eps"] for row in read if row["on"].startswith("fgsm")} == {str(rows[1]["threat"]["eps"])}
    for form, tables in (("markdown", "| --- |"), ("latex", r"\begin{tabular}")):
        assert advmix(*line, "--format", form).out.count(tables) == 3
    listed = csv.DictReader(io.StringIO(advmix("store", "list", "--format", "csv").out))
    assert {row["kind"] for row in listed} == {"checkpoint", "sample cache", "evaluation"}
    for more in (("--json",), ("-q",)):
        assert advmix(*line, "--format", "csv", *more).code == 2
    assert "unknown format 'xml'" in advmix(*line, "--format", "xml").err


def test_holm_is_what_it_says() -> None:
    assert holm([]) == []
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_models_are_compared_where_that_is_asked(trained: Path, advmix: Run) -> None:
    line = ("eval", "a", "b", "a@last", "--limit", "20", "--json")

    def pairs(*more: str) -> list[tuple[str, str]]:
        return [(each["a"], each["b"]) for each in advmix(*line, *more).data["comparisons"]]

    models = list(dict.fromkeys(row["model"] for row in advmix(*line).data["rows"]))
    assert len(models) == 3
    assert pairs() == []
    assert pairs("--baseline", "b") == [(models[0], "b"), (models[2], "b")]
    assert pairs("--pairwise") == list(itertools.combinations(models, 2))
    two = advmix("eval", "a", "--baseline", "b", "--limit", "20", "--json").data
    assert [(each["a"], each["b"]) for each in two["comparisons"]] == [("a", "b")]
    assert [row["model"] for row in two["rows"]] == ["b", "a"]
    for wrong in (("--baseline", "b", "--pairwise"), ("--baseline", "nobody")):
        assert advmix(*line, *wrong).code in (2, 3)
    assert advmix("eval", "a", "--baseline", "a", "--limit", "20").code == 2


def test_an_evaluation_has_a_name(trained: Path, advmix: Run) -> None:
    made = advmix("eval", "a", "--limit", "20", "--name", "mine", "--json").data["evaluation"]
    assert advmix("store", "path", "mine", "-q").out.strip().endswith(f"{made}.json")
    assert advmix("eval", "a", "--limit", "20", "--name", "no/name").code == 2
