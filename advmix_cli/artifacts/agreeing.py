"""What of a record that has the right form cannot be: parts that do not agree with each other."""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from typing import Any

from advmix_cli.threats import Threat

Record = dict[str, Any]


def disagreements(record: Record, kind: str) -> Iterator[str]:
    """Which parts of a record of that kind cannot be."""
    if kind == "checkpoint":
        network = record.get("network") or {}
        if any(network.get(name, record[name]) != record[name] for name in ("arch", "shape", "classes")):
            yield "network"
        if len(record.get("class_names", ())) not in (0, record["classes"]):
            yield "class_names"
    if kind == "checkpoint" and record["origin"] != "import":
        history, metrics = record.get("history"), record["metrics"]
        if metrics["best_epoch"] > record["epochs"] or (history is None) == ("history_sha256" not in record):
            yield "metrics.best_epoch"
        rows = history or []
        if history is not None and len(rows) != record["epochs"]:
            yield "history"
        if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)):
            yield "history"
        if (record["settings"].get("adversary") is None) != ("test_threat" not in metrics):
            yield "metrics.test_threat"
        if record["settings"].get("adversary") and "last_test_robust_accuracy" not in metrics:
            yield "metrics.last_test_robust_accuracy"
    elif kind == "samples":
        counts = [record["clean_correct"], record["robust_correct"], *(standing for _, standing in record["after"])]
        if max(counts) > record["n"]:
            yield "n"
        threat, stages = Threat.from_dict(record["threat"]), len(record["after"])
        if not _may_have(threat, stages, len(threat.parts)) or len(record.get("passes", ())) not in (0, stages):
            yield "after"
    elif kind == "evaluation":
        yield from _in_cells(record)


def _may_have(threat: Threat, stages: int, now: int) -> bool:
    """Whether a threat has so many stages `now`, or had: what is no standard ensemble may have had others before."""
    own = threat.standard == len(threat.parts) > 1
    return stages == now or (own and stages > 1)


def _staged(column: Record, stages: int) -> bool:
    """Whether a column's cells may say so often what stood: none but those of white-box ensembles do."""
    threat = Threat.from_dict(column["threat"]) if column["kind"] == "attack" else None
    if threat is None or len(threat.parts) < 2:
        return not stages and not column["further"]
    return _may_have(threat, stages, len(threat.parts) if column["further"] else threat.standard)


def _in_cells(record: Record) -> Iterator[str]:
    columns, rows = record["columns"], record["rows"]
    if not rows or not columns or len(record["cells"]) != len(rows):
        yield "cells"
    for row in record["cells"]:
        if len(row) != len(columns):
            yield "cells"
        for cell in row:
            flags = binascii.a2b_base64(cell["right"], strict_mode=True)
            right = sum(byte.bit_count() for byte in flags)
            if len(flags) != -(-cell["n"] // 8) or cell["correct"] != right or right > cell["n"]:
                yield "cells.right"
            if any(standing > cell["n"] for _, standing in cell["after"]):
                yield "cells.after"
            if len(cell.get("passes", ())) not in (0, len(cell["after"]) or 1):
                yield "cells.passes"
            counts = [sum(each) for each in zip(*cell.get("by_class", ()), strict=True)]
            wrong = record.get("classes") and len(cell.get("by_class", ())) not in (0, len(record["classes"]))
            if wrong or counts not in ([], [cell["n"], right]) or any(s > n for n, s in cell.get("by_class", ())):
                yield "cells.by_class"
    for place, column in enumerate(columns):
        if not all(_staged(column, len(row[place]["after"])) for row in record["cells"]):
            yield "cells.after"
        if any(of >= place for of in column["of"]) or (column["kind"] == "worst") != bool(column["of"]):
            yield "columns.of"
        if column["kind"] == "attack" and column["threat"] is None:
            yield "columns.threat"
        proved = column.get("proved")
        if (column["kind"] == "certified") != (proved is not None) or proved != (
            record["settings"].get("certified") if proved else None
        ):
            yield "columns.proved"
    for row, cells in zip(rows, record["cells"], strict=True):
        if sum(n for n, _, _ in row["reliability"]) != cells[0]["n"]:
            yield "rows.reliability"
        audit = row["audit"]
        if audit is not None:
            around = audit["landscape"]
            grids = [around["loss"], *([around["margin"]] if "margin" in around else [])]
            square = all(len(lines) == len(around["axis"]) for grid in grids for lines in (grid, *grid))
            if not square or audit["robust"]["correct"] > audit["robust"]["n"]:
                yield "rows.audit"
    if (record["settings"].get("audited") is not None) != all(row["audit"] is not None for row in rows):
        yield "rows.audit"
