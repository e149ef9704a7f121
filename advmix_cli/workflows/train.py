"""`advmix train` and `advtrain`: a checkpoint and its history."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, config, data, models, presets
from advmix_cli.config import TrainSettings
from advmix_cli.errors import AdvmixError, NotFoundError, UsageError
from advmix_cli.names import short_arch
from advmix_cli.results import Result, counted, share, shown
from advmix_cli.settings import SCHEMA, digest, key
from advmix_cli.workflows.checkpoints import checkpoint_result
from advmix_cli.workflows.making import made, make_once, set_alias
from advmix_cli.workflows.references import Fresh, ModelRef, check_meets, history, load_model, resolve_model
from advmix_cli.workflows.session import Session
from advmix_cli.workflows.unfinished import Unfinished
from advmix_cli.workflows.weights import Weights

if TYPE_CHECKING:
    from torch import nn

    from advmix_cli import training


def standard_checkpoint(session: Session, dataset: str | None) -> ModelRef:
    """The checkpoint that a command last gave, or else the newest, among those of standard training on `dataset`.

    None: on any data set. Raises NotFoundError when there is none.
    """
    for kind, name in session.store.newest(("checkpoints",)):
        path = session.store.path(kind, name)
        try:
            record = artifacts.checkpoint_record(path, whole=False)
            if not (record.get("settings") or {}).get("adversary") and dataset in (None, record["dataset"]):
                return resolve_model(session, name)
        except AdvmixError as error:
            session.report.warn(f"{error.message}: passed over")
    of = f" of {dataset}" if dataset else ""
    raise NotFoundError(
        f"there is no standard checkpoint{of} to begin from",
        f"make one: advmix train{' --dataset ' + dataset if dataset else ''}, or begin from --init untrained",
    )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the settings come to: the checkpoint's name and key, the data's fingerprint, the images of an epoch."""

    name: str
    key: str
    fingerprint: str
    images: int


Begin = ModelRef | Fresh | Weights
"""What training begins from: a checkpoint, a network drawn from the seed, or weights of others."""


def plan(session: Session, settings: TrainSettings, begin: Begin) -> Plan:
    """What `settings` and what they begin from come to. Raises UsageError where they do not fit together."""
    info = session.dataset(settings.dataset)
    models.check_fit(begin.network, info.name)
    config.check_sigma(settings.soft_label, len(info.classes))
    learning = min(settings.limit or info.sizes["train"], info.sizes["train"]) - settings.validation
    if learning < 1:
        raise UsageError(
            f"{settings.validation} validation images leave nothing to learn from", "give a larger --limit"
        )
    if isinstance(begin, ModelRef):
        if (begin.arch, begin.dataset) != (settings.arch, settings.dataset):
            raise UsageError(
                f"{begin.label} is a {short_arch(begin.arch)} of {shown(begin.dataset)}, "
                f"not a {short_arch(settings.arch)} of {shown(settings.dataset)}",
                "begin from a model of the same kind and data set, or from --init untrained",
            )
        check_meets(begin, info)
    fingerprint = session.fingerprint(settings.dataset)
    own = key("checkpoint", settings, data=data.identity(info, fingerprint), init=begin.identity())
    return Plan(f"{settings.label}-{own[:8]}", own, fingerprint, learning)


def train(
    session: Session,
    settings: TrainSettings,
    alias: str | None = None,
    *,
    begin: Begin,
    verbose: bool = False,
) -> Result:
    """Train, continue, or find the checkpoint that `settings` give."""
    planned = plan(session, settings, begin)
    record, cached = make_once(
        session,
        "checkpoints",
        planned.name,
        planned.key,
        artifacts.checkpoint_record,
        lambda: _train(session, settings, planned, begin, verbose),
    )
    if session.ranks.first:
        session.watching.tell(planned.name, history(session.store.path("checkpoints", planned.name), record))
    set_alias(session, alias, "checkpoints", planned.name)
    return checkpoint_result(session, record, cached, alias)


def _train(
    session: Session,
    settings: TrainSettings,
    planned: Plan,
    begin: Begin,
    verbose: bool,
) -> None:
    from advmix_cli import checking, splitting, training
    from advmix_cli.gathering import synchronised
    from advmix_cli.models.normalize import normalisation

    device = session.device()
    unfinished = Unfinished(session, planned.name, planned.key)
    images = session.images(settings.dataset, "train"), session.images(settings.dataset, "test")
    splits = splitting.split(*images, settings)
    splits = splitting.Splits(*(part.to(device) for part in (splits.train, splits.validation, splits.test)))
    sizes = {part: len(getattr(splits, part)) for part in ("train", "validation", "test")}
    network, init = begin.network, begin if isinstance(begin, ModelRef) else None

    if not presets.has_recipe(session.dataset(settings.dataset)):
        session.report.note(_recipe(settings))

    def run(pieces: list[dict[str, Any]]) -> tuple[nn.Module, training.Trained]:
        state, done = (pieces[-1], training.epochs_of(pieces[-1])) if pieces else (None, 0)
        if done:
            session.report.note(f"continuing after epoch {done}")
            if session.ranks.first:
                session.watching.tell(planned.name, pieces[-1]["history"])
        model = begin_with(begin, settings, session.report.note).to(device)
        if session.sync_bn:
            model = synchronised(model, device)
        with session.report.progress("training", settings.epochs * len(splits.train), "images") as progress:
            progress(done * len(splits.train), before=True)
            clock = time.monotonic()

            def on_epoch(row: dict[str, Any], make_state: Any, laps: training.Clock) -> None:
                nonlocal clock
                progress.line(_epoch_line(row, settings, sizes, time.monotonic() - clock))
                if row["epoch"] < settings.epochs and session.ranks.first:
                    unfinished.replace(make_state())
                if session.ranks.first:
                    session.watching.tell(planned.name, [row])
                clock = time.monotonic()
                laps.lap("bookkeeping")
                seconds = laps.read()
                if verbose:
                    progress.line(_division(seconds))

            trained = training.train(
                model,
                splits,
                settings,
                state=state,
                timed=verbose,
                on_batch=lambda epoch, n: progress(n),
                on_epoch=on_epoch,
            )
        return model, trained

    model, trained = unfinished.resumed(run)
    metrics = _metrics(trained.history, trained.best_epoch, settings)
    if settings.adversary is not None:
        with session.report.progress("attacking the test images", 2, "models") as progress:
            robust = checking.robust_accuracy(model, splits.test, settings)
            metrics["last_test_robust_accuracy"] = robust
            progress(1)
            if trained.best_epoch != settings.epochs:
                model.load_state_dict(trained.best)
                robust = checking.robust_accuracy(model, splits.test, settings)
            metrics["test_robust_accuracy"] = robust
            progress(1)
        metrics["test_threat"] = settings.adversary.judge.to_dict()
    record = {
        "schema": SCHEMA,
        "kind": "checkpoint",
        "name": planned.name,
        "key": planned.key,
        "origin": "advtrain" if settings.adversary else "train",
        "init": init.lineage() if init else None,
        "arch": settings.arch,
        "dataset": settings.dataset,
        "fingerprint": planned.fingerprint,
        "shape": list(network.shape),
        "classes": network.classes,
        "class_names": list(splits.train.info.classes),
        "network": network.to_dict(),
        "normalisation": normalisation(model),
        **({"weights": begin.lineage()} if isinstance(begin, Weights) else {}),
        "preset": settings.preset,
        "settings": settings.to_dict(),
        "run": _run_of(settings, init),
        "images": sizes,
        "epochs": settings.epochs,
        "metrics": metrics,
        "history": trained.history,
        "made": made(session, unfinished.seconds, settings.batch_size),
    }
    if session.ranks.first:
        content = artifacts.checkpoint_bytes(trained.best, trained.last, record, trained.average)
        session.store.write(session.store.path("checkpoints", planned.name), content)
    unfinished.delete()


def begin_with(begin: Begin, settings: TrainSettings, say: Callable[[str], None]) -> nn.Module:
    """The model before training, on the CPU."""
    from advmix_cli import mixing

    if isinstance(begin, ModelRef):
        model = load_model(begin, "cpu")
    else:
        model = models.build(begin.network, settings.seed)
        if isinstance(begin, Weights):
            begin.put_into(model, say)
        elif settings.adversary is not None and settings.adversary.declared.certified:
            from advmix_cli.methods.bounded import initialise

            initialise(model, settings.seed, dict(settings.adversary.options)["spread"])
    mixing.places(model, settings.mix_stages)
    return model


def _run_of(settings: TrainSettings, init: ModelRef | None) -> dict[str, Any]:
    """What the run is known by but for the seeds along its whole lineage, and those seeds."""
    rest = {name: value for name, value in settings.identity().items() if name != "seed"}
    before = (init.run() or {"id": init.digest, "seeds": []}) if init else {"id": None, "seeds": []}
    return {"id": digest([rest, before["id"]]), "seeds": [*before["seeds"], settings.seed]}


def _recipe(settings: TrainSettings) -> str:
    """What was chosen by shape and size of a set that has no recipe of its own."""
    parts = [f"{counted(settings.epochs, 'epoch')} in batches of {settings.batch_size}"]
    parts += [f"{settings.optimizer} at {settings.lr:g}"]
    parts += ["flipped"] if settings.flip else []
    parts += [f"cropped by {settings.crop_padding}"] if settings.crop_padding else []
    parts += [f"{settings.validation} images held out"]
    parts += [f"against {settings.adversary.threat}"] if settings.adversary else []
    return f"recipe: {', '.join(parts)}; another: see advmix train --help"


def _epoch_line(row: dict[str, Any], settings: TrainSettings, sizes: dict[str, int], seconds: float) -> str:
    text = f"epoch {row['epoch']}/{settings.epochs}: train loss {row['train_loss']:.4f}"
    if "validation_accuracy" in row:
        text += f", validation {share(row['validation_accuracy'], sizes['validation'])}"
    if "validation_robust_accuracy" in row and settings.adversary is not None:
        robust = share(row["validation_robust_accuracy"], sizes["validation"])
        text += f", attacked by {settings.adversary.judge.label} {robust}"
    if "validation_certified_accuracy" in row:
        text += f", certified {share(row['validation_certified_accuracy'], sizes['validation'])}"
    if "recycled" in row:
        text += f", {counted(row['recycled'], 'channel')} anew"
    if row.get("rolled_back"):
        single = row.get("validation_fgsm_accuracy")
        why = "collapsed" if single is None else f"overfitted to one step (FGSM {single:.1f} %)"
        text += f", {why}: back to the best epoch"
    return text + f", test {share(row['test_accuracy'], sizes['test'])}, {seconds:.1f} s"


def _division(seconds: dict[str, float]) -> str:
    total = sum(seconds.values())
    parts = [f"{name} {spent:.2f} s ({100 * spent / total:.1f} %)" for name, spent in sorted(seconds.items())]
    return "  of which " + ", ".join(parts)


def _metrics(history: list[dict[str, Any]], best_epoch: int, settings: TrainSettings) -> dict[str, Any]:
    chosen, last = history[best_epoch - 1], history[-1]
    by = "validation accuracy" if settings.adversary is None else "robust validation accuracy"
    if settings.adversary is not None and settings.adversary.declared.certified:
        by = "the middle of the validation bracket"
    by = "last epoch" if "validation_accuracy" not in chosen else by + (" of the average" if settings.ema else "")
    return {
        "best_epoch": best_epoch,
        "chosen_by": by,
        **{name: value for name, value in chosen.items() if name not in ("epoch", "lr", "rolled_back", "recycled")},
        "last_test_accuracy": last["test_accuracy"],
        "last_test_loss": last["test_loss"],
    }
