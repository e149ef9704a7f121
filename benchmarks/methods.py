"""The ways of training at about one budget of time, and what is true of each: attacked, proved, audited.

    python benchmarks/methods.py [ROW...] [--minutes 6] [--workers 2] [--images 500] [--held] --out docs/methods.json

Each row is one `advmix advtrain` of LeNet5 on MNIST on one core and one `advmix eval`; the epochs are as many as one
core does in about the minutes, what was really taken is in the table. `held` is what AutoAttack leaves of images
that the run held out, by which a recipe may be chosen. What the store has is not computed again, what was stopped goes
on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROWS = {
    "pgd": (1.3, ""),
    "pgd-ema": (1.3, "--ema 0.998"),
    "pgd-small-steps": (0.7, "--steps 20 --alpha 0.03"),
    "pgd-manifold": (1.3, "--mix manifold"),
    "pgd-awp": (1.1, "--awp 0.005"),
    "fgsm-rs": (4.5, "--method fgsm-rs"),
    "trades": (1.2, "--method trades"),
    "trades-6": (1.2, "--method trades --method-arg beta=6"),
    "iat": (1.2, "--method iat --mix mixup"),
    "avmixup": (1.3, "--method avmixup"),
    "m-tlat": (4.5, "--method m-tlat --mix mixup"),
    "ibp": (4.5, "--method ibp"),
    "mtl-ibp": (2.4, "--method mtl-ibp"),
    "sabr": (2.4, "--method sabr"),
}
"""For each: epochs that one core does in a minute, and its options."""

AGAINST = "--attack pgd --attack autoattack --certify --bounds ibp --audit"
COMMON = "--dataset mnist --arch lenet5 --init untrained --threads 1"


def told(command: str) -> dict[str, Any]:
    """What a command says, as JSON."""
    arguments = command.split()[1:]
    done = subprocess.run([sys.executable, "-m", "advmix_cli", *arguments, "--json"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout)["data"]  # type: ignore[no-any-return]


def held(name: str, images: int) -> float:
    """What AutoAttack leaves, in percent, of the first images that a run held out."""
    found = told(f"advmix eval {name} --split validation --attack autoattack --limit {images} --threads 1")
    return next(float(each["accuracy"]) for each in found["rows"] if each["on"].startswith("autoattack"))


def measured(row: str, seed: int, minutes: float, images: int, choose: bool) -> dict[str, Any]:
    """One row, of one seed."""
    rate, options = ROWS[row]
    name = f"m-{row}-{seed}"
    epochs = max(round(rate * minutes), 2)
    train = " ".join(f"advmix advtrain {COMMON} {options} --epochs {epochs} --seed {seed} --name {name}".split())
    evaluate = f"advmix eval {name} {AGAINST} --limit {images} --threads 1"
    clean = told(train)["metrics"]["test_accuracy"]
    found = told(evaluate)
    result = {
        "row": row, "seed": seed, "seconds": round(told(f"advmix store show {name}")["made"]["seconds"]), "n": images,
        "clean": clean, "figures": {each["on"]: each["accuracy"] for each in found["rows"]},
        "held": held(name, images) if choose else None, "verdict": found["audit"]["verdict"],
        "train": train, "eval": evaluate,
    }  # fmt: skip
    print(json.dumps(result), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help=", ".join(ROWS))
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--held", action="store_true", help="also attack held out images")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    jobs = [(row, int(seed)) for seed in chosen.seeds.split(",") for row in chosen.rows or ROWS]
    with ThreadPoolExecutor(chosen.workers) as pool:
        found = list(pool.map(lambda job: measured(*job, chosen.minutes, chosen.images, chosen.held), jobs))
    chosen.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
