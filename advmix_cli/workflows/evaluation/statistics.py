"""What an evaluation says beyond its accuracies: paired differences, seeds, calibration, audits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from advmix_cli.config import VERDICTS
from advmix_cli.judging import Certificate
from advmix_cli.results import Table, accuracy, beginning
from advmix_cli.settings import number
from advmix_cli.statistics import calibration_error, holm, mcnemar, mean_and_deviation
from advmix_cli.threats import Threat
from advmix_cli.ways import METHODS
from advmix_cli.workflows.evaluation.record import Column, Evaluation, Row

_NOISE = 0.05


def trained(row: Row) -> str:
    """What the model was trained against, or by which method; empty for standard training."""
    if "trained_against" not in row.lineage:
        return ""
    threat, method = Threat.from_dict(row.lineage["trained_against"]), METHODS[row.lineage.get("method", "pgd")]
    if method.name == "pgd":
        return f"trained against {threat}"
    return f"trained by {method.name} ({method.title}) for {threat.norm} eps {number(threat.eps)}"


def sizes(evaluation: Evaluation) -> str:
    """On how many images the figures are, for titles."""
    found = sorted({cell.n for cells in evaluation.cells for cell in cells})
    return f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"


def compared(evaluation: Evaluation, pairs: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """These models on each column: the difference in points and whether the same images could give it by chance.

    `p_holm` takes into account how many pairs are compared on a column.
    """
    found = list[dict[str, Any]]()
    for place, on in enumerate(evaluation.met):
        each = [_pair(evaluation, a, b, place) | {"on": on} for a, b in pairs]
        adjusted = holm([one["p"] for one in each])
        found += [one | {"p_holm": p, "noise": p >= _NOISE} for one, p in zip(each, adjusted, strict=True)]
    return found


def _pair(evaluation: Evaluation, a: int, b: int, place: int) -> dict[str, Any]:
    cell_a, cell_b = evaluation.cells[a][place], evaluation.cells[b][place]
    right_a, right_b = cell_a.bits, cell_b.bits
    only_a, only_b = (right_a & ~right_b).bit_count(), (right_b & ~right_a).bit_count()
    return {
        "a": evaluation.models[a],
        "b": evaluation.models[b],
        "n": cell_a.n,
        "difference": 100 * (only_a - only_b) / cell_a.n,
        "only_a": only_a,
        "only_b": only_b,
        "p": mcnemar(only_a, only_b),
    }


def brackets(evaluation: Evaluation) -> list[dict[str, Any]]:
    """For each model of which something was proved: between what the true robust accuracy of these images lies."""
    found, proved = [], evaluation.settings.certified
    for model, row, cells in zip(evaluation.models, evaluation.rows, evaluation.cells, strict=True):
        if proved is None or cells[-1].note:
            continue
        lower = cells[-1]
        met = [
            cell for column, cell in zip(evaluation.columns, cells, strict=True) if _meets(column, proved, evaluation)
        ]
        left = [cell.correct for cell in met if cell.n == lower.n]
        robust = row.audit["robust"] if row.audit is not None else {"n": 0}
        audited = proved.holds_against(evaluation.settings.audited) and robust["n"] == lower.n
        left += [robust["correct"]] if audited else []
        left += [lower.correct + lower.undecided] if lower.undecided is not None else []
        found.append(
            {
                "model": model, "norm": proved.norm, "eps": proved.eps, "n": lower.n, "lower": lower.accuracy,
                "upper": 100 * min(left) / lower.n, "attacked": len(met) > 1 or audited or lower.undecided is not None,
            }
        )  # fmt: skip
    return found


def _meets(column: Column, proved: Certificate, evaluation: Evaluation) -> bool:
    """Whether a column's figure is no less than what is true within the ball that is proved."""
    if column.kind == "worst":
        return all(_meets(evaluation.columns[place], proved, evaluation) for place in column.of)
    return column.meets(proved)


def bracket_line(bracket: dict[str, Any]) -> str:
    """The same as a sentence."""
    ball = f"{bracket['norm']} eps {number(bracket['eps'])}, {bracket['n']:,} images"
    unattacked = "" if bracket["attacked"] else "; no attack was run: the upper end is the clean accuracy"
    return f"{bracket['model']}: the true robust accuracy {lies(bracket)} ({ball}){unattacked}"


def lies(bracket: dict[str, Any]) -> str:
    """Where the truth is, to be said of it."""
    lower, upper = (f"{bracket[end]:.2f}" for end in ("lower", "upper"))
    return f"is {lower} %" if lower == upper else f"lies between {lower} and {upper} %"


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
        note="p of McNemar's exact test on the same images"
        + (f", by Holm for {len(rows)} pairs" if len(rows) > 1 else "")
        + f"; noise: p >= {_NOISE}",
    )


def _difference(each: dict[str, Any]) -> str:
    p = f"p {each['p_holm']:.3f}" if each["p_holm"] >= 0.001 else "p < 0.001"
    return f"{each['difference']:+.2f} ({'noise, ' if each['noise'] else ''}{p})"


def over_seeds(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Mean and standard deviation of each column over models that differ in nothing but the seeds of their lineage."""
    groups: dict[str, dict[tuple[int, ...], int]] = {}
    for i, row in enumerate(evaluation.rows):
        if row.run is not None:
            groups.setdefault(row.run["id"], {}).setdefault(tuple(row.run["seeds"]), i)
    found = []
    for group in groups.values():
        if len(group) < 2:
            continue
        names = [evaluation.models[i] for i in group.values()]
        common = beginning(names)
        for column, on in enumerate(evaluation.met):
            cells = [evaluation.cells[i][column] for i in group.values()]
            mean, deviation = mean_and_deviation([cell.accuracy for cell in cells])
            found.append(
                {
                    "models": names,
                    "label": f"{common}*" if common else ", ".join(names),
                    "seeds": [seeds[-1] for seeds in group],
                    "lineage_seeds": [list(seeds) for seeds in group],
                    "on": on,
                    "n": cells[0].n,
                    "mean": mean,
                    "deviation": deviation,
                }
            )
    return found


def seeds_table(seeds: list[dict[str, Any]]) -> Table:
    """The same for people."""
    return Table(
        ("over seeds", "on", "n", "seeds", "mean accuracy %", "deviation"),
        [
            (each["label"], each["on"], str(each["n"]), str(len(each["seeds"])), f"{each['mean']:.2f}",
             f"{each['deviation']:.2f}")
            for each in seeds
        ],
        right=("n", "seeds", "mean accuracy %", "deviation"),
    )  # fmt: skip


def calibrated(evaluation: Evaluation) -> list[dict[str, Any]]:
    """How far confidence and accuracy on clean images lie apart, for each model."""
    found = []
    for model, row in zip(evaluation.models, evaluation.rows, strict=True):
        bins = row.reliability
        n = sum(count for count, _, _ in bins)
        found.append(
            {
                "model": model,
                "n": n,
                "ece": calibration_error(bins),
                "confidence": 100 * sum(count * confidence for count, confidence, _ in bins) / n,
                "accuracy": 100 * sum(count * right for count, _, right in bins) / n,
                "bins": [list(each) for each in bins],
            }
        )
    return found


def calibration_table(calibration: list[dict[str, Any]]) -> Table:
    """The same for people."""
    return Table(
        ("calibration", "on", "n", "confidence %", "accuracy %", "ECE %"),
        [
            (
                each["model"],
                "clean",
                str(each["n"]),
                f"{each['confidence']:.2f}",
                f"{each['accuracy']:.2f}",
                f"{each['ece']:.2f}",
            )
            for each in calibration
        ],
        right=("n", "confidence %", "accuracy %", "ECE %"),
        note="ECE: expected calibration error, 15 bins of confidence",
    )


def audited(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The audits, each with its model; empty where none was asked for."""
    parts = ("verdict", "robust", "chance", "checks", "n", "by_eps", "by_steps")
    return [{"model": model, **{part: audit[part] for part in parts}} for model, audit in evaluation.audited]


def _value(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.4g}"


def audit_table(audit: dict[str, Any]) -> Table:
    """The checks of one model for people, the strongest figure found, and what they come to."""
    grave = [check["name"] for check in audit["checks"] if check["verdict"] in VERDICTS[1:]]
    led = f", because of: {'; '.join(grave)}" if grave else ""
    robust = audit["robust"]
    figure = f"{accuracy(robust['correct'], robust['n'])} of {robust['n']} images"
    return Table(
        ("check", "verdict", "value", "advice"),
        [
            (check["name"], check["verdict"], f"{_value(check['value'])} {check['unit']}", check["advice"])
            for check in audit["checks"]
        ],
        title=f"audit of {audit['model']}: {audit['verdict']}; at most {figure} are robust",
        right=("value",),
        note=f"overall {audit['verdict']}{led}\nstrongest attack: {robust['attack']}, which leaves {figure} "
        "(an upper bound)",
    )
