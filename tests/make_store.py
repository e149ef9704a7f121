"""Make the small store that `test_upgrade.py` keeps: run once for a schema, never again.

python tests/make_store.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from advmix_cli.settings import SCHEMA

COMMANDS = (
    "train --limit 60 --epochs 1 --name v",
    "attack v --limit 3 --steps 2 --name cache",
    "eval v --samples cache --attack fgsm --limit 3",
)

here = Path(__file__).parent
with tempfile.TemporaryDirectory() as home:
    made = []
    for line in COMMANDS:
        command = [sys.executable, "-m", "advmix_cli", *line.split()]
        environment = os.environ | {"ADVMIX_HOME": home, "ADVMIX_DEVICE": "cpu"}
        done = subprocess.run([*command, "-q"], env=environment, check=True, capture_output=True, text=True)
        made.append({"command": line.split(), "gave": done.stdout.strip()})
    with tarfile.open(here / f"store-schema-{SCHEMA}.tar.xz", "w:xz") as archive:
        for part in ("schema", "checkpoints", "samples", "evaluations", "refs"):
            archive.add(Path(home) / part, part)
(here / f"store-schema-{SCHEMA}.json").write_text(json.dumps(made, indent=1) + "\n")
