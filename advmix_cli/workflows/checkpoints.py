"""What `train`, `advtrain` and `import` give back of a checkpoint."""

from __future__ import annotations

from typing import Any

from advmix_cli.config import Adversary
from advmix_cli.results import Facts, Result, share
from advmix_cli.threats import Threat
from advmix_cli.workflows.making import quoted
from advmix_cli.workflows.session import Session


def _adversarial_facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    """What adversarial training adds: the attack it trained with, and how the best and the last epoch stand."""
    adversary = (record.get("settings") or {}).get("adversary")
    if not adversary:
        return []
    metrics, trained_with = record["metrics"], Adversary.from_dict(adversary)
    threat = Threat.from_dict(metrics["test_threat"])
    best, last = metrics["test_robust_accuracy"], metrics["last_test_robust_accuracy"]
    as_run, n = trained_with.threat.variant == "as-run", record["images"]["test"]
    init = record["init"]["name"] if record["init"] else "untrained"
    return [
        ("begun from", init),
        ("trained by", way(trained_with)),
        ("trained against", trained_with.against),
        (
            "largest change",
            f"linf {metrics['linf_max']:.6f} (pixel units) in training"
            + (", not bounded by eps: as-run" if as_run else ""),
        ),
        ("test, attacked", f"{share(best, n)} under {threat} (an upper bound)"),
        (
            "last epoch",
            f"{share(metrics['last_test_accuracy'], n)} clean, {share(last, n)} attacked; "
            f"best - last {best - last:+.2f}",
        ),
    ]


def way(adversary: Adversary) -> str:
    """The method, what it was told, and what went beside it."""
    options = [f"{name} {value:g}" for name, value in adversary.options]
    options += [f"AWP {adversary.awp:g}"] if adversary.awp else []
    options += [adversary.mix_order] if adversary.mix_order != "attack-mix" else []
    return f"{adversary.declared.title} ({adversary.method}){': ' if options else ''}{', '.join(options)}"


def _normalisation(said: dict[str, Any]) -> str:
    """What the network does to its images first."""
    numbers = {part: " ".join(f"{value:.4g}" for value in said[part]) for part in ("mean", "std")}
    return f"mean {numbers['mean']}, std {numbers['std']}"


def checkpoint_result(session: Session, record: dict[str, Any], cached: bool, alias: str | None) -> Result:
    """What train, advtrain and import give back."""
    name, metrics = record["name"], record["metrics"]
    path = session.store.path("checkpoints", name)
    rows = [("checkpoint", name + (" (from the store)" if cached else "")), ("path", str(path))]
    if alias:
        rows.append(("alias", alias))
    if record.get("preset", "default") != "default":
        rows.append(("preset", record["preset"]))
    if record.get("normalisation"):
        rows.append(("normalisation", _normalisation(record["normalisation"])))
    if metrics:
        rows.append(("chosen epoch", f"{metrics['best_epoch']} of {record['epochs']} (by {metrics['chosen_by']})"))
        if "validation_accuracy" in metrics:
            rows.append(("validation", share(metrics["validation_accuracy"], record["images"]["validation"])))
        test = share(metrics["test_accuracy"], record["images"]["test"])
        rows.append(("test", f"{test}, loss {metrics['test_loss']:.4f}"))
    rows += _adversarial_facts(record)
    if record["origin"] != "import" and not cached:
        rows.append(("time", f"{record['made']['seconds']:.1f} s"))
    return Result(
        data={
            "checkpoint": name,
            "path": str(path),
            "cached": cached,
            "epochs": record["epochs"],
            "images": record.get("images", {}),
            "metrics": metrics,
            "arch": record["arch"],
            "dataset": record["dataset"],
            "preset": record.get("preset", "default"),
            "digest": record["digests"]["best"],
        },
        refs=[name],
        blocks=[Facts(rows)],
        hint=f"attack it: advmix attack {quoted(alias, name)}",
    )
