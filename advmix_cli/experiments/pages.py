"""The page of an experiment: what came out, its tables, claims and pictures in one HTML file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advmix_cli.experiments import claims, writing
from advmix_cli.formats import as_csv
from advmix_cli.results import Result, counted, duration
from advmix_cli.settings import canonical_json, plain
from advmix_cli.workflows import pages


def html(data: Mapping[str, Any], out: Path) -> str:
    """The page; pictures are read from `out`."""
    tables = writing.tables_of(data)
    parts = [pages.table(table) for table in tables]
    for figure in data["figures"]:
        caption = f"{figure['id']}: {figure['title']}"
        parts.append(pages.picture(caption, "image/png", (out / figure["file"]).read_bytes()))
    if data["not_run"]:
        parts.append(pages.Part("Not run", pages.listed(data["not_run"])))
    if data["made"]:
        parts.append(pages.table(writing.made_of(data), "What it was made from"))
    whole = canonical_json(plain(data))
    text = as_csv(Result({}, [], [*tables], records=writing.records_of(data)))
    return pages.page(
        data["title"],
        [*map(pages.said, filter(None, [data["summary"]])), pages.cards([*_claims(data), _made(data)])],
        parts,
        "all figures, as data",
        whole,
        [("results.csv", "text/csv", text), ("results.json", "application/json", whole)],
    )


def _claims(data: Mapping[str, Any]) -> list[pages.Card]:
    """How many claims came out how."""
    verdicts = Counter(each["verdict"] for each in data["claims"])
    if not verdicts:
        return []
    held = verdicts.pop(claims.VERDICTS[0], 0)
    return [("claims", f"{held} of {len(data['claims'])} hold", [(verdict, str(n)) for verdict, n in verdicts.items()])]


def _made(data: Mapping[str, Any]) -> pages.Card:
    """At which scale, on what, for how long, and by which command."""
    made = data["made"]
    values = [("command", data["command"]), ("evaluations", str(len(made)))]
    if made:
        dates = sorted(each["date"][:10] for each in made)
        values += [
            ("on", ", ".join(sorted({each["device"] for each in made}))),
            ("dates", " to ".join(dict.fromkeys((dates[0], dates[-1])))),
            ("evaluated for", duration(sum(each["seconds"] for each in made))),
        ]
    values += [("not run", counted(len(data["not_run"]), "part"))] if data["not_run"] else []
    return "how it was made", f"scale {data['scale']}" if data["scale"] else "as the file says", values
