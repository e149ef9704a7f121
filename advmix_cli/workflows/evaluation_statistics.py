"""What an evaluation's record says beyond its accuracies: paired differences, seeds, calibration, audits."""

from __future__ import annotations

import base64
import itertools
from typing import Any

from advmix_cli.results import Table
from advmix_cli.statistics import calibration_error, mcnemar, mean_and_deviation

_NOISE = 0.05


def shown_models(record: dict[str, Any]) -> list[str]:
    """The models as tables and pictures call them: one trained against the as-run attack says so."""
    shown = []
    for label, lineage in zip(record["models"], record["lineage"], strict=True):
        as_run = lineage.get("trained_against", {}).get("variant") == "as-run"
        shown.append(f"{label} (as-run)" if as_run and "as-run" not in label else label)
    return shown


def _right(cell: dict[str, Any]) -> int:
    """Which images are right, one a bit."""
    return int.from_bytes(base64.b64decode(cell["right"]), "big")


def compared(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Each two models on each column: the difference in points and whether the same images could give it by chance."""
    found = []
    for (a, of_a), (b, of_b) in itertools.combinations(zip(shown_models(record), record["grid"], strict=True), 2):
        for on, cell_a, cell_b in zip(record["columns"], of_a, of_b, strict=True):
            right_a, right_b = _right(cell_a), _right(cell_b)
            only_a, only_b = (right_a & ~right_b).bit_count(), (right_b & ~right_a).bit_count()
            p = mcnemar(only_a, only_b)
            found.append(
                {
                    "a": a,
                    "b": b,
                    "on": on,
                    "n": cell_a["n"],
                    "difference": 100 * (only_a - only_b) / cell_a["n"],
                    "only_a": only_a,
                    "only_b": only_b,
                    "p": p,
                    "noise": p >= _NOISE,
                }
            )
    return found


def comparison_table(comparisons: list[dict[str, Any]]) -> Table:
    """The differences for people, a pair a row."""
    columns = list(dict.fromkeys(each["on"] for each in comparisons))
    rows = [
        (f"{a} - {b}", *(_difference(each) for each in comparisons if (each["a"], each["b"]) == (a, b)))
        for a, b in dict.fromkeys((each["a"], each["b"]) for each in comparisons)
    ]
    return Table(
        ("difference in points", *columns),
        rows,
        right=tuple(columns),
        note=f"p of McNemar's exact test on the same images, for each pair alone; noise: p >= {_NOISE}",
    )


def _difference(each: dict[str, Any]) -> str:
    p = f"p {each['p']:.3f}" if each["p"] >= 0.001 else "p < 0.001"
    return f"{each['difference']:+.2f} ({'noise, ' if each['noise'] else ''}{p})"


def over_seeds(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Mean and standard deviation of each column over models that differ in nothing but their seed."""
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(record["runs"]):
        if run is not None:
            groups.setdefault(run[0], []).append(i)
    found = []
    for members in groups.values():
        if len(members) < 2:
            continue
        names = [shown_models(record)[i] for i in members]
        same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
        common = "".join(letters[0] for letters in same)
        for column, on in enumerate(record["columns"]):
            cells = [record["grid"][i][column] for i in members]
            mean, deviation = mean_and_deviation([100 * cell["correct"] / cell["n"] for cell in cells])
            found.append(
                {
                    "models": names,
                    "label": f"{common}*" if common else ", ".join(names),
                    "seeds": [record["runs"][i][1] for i in members],
                    "on": on,
                    "mean": mean,
                    "deviation": deviation,
                }
            )
    return found


def seeds_table(seeds: list[dict[str, Any]]) -> Table:
    """The same for people."""
    return Table(
        ("over seeds", "on", "seeds", "mean accuracy %", "deviation"),
        [
            (each["label"], each["on"], str(len(each["seeds"])), f"{each['mean']:.2f}", f"{each['deviation']:.2f}")
            for each in seeds
        ],
        right=("seeds", "mean accuracy %", "deviation"),
    )


def calibrated(record: dict[str, Any]) -> list[dict[str, Any]]:
    """How far confidence and accuracy on clean images lie apart, for each model."""
    found = []
    for model, bins in zip(shown_models(record), record["reliability"], strict=True):
        n = sum(count for count, _, _ in bins)
        found.append(
            {
                "model": model,
                "ece": calibration_error(bins),
                "confidence": 100 * sum(count * confidence for count, confidence, _ in bins) / n,
                "accuracy": 100 * sum(count * right for count, _, right in bins) / n,
                "bins": bins,
            }
        )
    return found


def calibration_table(calibration: list[dict[str, Any]]) -> Table:
    """The same for people."""
    return Table(
        ("calibration", "on", "confidence %", "accuracy %", "ECE %"),
        [
            (each["model"], "clean", f"{each['confidence']:.2f}", f"{each['accuracy']:.2f}", f"{each['ece']:.2f}")
            for each in calibration
        ],
        right=("confidence %", "accuracy %", "ECE %"),
        note="ECE: expected calibration error, 15 bins of confidence",
    )


def audited(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The audits of an evaluation, each with its model; empty where none was asked for."""
    return [
        {"model": model, **{part: audit[part] for part in ("verdict", "checks", "n", "by_eps", "by_steps")}}
        for model, audit in zip(shown_models(record), record["audits"] or [], strict=False)
    ]


def audit_table(audit: dict[str, Any]) -> Table:
    """The checks of one model for people, and what they come to."""
    grave = [check["name"] for check in audit["checks"] if check["verdict"] in ("suspicious", "masked")]
    led = f", because of: {'; '.join(grave)}" if grave else ""
    return Table(
        ("check", "verdict", "value", "advice"),
        [(check["name"], check["verdict"], f"{check['value']:.4g}", check["advice"]) for check in audit["checks"]],
        title=f"audit of {audit['model']}: {audit['verdict']}",
        right=("value",),
        note=f"overall {audit['verdict']}{led}; {audit['n']} images, values in percent or points",
    )
