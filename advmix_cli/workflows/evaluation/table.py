"""The tables of an evaluation, and the same for scripts: rows with intervals and threats, and the matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advmix_cli.judging import Shown
from advmix_cli.results import Result, Table, accuracy, changes, cost, costs, stages
from advmix_cli.workflows.evaluation import statistics
from advmix_cli.workflows.evaluation.record import Cell, Column, Evaluation


def result(evaluation: Evaluation, path: Path, cached: bool, asked: Shown) -> Result:
    """What eval gives back: a row for each model and column, and a matrix where there are several of both."""
    called = asked.alias or evaluation.name
    brackets = statistics.brackets(evaluation)
    tables = [_rows(evaluation, brackets)]
    if len(evaluation.rows) > 1 and len(evaluation.columns) > 2:
        tables.append(_matrix(evaluation))
    comparisons, seeds = statistics.compared(evaluation, asked.pairs), statistics.over_seeds(evaluation)
    calibration, audits = statistics.calibrated(evaluation), statistics.audited(evaluation)
    tables += [
        table for table in (statistics.comparison_table(comparisons), statistics.seeds_table(seeds)) if table.rows
    ]
    tables.append(statistics.calibration_table(calibration))
    tables += [statistics.audit_table(each) for each in audits]
    rows = [
        _plain(row.label, column, cell)
        for row, cells in zip(evaluation.rows, evaluation.cells, strict=True)
        for column, cell in zip(evaluation.columns, cells, strict=True)
    ]
    return Result(
        data={
            "rows": rows,
            **({"brackets": brackets} if evaluation.settings.certified else {}),
            "comparisons": comparisons,
            "seeds": seeds,
            "calibration": calibration,
            **({"audit": audits[0] if len(audits) == 1 else audits} if audits else {}),
            "evaluation": evaluation.name,
            "path": str(path),
            "cached": cached,
            "dataset": evaluation.settings.dataset,
            "split": evaluation.settings.split,
            "device": evaluation.made["gpu"] or evaluation.made["device"],
            "seconds": evaluation.made["seconds"],
        },
        refs=[evaluation.name],
        blocks=list(tables),
        records=[{name: value for name, value in row.items() if name != "stages"} for row in rows],
        hint=f"as a picture: advmix visualize matrix {called}"
        if len(evaluation.columns) > 1
        else f"attack it: advmix attack {evaluation.rows[0].lineage.get('path', evaluation.rows[0].label)}",
    )


def _plain(model: str, column: Column, cell: Cell) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": model,
        "on": column.label,
        "bound": column.bound,
        "n": cell.n,
        "accuracy": cell.accuracy,
        "accuracy_ci95": list(cell.interval),
        "loss": cell.loss,
        "loss_infinite": cell.loss is None,
    }
    row |= {"threat": column.threat.to_dict()} if column.threat else {}
    row |= {"certificate": column.proved.to_dict()} if column.proved else {}
    row |= {"note": cell.note} if cell.note else {}
    row |= cell.change or {}
    row |= costs(cell.passes, cell.n)
    row |= {"proved": cell.spared} if cell.spared else {}
    row |= {"undecided": cell.undecided} if cell.undecided is not None else {}
    if cell.after:
        row["stages"] = stages(cell.after, cell.passes, cell.n)
    return row


def _rows(evaluation: Evaluation, brackets: list[dict[str, Any]]) -> Table:
    return Table(
        ("model", "on", "n", "accuracy %", "95 % interval", "loss"),
        [
            (
                model,
                on,
                str(cell.n),
                f"{cell.accuracy:.2f}",
                "[{:.2f}, {:.2f}]".format(*cell.interval),
                "infinite" if cell.loss is None else f"{cell.loss:.4f}",
            )
            for model, cells in zip(evaluation.models, evaluation.cells, strict=True)
            for on, cell in zip(evaluation.met, cells, strict=True)
        ],
        right=("n", "accuracy %", "95 % interval", "loss"),
        note="\n".join([*map(statistics.bracket_line, brackets), *_notes(evaluation)]),
    )


def _notes(evaluation: Evaluation) -> list[str]:
    """What a table of accuracies needs beside it: threats in full, lineages, and what the figures bound."""
    lines = []
    columns = list(zip(evaluation.met, evaluation.columns, strict=True))
    models = list(zip(evaluation.models, evaluation.rows, strict=True))
    if evaluation.settings.held is not None:
        lines.append("held out of training, and the epoch was chosen on them: to choose a recipe by, not to publish")
    if evaluation.settings.inference is not None:
        lines.append(f"verdicts by {evaluation.settings.inference}: drawn at random, and no claim of robustness")
    for on, column in columns:
        if column.threat is not None:
            against = f"made against {evaluation.source(column.source)}" if column.source else "white-box"
            then = ", and then what follows it" if column.further else ""
            lines.append(f"{on}: {column.threat}{then}, {against}")
            lines += [f"{on}: {column.threat.declared.caution}"] if column.threat.declared.caution else []
    for model, row in models:
        lines += [f"{model} is {row.lineage['name']}"] if model != row.lineage["name"] else []
        how = statistics.trained(row)
        lines += [f"{model}: {how}"] if how else []
    for (model, _), cells in zip(models, evaluation.cells, strict=True):
        for (on, column), cell in zip(columns, cells, strict=True):
            if column.further:
                lines.append(_taken_beyond(model, column, cell))
            elif cell.after:
                after = ", ".join(f"{part} {accuracy(standing, cell.n)}" for part, standing in cell.after)
                lines.append(f"{model} after each part of {on}: {after}")
            if cell.change and not column.further:
                took = f"; {cost(cell.passes, cell.n)}" if cell.passes else ""
                lines.append(f"{model}, largest change by {on}: {changes(cell.change)}{took}")
            if cell.spared:
                lines.append(f"{model}, {on}: intervals prove {cell.spared} images, which were not attacked")
            if cell.undecided:
                lines.append(f"{model}, {on}: {cell.undecided} images are neither proved nor known to be wrong there")
            if cell.note:
                lines.append(f"{model}, {on}: {cell.note}; nothing is proved")
    for on, column in columns:
        if column.proved:
            lines.append(f"{on}: right everywhere within, {column.proved}; such a figure is a lower bound")
        if column.of:
            lines.append(f"worst case: right clean and under each of {', '.join(columns[i][0] for i in column.of)}")
    alone = [on for on, column in columns if not column.joint]
    if any(column.bound == "upper" for _, column in columns):
        rule = "attacked rows count an image only if it is right clean and attacked"
        lines.append(f"{rule}{', but for ' + ', '.join(alone) if alone else ''}; such a figure is an upper bound")
    return lines + [f"{on}: right on the attacked images alone, the clean ones are not known" for on in alone]


def _taken_beyond(model: str, column: Column, cell: Cell) -> str:
    """What the parts that follow a standard ensemble took beyond its figure."""
    assert column.threat is not None
    before, (part, left) = cell.after[column.threat.standard - 1][1], cell.after[-1]
    return f"{model}: {part} takes {before - left} of the {before} images that {column.threat.label} leaves"


def _matrix(evaluation: Evaluation) -> Table:
    """The accuracies, models down, columns across."""
    return Table(
        ("model", *evaluation.met),
        [
            (model, *(f"{cell.accuracy:.2f}" for cell in cells))
            for model, cells in zip(evaluation.models, evaluation.cells, strict=True)
        ],
        title=f"accuracy %, n = {statistics.sizes(evaluation)}",
        right=tuple(evaluation.met),
    )
