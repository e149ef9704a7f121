"""What references come to: models and sample caches, verified, and what is read from them."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advmix_cli import artifacts, files, models, zoo
from advmix_cli.errors import AdvmixError, DamagedError, NotFoundError, UsageError
from advmix_cli.results import shown
from advmix_cli.settings import digest
from advmix_cli.store import Fits, Store
from advmix_cli.threats import Threat
from advmix_cli.workflows.session import Session

if TYPE_CHECKING:
    import torch
    from torch import nn

    from advmix_cli.data import DatasetInfo

WEIGHTS = ("best", "last", "ema")
_MODELS = ("checkpoints",)


@dataclasses.dataclass(frozen=True)
class ModelRef:
    """A model that a reference resolved to: its verified record and which of its weights are meant."""

    label: str  # what tables call it: the alias that was asked for, else the name
    path: Path
    which: str
    record: dict[str, Any]
    stored: bool = True  # whether the file lies in the store

    @property
    def name(self) -> str:
        """Its name in the store."""
        return str(self.record["name"])

    @property
    def dataset(self) -> str:
        """The data set it was trained on."""
        return str(self.record["dataset"])

    @property
    def arch(self) -> str:
        """Its architecture."""
        return str(self.record["arch"])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that it tells apart; () where its file does not say."""
        return tuple(self.record.get("class_names", ()))

    @property
    def network(self) -> models.Network:
        """What its weights are the weights of."""
        if "network" in self.record:
            return models.Network.from_dict(self.record["network"])
        channels, height, width = self.record["shape"]
        return models.Network(self.arch, (channels, height, width), self.record["classes"])

    @property
    def digest(self) -> str:
        """The digest of the weights that are meant."""
        return str(self.record["digests"][self.which])

    @property
    def function(self) -> str:
        """A digest of what it computes: of its weights, and of whose they are."""
        return digest(self.identity())

    def identity(self) -> dict[str, Any]:
        """What it is known by in keys."""
        return {"weights": self.digest, **self.network.identity()}

    def run(self) -> dict[str, Any] | None:
        """What its training is known by but for seeds, `id`, and the `seeds` along its lineage; None where imported."""
        run = self.record.get("run")
        return run and {"id": digest([run["id"], self.which])[:16], "seeds": run["seeds"]}

    def lineage(self) -> dict[str, Any]:
        """What is written down of it in things made from it."""
        adversary = (self.record.get("settings") or {}).get("adversary")
        against = {"trained_against": adversary["threat"]} if adversary else {}
        method = {"method": adversary["method"]} if adversary and adversary.get("method", "pgd") != "pgd" else {}
        where = self.label.partition("@")[0] if self.label.startswith(zoo.PREFIX) else str(self.path.absolute())
        elsewhere = {} if self.stored else {"path": where}
        own = {"name": self.name, "weights": self.which, "digest": self.digest, "arch": self.arch}
        return own | against | method | elsewhere


def resolve_path(
    session: Session, ref: str, kinds: tuple[str, ...], suffixes: tuple[str, ...], fits: Fits | None = None
) -> tuple[str, Path]:
    """(label, path) of what `ref` names: a file, or an artifact of `kinds`. Says on stderr what it came to.

    `latest` is the newest that will do.
    """
    store = session.store
    if ref.startswith(zoo.PREFIX) and "checkpoints" in kinds:
        return ref, zoo.path(ref)
    if os.sep in ref or ref.endswith(suffixes):
        path = files.home(Path(ref))
        if os.path.lexists(path):
            return shown(path.name), path
        if os.sep in ref:
            raise NotFoundError(f"there is no file {path}", "see advmix store list")
    for suffix in suffixes:
        ref = ref.removesuffix(suffix)
    kind, name = store.resolve(ref, kinds, fits)
    if name != ref:
        session.report.note(f"{ref} is {name}")
    return (ref if ref in store.refs() else name), store.path(kind, name)


def resolve_models(session: Session, refs: list[str], fits: Fits | None = None) -> list[ModelRef]:
    """The models that `refs` name; one with a `*` names all aliases of that pattern, in their order."""
    found: list[ModelRef] = []
    for ref in refs:
        base, at, which = ref.partition("@")
        named = [name + at + which for name in aliases_like(session.store, base, _MODELS)] if "*" in ref else [ref]
        found += [resolve_model(session, name, fits) for name in named]
    return found


def aliases_like(store: Store, pattern: str, kinds: Collection[str]) -> list[str]:
    """The aliases of that pattern, in their order. Raises NotFoundError."""
    aliases = sorted(alias for alias, (kind, _) in store.refs().items() if kind in kinds)
    named = [alias for alias in aliases if fnmatch.fnmatchcase(alias, pattern)]
    if not named:
        raise NotFoundError(f"no alias is like {pattern!r}", "see advmix store list")
    return named


def resolve_model(session: Session, ref: str, fits: Fits | None = None) -> ModelRef:
    """The model that `ref` names, verified. Raises NotFoundError, DamagedError or UsageError (a file of others)."""
    base, at, which = ref.rpartition("@")
    if which not in WEIGHTS or not at:
        base, which = ref, "best"
    label, path = resolve_path(session, base, _MODELS, (".safetensors",), fits)
    record = artifacts.checkpoint_record(path)
    stored = is_stored(session, path, record)
    if which not in record["digests"]:
        raise NotFoundError(f"{label} has no averaged weights", "they come of training with --ema: leave @ema out")
    return ModelRef(label + (f"@{which}" if which != "best" else ""), path, which, record, stored)


WITH_HISTORY = Fits(
    lambda path: bool(artifacts.checkpoint_record(path, whole=False)["origin"] != "import"), "a history"
)


def is_stored(session: Session, path: Path, record: dict[str, Any]) -> bool:
    """Whether a file is the store's own. Raises DamagedError where it lies there under another's name."""
    own = session.store.owns(path)
    if own is not None and own[1] != record["name"]:
        raise DamagedError(
            f"{path} is not what its name says: it is {record['name']}", "remove it: advmix store remove"
        )
    return own is not None


def history(checkpoint: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a training run, an epoch each.

    Raises NotFoundError where there are none. Stores of the first form have them in a file beside the checkpoint, whose
    digest is in the record; DamagedError where that file is another.
    """
    if "history" in record:
        return list(record["history"])
    if "history_sha256" not in record:
        raise NotFoundError(f"{record['name']} has no history: it was imported", "draw runs of advmix train")
    path = checkpoint.with_name(checkpoint.name.removesuffix(".safetensors") + ".history.jsonl")
    content = files.read(path, artifacts.LARGEST)
    if hashlib.sha256(content).hexdigest() != record["history_sha256"]:
        raise DamagedError(f"{path} is damaged: not what was written", "train again with the same command and --force")
    return artifacts.history(content, path)


@dataclasses.dataclass(frozen=True)
class Fresh:
    """A network whose parameters are drawn from a seed: what training begins from where nothing is said."""

    network: models.Network

    def identity(self) -> dict[str, Any]:
        """What it is known by in keys; the seed is among the settings."""
        return self.network.identity()


@dataclasses.dataclass(frozen=True)
class Untrained:
    """A fresh network, as the report attacks in its Figures 7 and 8: its parameters come from the seed."""

    network: models.Network
    seed: int
    class_names: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"untrained-{self.network.label}"

    def identity(self) -> dict[str, Any]:
        """What it is known by in keys."""
        return {"weights": "untrained", "seed": self.seed, **self.network.identity()}

    def lineage(self) -> dict[str, Any]:
        """What is written down of it in things made from it."""
        return {"name": self.label, "weights": "untrained", "seed": self.seed, "arch": self.network.arch}


def load_model(model: ModelRef, device: torch.device | str) -> nn.Module:
    """The model with its weights, on a device, in eval mode.

    A network's own file is run only for the store's own checkpoints: a command line named it for those. Raises
    DamagedError when the weights do not fit, and AdvmixError when they are not those any more that the reference
    resolved to: another process may have made them again since.
    """
    if not model.stored and models.kind_of(model.arch) == "file":
        raise UsageError(
            f"{model.path} is of a network that {model.arch.rpartition(':')[0]} would have to be run for",
            f"take it in, and name the file: advmix import {model.path} --arch {model.arch}",
            code="code",
        )
    weights = artifacts.checkpoint_weights(model.path, model.which)
    if artifacts.tensors_digest(weights) != model.digest:
        raise AdvmixError(
            f"{model.path} was replaced while it was being used", "run the command again", code="replaced"
        )
    built = models.build(model.network)
    try:
        built.load_state_dict(weights)
    except RuntimeError as error:
        raise DamagedError(
            f"{model.path} does not hold the weights of a {model.arch}", str(error).splitlines()[-1].strip()
        ) from None
    return built.to(device).eval()


def check_meets(model: ModelRef | Untrained, info: DatasetInfo) -> None:
    """Raise UsageError where the model does not take the set's images, or tells other classes apart."""
    network, label, names = model.network, model.label, model.class_names
    if network.shape != info.shape:
        raise UsageError(
            f"{label} takes images of {_sides(network.shape)}, {shown(info.name)} has {_sides(info.shape)}",
            f"use --image-size {network.shape[1]}" if network.shape[0] == info.shape[0] else "choose its own data set",
        )
    if network.classes != len(info.classes):
        raise UsageError(
            f"{label} tells {network.classes} classes apart, {shown(info.name)} has {len(info.classes)}",
            "choose its own data set",
        )
    other = next(((ours, theirs) for ours, theirs in zip(names, info.classes, strict=False) if ours != theirs), None)
    if other:
        raise UsageError(
            f"{label} tells other classes apart than {shown(info.name)}: {shown(other[0])} where that has "
            f"{shown(other[1])}",
            "choose its own data set",
        )


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


@dataclasses.dataclass(frozen=True)
class SamplesRef:
    """A sample cache that a reference resolved to; `record` is None in a file made by others."""

    label: str
    path: Path
    record: dict[str, Any] | None
    stored: bool = True  # whether the file lies in the store

    @property
    def threat(self) -> Threat | None:
        """What its attacker was allowed, None where the file does not say."""
        return None if self.record is None else Threat.from_dict(self.record["threat"])

    def identity(self) -> str:
        """What its content is known by in keys: how it was made and what came out, but not when and where."""
        if self.record is not None:
            return digest([self.record["key"], self.record["digest"]])
        return hashlib.sha256(files.read(self.path)).hexdigest()


def resolve_samples(session: Session, ref: str, fits: Fits | None = None) -> SamplesRef:
    """The sample cache that `ref` names. A file of others is taken, with a note."""
    label, path = resolve_path(session, ref, ("samples",), (".pt",), fits)
    record, stored = artifacts.samples_record(path), False
    if record is not None:
        stored = is_stored(session, path, record)
    elif session.store.owns(path):
        raise DamagedError(f"{path} is not what was written: it has no record", "remove it: advmix store remove")
    else:
        session.report.note(f"{path} was not made by advmix: it does not say how its images were attacked")
    return SamplesRef(label, path, record, stored)


def of_a_stored_model(session: Session) -> Fits:
    """Caches whose model the store still has."""

    def test(path: Path) -> bool:
        record = artifacts.samples_record(path, whole=False)
        return record is not None and session.store.has("checkpoints", record["model"]["name"])

    return Fits(test, "a model that is still there")


def attacked_model(session: Session, samples: SamplesRef) -> ModelRef:
    """The model that a cache was made against, if the store still has those very weights.

    A path that a file from elsewhere names is not opened: whoever made it wrote that.
    """
    if samples.record is None:
        raise UsageError(
            f"{samples.path} does not say which model it attacks",
            f"name a model: advmix eval MODEL --samples {samples.path}",
        )
    lineage = samples.record["model"]
    if "path" in lineage and not samples.stored:
        raise UsageError(
            f"{samples.label} attacks a model outside the store, {lineage['name']}",
            f"name the model: advmix eval MODEL --samples {samples.path}",
        )
    if lineage["weights"] == "untrained":
        raise UsageError(
            f"{samples.label} attacks an untrained network",
            f"name a model: advmix eval MODEL --samples {samples.label}",
        )
    named = [alias for alias, target in session.store.refs().items() if target == ("checkpoints", lineage["name"])]
    ref = lineage.get("path") or (named or [lineage["name"]])[0]
    try:
        model = resolve_model(session, f"{ref}@{lineage['weights']}")
    except NotFoundError:
        model = None
    if model is None or model.digest != lineage["digest"]:
        raise NotFoundError(
            f"the model that {samples.label} attacks, {lineage['name']}, is gone",
            f"name another: advmix eval MODEL --samples {samples.label}",
        )
    return model
