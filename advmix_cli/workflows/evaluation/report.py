"""An evaluation as one HTML file that asks nothing of anyone: what came out, and everything it rests on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from advmix_cli.formats import as_csv
from advmix_cli.judging import BOUNDS
from advmix_cli.results import Result, Table, accuracy, duration
from advmix_cli.settings import canonical_json, number, plain
from advmix_cli.workflows import pages
from advmix_cli.workflows.evaluation import statistics
from advmix_cli.workflows.evaluation.pictures import DRAWN, available
from advmix_cli.workflows.evaluation.record import Column, Evaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CAPTIONS = {
    "matrix": "Accuracy of each model (down) on what it met (across)",
    "compare": "Accuracies with their 95 % intervals",
    "classes": "Accuracy of each class",
    "reliability": "Accuracy against confidence on clean images",
    "strength": "Accuracy against the attack's eps and steps",
    "landscape": "Loss around one image of each model",
}

_HEADINGS = {
    "model": "Accuracy on everything that was met",
    "difference in points": "Differences between models",
    "over seeds": "The same training with several seeds",
    "calibration": "Calibration: confidence against accuracy",
}
"""Headings of tables without a title, by their first column."""

_BY = {
    "ibp": "interval bounds", "crown": "linear bounds", "best": "interval and linear bounds",
    "exact": "bounds and mixed-integer programs",
}  # fmt: skip
assert set(_BY) == set(BOUNDS)

_NAMED = 3
"""Of more models their number is the title."""

_RULE = pages.note(
    "robust: right on the image and wherever the attacker may go; an attack says at most so many, a proof at least. "
    "In brackets: the 95 % interval for other images of the kind."
)


def html(evaluation: Evaluation, result: Result, further: Iterable[tuple[str, Figure]] = ()) -> str:
    """The page: what came out, every table of the result, every picture of the evaluation, and its record.

    `further` are other pictures and what they are called.
    """
    from advmix_cli import figures

    parts = [_part(block) for block in result.blocks if isinstance(block, Table)]
    for kind in available(evaluation):
        parts.append(pages.picture(_CAPTIONS[kind], "image/svg+xml", figures.svg(DRAWN[kind](evaluation))))
    parts += [pages.picture(caption, "image/svg+xml", figures.svg(figure)) for caption, figure in further]
    parts.append(pages.Part("How it was made", pages.facts(list(_made(evaluation)))))
    record, names = evaluation.to_record(), evaluation.models
    part_of_it = {part: record[part] for part in ("name", "settings", "columns", "fingerprint", "made")}
    return pages.page(
        f"How robust: {', '.join(names) if len(names) <= _NAMED else f'{len(names)} models'}",
        [
            pages.said(_done(evaluation)),
            pages.cards([_card(evaluation, row) for row in range(len(evaluation.rows))]),
            _RULE,
        ],
        parts,
        "the settings, threats and lineage",
        canonical_json(part_of_it | {"models": [row.lineage for row in evaluation.rows]}),
        [
            (f"{evaluation.name}.csv", "text/csv", as_csv(result)),
            (f"{evaluation.name}.json", "application/json", json.dumps(plain(result.data), indent=1)),
        ],
    )  # fmt: skip


def _done(evaluation: Evaluation) -> str:
    """What was done, in a sentence."""
    settings, columns = evaluation.settings, evaluation.columns
    n = max(cells[0].n for cells in evaluation.cells)
    ways = [f"attacked by {_attack(column)}" for column in columns if column.kind == "attack"]
    ways += [f"as attacked before ({column.shown})" for column in columns if column.kind == "samples"]
    ways += [f"proved by {_BY[settings.certified.bounds]}"] if settings.certified else []
    ways += ["audited for masked gradients"] if evaluation.audited else []
    return f"{n:,} images of {settings.dataset} ({settings.split}), clean{''.join(f', {way}' for way in ways)}."


def _attack(column: Column) -> str:
    threat = column.threat
    if threat is None:
        return column.shown
    many = f" of {threat.steps} steps" if threat.steps > 1 and not threat.declared.parts else ""
    return f"{threat.declared.title}{many} in {threat.norm} eps {number(threat.eps)}"


def _card(evaluation: Evaluation, row: int) -> pages.Card:
    """A model: between what its robust accuracy lies, against what, how sure that is, and what the audit says."""
    model, cells, audit = evaluation.models[row], evaluation.cells[row], evaluation.rows[row].audit
    met = list(zip(evaluation.columns, cells, strict=True))
    left = [(cell.correct, cell.n, "all attacks together" if column.kind == "worst" else _attack(column))
            for column, cell in met if column.bound == "upper" and column.kind != "clean"]  # fmt: skip
    if audit is not None:
        left.append((audit["robust"]["correct"], audit["robust"]["n"], f"the audit's {audit['robust']['attack']}"))
    least = sorted(left, key=lambda each: each[0] / each[1])[:1]
    proved = [(cell, column.proved) for column, cell in met if column.proved and not cell.note]
    values = [("clean", accuracy(cell.correct, cell.n)) for column, cell in met if column.kind == "clean"]
    values += [("attack", f"{accuracy(correct, n)} under {by}") for correct, n, by in least]
    values += [
        ("proof", f"{accuracy(cell.correct, cell.n)} in {ball.norm} eps {number(ball.eps)}") for cell, ball in proved
    ]
    values += [("images", f"{cells[0].n:,}")] + ([("audit", audit["verdict"])] if audit else [])
    low, high = [f"{cell.accuracy:.1f}" for cell, _ in proved], [f"{100 * each[0] / each[1]:.1f}" for each in least]
    if low and high:
        figure = f"{low[0]} to {high[0]} % robust"
    elif low or high:
        figure = f"at {'least' if low else 'most'} {(low or high)[0]} % robust"
    else:
        figure = "not attacked"
    return model, figure, values


def _part(block: Table) -> pages.Part:
    """A table; of an audit, what is in order is folded."""
    if block.columns[0] != "check":
        return pages.table(block, "" if block.title else _HEADINGS.get(block.columns[0], ""))
    fine = [row for row in block.rows if row[1] == "ok"]
    rest = dataclasses.replace(block, rows=[row for row in block.rows if row[1] != "ok"])
    folded = pages.fold(f"{len(fine)} checks in order", pages.rows(dataclasses.replace(block, rows=fine)))
    part = pages.table(rest)
    return pages.Part(part.title, part.markup + folded)


def _made(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """By what, when, on what, and of which weights."""
    made = evaluation.made
    yield "command", made["command"]
    yield "date", made["date"]
    yield "took", f"{duration(made['seconds'])} on {made['gpu'] or made['device']}, {made['threads']} threads"
    yield "made with", f"advmix {made['advmix']}, torch {made['torch']}, Python {made['python']}"
    yield "evaluation", evaluation.name
    yield "data", f"{evaluation.settings.dataset}, fingerprint {evaluation.fingerprint}"
    for model, row in zip(evaluation.models, evaluation.rows, strict=True):
        how = statistics.trained(row) or "no defence, or none that is known"
        yield model, f"{row.lineage.get('arch', 'a network of others')}, {how}"
        yield "", f"weights {row.lineage.get('digest', row.lineage['name'])}"
