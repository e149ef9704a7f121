"""How cost grows: seconds and peak memory of commands on 10^2 to 10^5 images, and on 1 to 16 models.

    python benchmarks/growth.py --out docs          # growth.json, growth.png; a quarter of an hour of two cores

The images are noise of MNIST's size, so that nothing but their number differs; LeNet5, one epoch, PGD of 3 steps. Each
figure is that of a command as a whole, which is a process of its own: its start is in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_LINES = {
    "train": "train --dataset {data} --arch lenet5 --epochs 1 --batch-size 100 --seed {seeds} --name m",
    "attack": "attack {first} --steps 3 --name s",
    "eval": "eval {models} --attack fgsm",
    "certify": "eval {models} --certify --bounds ibp",
}
_FEW = 1000


def measured(line: str, home: Path) -> dict[str, float]:
    """Wall seconds and the largest resident memory, in MB, of one command."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "advmix_cli", *line.split(), "-q"],
        env={**os.environ, "ADVMIX_HOME": str(home)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: advmix {line}")
    return {"seconds": round(time.monotonic() - began, 2), "mb": round(usage.ru_maxrss / 1024)}


def point(images: int, models: int) -> dict[str, dict[str, float]]:
    """All commands on so many images, and of so many models."""
    with tempfile.TemporaryDirectory() as folder:
        draw = np.random.default_rng(0)
        arrays = {name: draw.integers(0, 256, (images, 28, 28), dtype=np.uint8) for name in ("x_train", "x_test")}
        arrays |= {name: np.arange(images) % 10 for name in ("y_train", "y_test")}
        path = Path(folder) / "noise.npz"
        np.savez(path, **arrays)
        names = ["m"] if models == 1 else [f"m-s{seed}" for seed in range(models)]
        filled = {
            "data": f"npz:{path}", "seeds": ",".join(map(str, range(models))), "models": " ".join(names),
            "first": names[0],
        }  # fmt: skip
        return {name: measured(line.format(**filled), Path(folder) / "home") for name, line in _LINES.items()}


def picture(rows: list[dict[str, object]], out: Path) -> None:
    """Seconds and memory against the number of images, and of models."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(8, 6), layout="constrained")
    for column, (varied, fixed) in enumerate((("images", "models"), ("models", "images"))):
        base = 1 if fixed == "models" else _FEW
        kept = sorted((row for row in rows if row[fixed] == base), key=lambda row: row[varied])  # type: ignore[arg-type]
        for line, (what, unit) in enumerate((("seconds", "s"), ("mb", "MB"))):
            panel = panels[line][column]
            for command, style in zip(_LINES, ("o-", "s--", "^-.", "d:"), strict=True):
                values = [row[command][what] for row in kept]  # type: ignore[index]
                panel.plot([row[varied] for row in kept], values, style, label=command)
            panel.set(xscale="log", xlabel=varied, ylabel=unit)
            panel.set_xticks(ticks := [row[varied] for row in kept], [f"{tick:,}" for tick in ticks])
            panel.set_xticks([], minor=True)
            if what == "seconds":
                panel.set_yscale("log")
                panel.yaxis.set_major_formatter("{x:g}")
                panel.yaxis.set_minor_formatter("{x:g}")
            else:
                panel.set_ylim(bottom=0)
            panel.grid(alpha=0.3)
    panels[0][0].legend()
    figure.suptitle(f"Seconds and peak memory of a command; right: {_FEW:,} images")
    figure.savefig(out, dpi=150)


def main() -> None:
    """Measure, print a table, write the JSON and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000, 10_000, 100_000])
    parser.add_argument("--models", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--out", type=Path, default=Path("."))
    asked = parser.parse_args()
    sizes = [(images, 1) for images in asked.images] + [(_FEW, models) for models in asked.models if models > 1]
    rows: list[dict[str, object]] = []
    print("| images | models | " + " | ".join(f"{name} s | MB" for name in _LINES) + " |")
    print("|---:|---:|" + "---:|---:|" * len(_LINES))
    for images, models in sizes:
        row = point(images, models)
        cells = " | ".join(f"{each['seconds']:.1f} | {each['mb']:,.0f}" for each in row.values())
        print(f"| {images:,} | {models} | {cells} |", flush=True)
        rows.append({"images": images, "models": models, **row})
    (asked.out / "growth.json").write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    picture(rows, asked.out / "growth.png")


if __name__ == "__main__":
    main()
