"""An evaluation as one HTML file that asks nothing of anyone: tables, pictures, and what they were made from."""

from __future__ import annotations

from advmix_cli.results import Result, Table, accuracy
from advmix_cli.settings import canonical_json
from advmix_cli.workflows import pages
from advmix_cli.workflows.evaluation.pictures import DRAWN, available
from advmix_cli.workflows.evaluation.record import Evaluation

_CAPTIONS = {
    "matrix": "Accuracy of each model (down) on what it met (across)",
    "compare": "Accuracies with their 95 % intervals",
    "classes": "Accuracy of each class",
    "reliability": "Accuracy against confidence on clean images",
    "strength": "Accuracy against the attack's eps and steps",
    "landscape": "Loss around one image of each model",
}


def html(evaluation: Evaluation, result: Result) -> str:
    """The page: every table of the result, every picture of the evaluation, and its record."""
    from advmix_cli import figures

    body = [pages.table(block) for block in result.blocks if isinstance(block, Table)]
    for kind in available(evaluation):
        body.append(pages.picture(_CAPTIONS[kind], "image/svg+xml", figures.svg(DRAWN[kind](evaluation))))
    record = evaluation.to_record()
    part_of_it = {part: record[part] for part in ("name", "settings", "columns", "fingerprint", "made")}
    verdicts = "; ".join(
        f"{model} {audit['verdict']}, at most {accuracy(audit['robust']['correct'], audit['robust']['n'])} robust"
        for model, audit in evaluation.audited
    )
    settings, made = evaluation.settings, evaluation.made
    return pages.page(
        f"Evaluation {evaluation.name}",
        (f"{', '.join(evaluation.models)} on {settings.dataset} {settings.split}, made with "
                              f"advmix {made['advmix']} and torch {made['torch']}."
                              + (f" Audit: {verdicts}." if verdicts else "")),
        body,
        "the settings, threats and lineage",
        canonical_json(part_of_it | {"models": [row.lineage for row in evaluation.rows]}),
    )  # fmt: skip
