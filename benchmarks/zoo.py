"""Put stored checkpoints into the zoo that ships with the package, and write down what is measured of each.

    python benchmarks/zoo.py NAME=REF:TITLE ...

Of each: the chosen weights, with the whole record, and in `zoo.json` the clean accuracy on all test images, what is
proved on all of them, and the bracket on the first 1,000 (`advmix eval zoo:NAME --attack autoattack --certify
--bounds exact --limit 1000`, with `--bounds ibp` where these prove nothing).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from advmix_cli import artifacts, zoo
from advmix_cli.store import Store

HERE = Path(zoo.__file__).parent
KNOWN = HERE / "zoo.json"
FIRST = 1000


def told(*arguments: str) -> dict[str, Any]:
    """What a command says, as JSON."""
    done = subprocess.run([sys.executable, "-m", "advmix_cli", *arguments, "--json"], capture_output=True, check=True)
    return json.loads(done.stdout)["data"]  # type: ignore[no-any-return]


def ship(name: str, ref: str) -> dict[str, Any]:
    """Copy the chosen weights, with the record; gives the record."""
    kind, stored = Store().resolve(ref, ("checkpoints",))
    path = Store().path(kind, stored)
    record = artifacts.checkpoint_record(path)
    best = artifacts.checkpoint_weights(path, "best")
    rest = {key: value for key, value in record.items() if key != "digests"}
    content = artifacts.checkpoint_bytes(best, best, rest)
    (HERE / f"{name}.safetensors").write_bytes(content)
    print(f"{name}: {len(content):,} bytes")
    return record


def measured(name: str, title: str, record: dict[str, Any]) -> dict[str, Any]:
    """What is known of it."""
    ref = zoo.PREFIX + name
    whole = told("eval", ref, "--certify", "--bounds", "ibp")
    bounds = "exact" if whole["brackets"][0]["lower"] > 1 else "ibp"  # where nothing is proved, others take hours
    attack = f"advmix eval {ref} --attack autoattack --certify --bounds {bounds} --limit {FIRST}"
    rows = told(*attack.split()[1:])
    (all_of, bracket) = whole["brackets"][0], rows["brackets"][0]
    return {
        "title": title, "arch": record["arch"], "dataset": record["dataset"], "norm": bracket["norm"],
        "eps": bracket["eps"], "clean": whole["rows"][0]["accuracy"], "certified": all_of["lower"],
        "lower": bracket["lower"], "upper": bracket["upper"], "n": bracket["n"],
        "trained_with": record["made"]["command"], "command": attack,
    }  # fmt: skip


if __name__ == "__main__":
    for given in sys.argv[1:]:
        name, _, rest = given.partition("=")
        ref, _, title = rest.partition(":")
        record = ship(name, ref)
        known = zoo.known() if KNOWN.exists() else {}
        KNOWN.write_text(json.dumps(known | {name: measured(name, title, record)}, indent=1, sort_keys=True) + "\n")
        print(json.dumps(zoo.known()[name], indent=1))
