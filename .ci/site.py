"""What the site has beside docs/: the README as its first page, every command, and the files that pages speak of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from typer.cli import get_docs_for_click
from typer.main import get_command

from advmix_cli.cli import app

ROOT = Path(__file__).parent.parent
_PAGES = {"index.md": "README.md", "CHANGELOG.md": "CHANGELOG.md"}
_MADE_BY = "\n\n*This page is written by the program whose commands it lists.*\n"


def commands() -> str:
    """Every command and its options, as `--help` has them."""
    import typer

    command = get_command(app)
    return get_docs_for_click(obj=command, ctx=typer.Context(command, info_name="advmix"), name="advmix") + _MADE_BY


def on_files(files: Files, config: Any) -> Files:
    """Take in what does not lie in docs/."""
    for name, source in _PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    files.append(File.generated(config, "commands.md", content=commands()))
    texts = [(ROOT / "README.md").read_text(), *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]
    for name in sorted({name for text in texts for name in re.findall(r"\]\((?:\.\./)?(examples/[^)#]+)\)", text)}):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Here README, docs and examples lie in one folder."""
    return markdown.replace("](docs/", "](").replace("](../examples/", "](examples/")
