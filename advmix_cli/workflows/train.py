"""`advmix train`: a checkpoint and its history."""

from __future__ import annotations

import io
import json
import time
from typing import Any

from advmix_cli import artifacts, config, data, models
from advmix_cli.config import TrainSettings
from advmix_cli.errors import DamagedError, UsageError
from advmix_cli.results import Facts, Result, percent
from advmix_cli.workflows.common import Session, made_with, make_once, quoted, set_alias


def train(session: Session, settings: TrainSettings, alias: str | None = None) -> Result:
    """Train, continue, or find the checkpoint that `settings` give."""
    info = data.info(settings.dataset)
    models.check_fit(settings.arch, info.name, info.shape)
    config.check_sigma(settings.soft_label, len(info.classes))
    learning = min(settings.limit or info.sizes["train"], info.sizes["train"]) - settings.validation
    if learning < 1:
        raise UsageError(
            f"{settings.validation} validation images leave nothing to learn from", "give a larger --limit"
        )
    fingerprint = session.fingerprint(settings.dataset)
    key = config.key("checkpoint", settings, data=fingerprint)
    name = f"{settings.label}-{key[:8]}"
    started = time.monotonic()
    record, cached = make_once(
        session,
        "checkpoints",
        name,
        key,
        artifacts.checkpoint_record,
        lambda: _train(session, settings, name, key, fingerprint),
    )
    set_alias(session, alias, "checkpoints", name)
    return checkpoint_result(session, record, cached, alias, time.monotonic() - started)


def _train(session: Session, settings: TrainSettings, name: str, key: str, fingerprint: str) -> None:
    import torch

    from advmix_cli import training

    device = session.device()
    state = _state(session, name, key)
    images = session.images(settings.dataset, "train"), session.images(settings.dataset, "test")
    splits = training.split(*images, settings)
    splits = training.Splits(*(part.to(device) for part in (splits.train, splits.validation, splits.test)))
    model = models.build(settings.arch, settings.seed).to(device)
    done = len(state["history"]) if state is not None else 0
    with session.report.progress("training", settings.epochs * len(splits.train), "images") as progress:
        progress(done * len(splits.train))
        clock = time.monotonic()

        def on_epoch(row: dict[str, Any], make_state: Any) -> None:
            nonlocal clock
            progress.line(_epoch_line(row, settings.epochs, time.monotonic() - clock))
            if row["epoch"] < settings.epochs:
                buffer = io.BytesIO()
                torch.save(make_state() | {"key": key}, buffer)
                session.store.write(session.store.unfinished(name), buffer.getvalue())
            clock = time.monotonic()

        trained = training.train(
            model, splits, settings, state=state, on_batch=lambda epoch, n: progress(n), on_epoch=on_epoch
        )
    record = {
        "schema": config.SCHEMA,
        "kind": "checkpoint",
        "name": name,
        "key": key,
        "origin": "train",
        "arch": settings.arch,
        "dataset": settings.dataset,
        "fingerprint": fingerprint,
        "shape": list(data.info(settings.dataset).shape),
        "classes": len(data.info(settings.dataset).classes),
        "preset": settings.preset,
        "settings": settings.to_dict(),
        "images": {part: len(getattr(splits, part)) for part in ("train", "validation", "test")},
        "epochs": settings.epochs,
        "metrics": _metrics(trained.history, trained.best_epoch),
        "made_with": made_with(),
    }
    history = "".join(json.dumps(row, allow_nan=False) + "\n" for row in trained.history)
    store = session.store
    store.write(store.path("checkpoints", name, ".history.jsonl"), history.encode())
    store.write(store.path("checkpoints", name), artifacts.checkpoint_bytes(trained.best, trained.last, record))
    store.delete(store.unfinished(name))


def _state(session: Session, name: str, key: str) -> dict[str, Any] | None:
    """The state of an interrupted run, None where there is none or --force asks to begin again."""
    path = session.store.unfinished(name)
    if session.force or not path.exists():
        return None
    try:
        artifacts.samples_record(path)  # the archive's checksums
        state: dict[str, Any] = artifacts.load_plain(path)
        if state["key"] != key:
            return None
    except (DamagedError, KeyError, TypeError):
        session.report.warn(f"the state of an interrupted run in {path} is damaged: beginning again")
        return None
    session.report.note(f"continuing after epoch {len(state['history'])}")
    return state


def _epoch_line(row: dict[str, Any], epochs: int, seconds: float) -> str:
    text = f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.4f}"
    if "validation_accuracy" in row:
        text += f", validation {row['validation_accuracy']:.2f} %"
    return text + f", test {row['test_accuracy']:.2f} %, {seconds:.1f} s"


def _metrics(history: list[dict[str, Any]], best_epoch: int) -> dict[str, Any]:
    chosen, last = history[best_epoch - 1], history[-1]
    return {
        "best_epoch": best_epoch,
        "chosen_by": "validation accuracy" if "validation_accuracy" in chosen else "last epoch",
        **{name: value for name, value in chosen.items() if name not in ("epoch", "lr")},
        "last_test_accuracy": last["test_accuracy"],
        "last_test_loss": last["test_loss"],
    }


def checkpoint_result(
    session: Session, record: dict[str, Any], cached: bool, alias: str | None, seconds: float | None = None
) -> Result:
    """What train, advtrain and import give back."""
    name, metrics = record["name"], record["metrics"]
    path = session.store.path("checkpoints", name)
    rows = [("checkpoint", name + (" (from the store)" if cached else "")), ("path", str(path))]
    if alias:
        rows.append(("alias", alias))
    if record.get("preset", "default") != "default":
        rows.append(("preset", record["preset"]))
    if metrics:
        rows.append(("chosen epoch", f"{metrics['best_epoch']} of {record['epochs']} (by {metrics['chosen_by']})"))
        if "validation_accuracy" in metrics:
            rows.append(
                (
                    "validation",
                    f"{percent(metrics['validation_accuracy'])} of {record['images']['validation']}",
                )
            )
        rows.append(
            (
                "test",
                f"{percent(metrics['test_accuracy'])} of {record['images']['test']}, loss {metrics['test_loss']:.4f}",
            )
        )
    if seconds is not None and not cached:
        rows.append(("time", f"{seconds:.1f} s"))
    return Result(
        data={
            "checkpoint": name,
            "path": str(path),
            "cached": cached,
            "epochs": record["epochs"],
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
