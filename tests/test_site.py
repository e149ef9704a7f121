"""The documentation as a site: every page and link, and a page of all commands that the program itself writes."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import OPTIONS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material")
    out = tmp_path_factory.mktemp("site")
    config = ROOT / ".ci/mkdocs.yml"
    if not config.is_file():
        pytest.skip("the site is built from a checkout")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(config), "-d", str(out)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_every_page_of_the_documentation_is_there_and_in_its_contents(site: Path) -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages | {"index", "commands", "CHANGELOG", "404"} == {path.stem for path in site.glob("*.html")}
    contents = (site / "index.html").read_text()
    assert {page for page in pages if f'href="{page}.html"' not in contents} == set()
    assert (site / "examples/own_model.py").read_text() == (ROOT / "examples/own_model.py").read_text()


def test_every_command_and_option_is_on_its_page(site: Path) -> None:
    said = (site / "commands.html").read_text()
    parts = re.split(r"<h[123] [^>]*>\s*<code>([^<]+)</code>", said)
    by = {
        name: html.unescape(re.sub(r"<[^>]+>", "", text)) for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    lines = list(filter(None, OPTIONS.read_text().split("\n")))
    assert len(lines) > 40
    for line in lines:
        names = line.split()
        command = " ".join(name for name in names if name.islower() and not name.startswith("-"))
        options = [name.split("/")[0] for name in names if name.startswith("--")]
        assert [name for name in options if name not in by[command]] == [], command
    assert len(by) == len(lines)


def test_the_site_asks_nobody_else_for_anything(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text()
        assert not re.findall(r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//', text), page.name
        assert not re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect|icon)"[^>]*href="(?:https?:)?//', text), (
            page.name
        )
