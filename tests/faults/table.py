"""What was tried, what held and what did not, as a table and as JSON."""

from __future__ import annotations

import json
import re
from typing import Any


class Table:
    """The outcome of a campaign, a line of a worker at a time."""

    def __init__(self) -> None:
        self._families: dict[str, dict[str, Any]] = {}

    def add(self, said: dict[str, Any]) -> None:
        """A family that begins, or a case that was tried."""
        if "case" not in said:
            self._families.setdefault(
                said["family"], {"title": said["title"], "skip": said["skip"], "tried": 0, "seconds": 0.0, "failed": []}
            )
            return
        family = self._families[said["family"]]
        family["tried"] += 1
        family["seconds"] += said["seconds"]
        if said["problems"]:
            family["failed"].append({"case": f"{said['family']} {said['case']}", "problems": said["problems"]})

    def failures(self) -> list[dict[str, Any]]:
        """Cases that did not hold, with what was wrong."""
        return [failed for family in self._families.values() for failed in family["failed"]]

    def json(self) -> str:
        """All of it."""
        return json.dumps(self._families, indent=1) + "\n"

    def markdown(self) -> str:
        """The table, and under it each sort of failure with how often and how to have it again."""
        lines = ["| campaign | tried | held | a second | what failed |", "|---|---|---|---|---|"]
        below = []
        for name, family in self._families.items():
            tried, failed = family["tried"], family["failed"]
            sorts: dict[str, list[dict[str, Any]]] = {}
            for each in failed:
                sorts.setdefault(sort_of(each["problems"][0]), []).append(each)
            often = sorted(sorts.items(), key=lambda item: -len(item[1]))
            what = family["skip"] or "; ".join(f"{len(cases)} {sort}" for sort, cases in often[:3])
            rate = f"{tried / family['seconds']:.1f}" if family["seconds"] else ""
            held = tried - len(failed)
            lines.append(f"| {name}: {family['title']} | {tried:,} | {held:,} | {rate} | {_cell(what)} |")
            for sort, cases in often:
                first = min(cases, key=lambda case: len(case["case"]))
                below += [f"- {len(cases)} x {sort}", f"  `--case {first['case']!r}`: {first['problems'][:3]}"]
        return "\n".join([*lines, "", *below]).rstrip() + "\n"


def sort_of(problem: str) -> str:
    """What several failures have in common: the words without names and numbers."""
    text = re.sub(r", in [\w{} -]+$", "", re.sub(r"(.)\1{20,}", r"\1...", problem))
    text = re.sub(r"(?<![\w>])/\S+", "PATH", text)
    text = re.sub(r"\b[\w.-]*-[0-9a-f]{8}\b", "NAME", text)
    return re.sub(r"\d+", "N", text)[:150]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
