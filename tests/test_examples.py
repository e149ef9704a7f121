"""The examples run, small, as a reader would run them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import shell

from advmix_cli.experiments import plan, reading

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(name: str, tmp_path: Path, **environment: str) -> str:
    program = "bash" if name.endswith(".sh") else "python"
    done = shell(f"cd {tmp_path} && {program} {EXAMPLES / name}", LIMIT="600", EPOCHS="1", **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_tested() -> None:
    source = Path(__file__).read_text()
    assert all(f'"{path.name}"' in source for path in EXAMPLES.iterdir() if path.is_file())


def test_study() -> None:
    text = (EXAMPLES / "study.toml").read_text()
    parts = plan.parts(reading.read(text, "study.toml"))
    assert [part.kind for part in parts] == ["advtrain", "eval", "eval", "eval"] * 2
    assert len([line for line in text.splitlines() if line and not line.startswith("#")]) <= 30


@pytest.mark.parametrize("name", ["certified.toml", "certified_convsmall.toml"])
def test_certified(tmp_path: Path, name: str) -> None:
    """Smaller than it is written, and on glyphs."""
    text = (EXAMPLES / name).read_text()
    small = re.sub(
        r"epochs = \d+", "epochs = 1\nlimit = 300", text.replace("mnist", "glyphs").replace("autoattack", "fgsm")
    )
    (tmp_path / name).write_text(small.replace("limit = 1000", "limit = 20"))
    done = shell(f"cd {tmp_path} && advmix run {name} --threads 1 --out out")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^(?:first|certified) {2,}[\d.]+ \[", done.stdout, re.MULTILINE)) == 2, done.stdout


def test_quickstart(tmp_path: Path) -> None:
    out = run("quickstart.sh", tmp_path)
    assert re.search(r"^vanilla +vanilla-pgd +600 +\d", out, re.MULTILINE)
    assert (tmp_path / "quickstart.png").stat().st_size > 10_000


@pytest.mark.parametrize(("name", "rows"), [("defense.toml", 4), ("soft_labels.toml", 4)])
def test_experiments(tmp_path: Path, name: str, rows: int) -> None:
    """Smaller than they are written."""
    text = (EXAMPLES / name).read_text()
    small = re.sub(r"epochs = \d", "epochs = 1", text.replace("limit = 4000", "limit = 300, batch_size = 50"))
    (tmp_path / name).write_text(small.replace("limit = 500", "limit = 20"))
    done = shell(f"cd {tmp_path} && advmix run {name} --out out")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^[\w. ]+ {2,}[\d.]+ \[[\d., ]+\] +[\d.]+ \[", done.stdout, re.MULTILINE)) == rows
    assert (tmp_path / "out" / "learning.png").exists() == (name == "defense.toml")


def test_pipeline(tmp_path: Path) -> None:
    assert re.fullmatch(r"clean [\d.]+ %\nglyphs-test-pgd-0.3-10-\w{8} [\d.]+ %\n", run("pipeline.sh", tmp_path))


def test_another_library(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("foolbox")
    assert re.fullmatch(r"clean [\d.]+ %, under foolbox's PGD [\d.]+ %\n", run("other_library.py", tmp_path))


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    out = run("own_model.py", tmp_path)
    assert "worst case: " in out
    assert re.search(r"^audit: \w", out, re.MULTILINE)


def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a reader would run it; `notebook.ipynb` is committed without its results."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name, value in {"LIMIT": "600", "EPOCHS": "1", "ADVMIX_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=240).execute()
    shown = "".join(
        output.get("data", {}).get("text/plain", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert "PGD linf eps 0.1" in shown
    assert "audit: " in shown


def test_the_page_on_ones_own_is_what_its_lines_do(tmp_path: Path) -> None:
    """Its ten lines, in their order, on few small pictures."""
    pytest.importorskip("timm")
    from test_own import COLOURS, pictures

    pictures(tmp_path / "photos", train=12, test=4, colours=COLOURS | {"yellow": (200, 200, 40)})
    block = re.search(r"```sh\n(.*?)```", (ROOT / "docs/own.md").read_text(), re.DOTALL)
    assert block is not None
    lines = [line.partition("#")[0].strip() for line in block[1].splitlines()]
    assert len(lines) == 10
    small = {"train": "--epochs 1", "advtrain": "--epochs 1 --steps 1", "attack": "--steps 2", "eval": "--limit 4"}
    for line in lines:
        more = small.get(line.split()[1], "")
        if "--attack" in line or "--audit" in line:
            more += " --eps 0.9"  # which breaks every image at once
        done = shell(f"cd {tmp_path} && {line} {more}", ADVMIX_HOME=str(tmp_path / "home"))
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert (tmp_path / "attacked.png").stat().st_size > 5_000
    assert "</html>" in (tmp_path / "defended.html").read_text()


def test_the_readme_names_what_there_is() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in re.findall(r"\]\(((?:docs|examples)/[^)#]+)\)", readme):
        assert (ROOT / path).exists(), path
    options = (Path(__file__).parent / "options.txt").read_text()
    for line in re.findall(r"^ *advmix (.+)$", readme, re.MULTILINE):
        for part in ("advmix " + line).split("|"):
            words = part.split("#")[0].split()
            for word in words:
                if word.startswith("--"):
                    assert word in re.split(r"[\s/]", options), (word, line)
