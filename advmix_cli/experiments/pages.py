"""The page of an experiment: its tables, claims and pictures in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advmix_cli.experiments import writing
from advmix_cli.settings import canonical_json, plain
from advmix_cli.workflows import pages


def html(data: Mapping[str, Any], out: Path) -> str:
    """The page; pictures are read from `out`."""
    parts = [pages.table(table) for table in writing.tables_of(data)]
    for figure in data["figures"]:
        caption = f"{figure['id']}: {figure['title']}"
        parts.append(pages.picture(caption, "image/png", (out / figure["file"]).read_bytes()))
    summary = f"{data['summary']} Written by {data['command']}, scale {data['scale'] or 'of the file'}.".strip()
    return pages.page(data["title"], [pages.said(summary)], parts, "all figures, as data", canonical_json(plain(data)))
