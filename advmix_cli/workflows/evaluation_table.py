"""The tables of an evaluation, from its record alone: rows with intervals and threats, and the matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advmix_cli.config import Threat
from advmix_cli.results import Result, Table
from advmix_cli.statistics import wilson
from advmix_cli.workflows.evaluation_statistics import (
    audit_table,
    audited,
    calibrated,
    calibration_table,
    compared,
    comparison_table,
    over_seeds,
    seeds_table,
    shown_models,
)


def result(record: dict[str, Any], path: Path, cached: bool) -> Result:
    """What eval gives back: a row for each model and column, and a matrix where there are several of both."""
    rows: list[dict[str, Any]] = []
    shown: list[str] = []
    for model, name, cells in zip(record["models"], shown_models(record), record["grid"], strict=True):
        shown += [name] * len(cells)
        for on, threat, cell in zip(record["columns"], record["threats"], cells, strict=True):
            low, high = wilson(cell["correct"], cell["n"])
            row = {
                "model": model,
                "on": on,
                "n": cell["n"],
                "accuracy": 100 * cell["correct"] / cell["n"],
                "accuracy_ci95": [low, high],
                "loss": cell["loss"],
            }
            row |= {"threat": threat} if threat else {}
            row |= {"linf_max": cell["linf_max"]} if "linf_max" in cell else {}
            if "stages" in cell:
                row["stages"] = [
                    {"attack": part, "robust_accuracy": 100 * standing / cell["n"]} for part, standing in cell["stages"]
                ]
            rows.append(row)
    tables = [
        Table(
            ("model", "on", "n", "accuracy %", "95 % interval", "loss"),
            [
                (
                    name,
                    row["on"],
                    str(row["n"]),
                    f"{row['accuracy']:.2f}",
                    "[{:.2f}, {:.2f}]".format(*row["accuracy_ci95"]),
                    f"{row['loss']:.4f}",
                )
                for name, row in zip(shown, rows, strict=True)
            ],
            right=("n", "accuracy %", "95 % interval", "loss"),
            note=_note(record),
        )
    ]
    if len(record["models"]) > 1 and len(record["columns"]) > 2:
        tables.append(matrix(record))
    comparisons, seeds, calibration = compared(record), over_seeds(record), calibrated(record)
    tables += [table for table in (comparison_table(comparisons), seeds_table(seeds)) if table.rows]
    tables.append(calibration_table(calibration))
    audits = audited(record)
    tables += [audit_table(each) for each in audits]
    return Result(
        data={
            "rows": rows,
            "comparisons": comparisons,
            "seeds": seeds,
            "calibration": calibration,
            **({"audit": audits[0] if len(audits) == 1 else audits} if audits else {}),
            "evaluation": record["name"],
            "path": str(path),
            "cached": cached,
            "dataset": record["dataset"],
        },
        refs=[record["name"]],
        blocks=list(tables),
        hint=f"as a picture: advmix visualize matrix {record['name']}"
        if len(record["columns"]) > 1
        else f"attack it: advmix attack {record['models'][0]}",
    )


def _note(record: dict[str, Any]) -> str:
    """The threats in full, under the table: a robust accuracy is never named without its threat."""
    lines = []
    for on, threat, source in zip(record["columns"], record["threats"], record["sources"], strict=True):
        if threat:
            against = "white-box" if source == "itself" else f"made against {source_label(record, source)}"
            lines.append(f"{on}: {Threat.from_dict(threat)}, {against}")
    for model, lineage in zip(shown_models(record), record["lineage"], strict=True):
        if "trained_against" in lineage:
            lines.append(f"{model}: trained against {Threat.from_dict(lineage['trained_against'])}")
    for model, cells in zip(shown_models(record), record["grid"], strict=True):
        for on, cell in zip(record["columns"], cells, strict=True):
            if "stages" in cell:
                after = ", ".join(f"{part} {100 * standing / cell['n']:.2f}" for part, standing in cell["stages"])
                lines.append(f"{model} after each part of {on}: {after}")
    if record["worst_of"]:
        tried = ", ".join(record["columns"][column] for column in record["worst_of"])
        lines.append(f"worst case: right clean and under each of {tried}")
    alone = [on for on, joint in zip(record["columns"], record["joint"], strict=True) if not joint]
    if len(alone) + 1 < len(record["columns"]):
        rule = "attacked rows count an image only if it is right clean and attacked"
        lines.append(f"{rule}{', but for ' + ', '.join(alone) if alone else ''}; such a figure is an upper bound")
    for on in alone:
        lines.append(f"{on}: right on the attacked images alone, the clean ones are not known")
    return "\n".join(lines)


def source_label(record: dict[str, Any], source: str) -> str:
    """What the evaluation calls the model of that name: its alias if it is among the models, else the name."""
    for label, lineage in zip(record["models"], record["lineage"], strict=True):
        if lineage["name"] == source:
            return str(label)
    return source


def matrix(record: dict[str, Any]) -> Table:
    """The accuracies of an evaluation, models down, columns across."""
    return Table(
        ("model", *record["columns"]),
        [
            (model, *(f"{100 * cell['correct'] / cell['n']:.2f}" for cell in cells))
            for model, cells in zip(shown_models(record), record["grid"], strict=True)
        ],
        title="accuracy %",
        right=tuple(record["columns"]),
    )
