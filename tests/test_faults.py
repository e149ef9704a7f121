"""A few of each family of faults, always the same. The whole campaign: python tests/faults/campaign.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CAMPAIGN = Path(__file__).with_name("faults") / "campaign.py"
FAMILIES = (
    "kills", "interrupts", "refusals", "kills-any", "interrupts-any", "damage", "records", "bytes", "seals", "hostile",
    "foreign", "between", "one-key", "one-name", "churn", "disk", "files", "world", "beginning", "chains",
)  # fmt: skip


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the campaign found. It forks, so it has a process of its own."""
    out = tmp_path_factory.mktemp("faults") / "outcome.json"
    line = [sys.executable, str(CAMPAIGN), "--short", "--workers", "2", "--minutes", "4", "--out", str(out)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode in (0, 1), done.stderr  # else the campaign itself broke down
    return json.loads(out.read_text())


def test_every_family_is_tried(outcome: dict[str, Any]) -> None:
    assert set(outcome) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_faults_do_no_harm(outcome: dict[str, Any], family: str) -> None:
    found = outcome[family]
    if found["skip"]:
        pytest.skip(found["skip"])
    if not found["tried"]:
        pytest.skip("a case takes half a minute: only in the whole campaign")
    assert found["failed"] == []
