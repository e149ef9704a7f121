"""What the commands share: the session, references to models, fingerprints, and making a thing once."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from advmix_cli import artifacts, data
from advmix_cli._version import __version__
from advmix_cli.errors import AdvmixError, DamagedError, NotFoundError
from advmix_cli.store import Store, default_root

if TYPE_CHECKING:
    import torch
    from torch import nn

    from advmix_cli.data import ImageSet

WEIGHTS = ("best", "last")


class Progress(Protocol):
    """A running bar: call it with the number of units done; `line` says what is worth a line, `about` how it stands."""

    def __call__(self, n: int) -> None:
        """`n` more units are done."""

    def line(self, text: str) -> None:
        """Say something that stays."""

    def about(self, text: str) -> None:
        """Say beside the bar how things stand."""


class Reporter(Protocol):
    """Where a workflow says what it does. The result itself goes another way: it is returned."""

    def note(self, text: str) -> None:
        """Something to know, such as what a reference resolved to."""

    def warn(self, text: str) -> None:
        """Something to mind."""

    def progress(self, what: str, total: int, unit: str) -> contextlib.AbstractContextManager[Progress]:
        """A bar of `total` units."""


class _SilentProgress:
    def __call__(self, n: int) -> None:
        pass

    def line(self, text: str) -> None:
        pass

    def about(self, text: str) -> None:
        pass


class Silent:
    """The reporter of library use: it says nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def progress(self, what: str, total: int, unit: str) -> Iterator[Progress]:
        """Nothing."""
        yield _SilentProgress()


@dataclasses.dataclass(frozen=True)
class Session:
    """What every command works with and no result depends on: the store, the data folder, the device, the reporter."""

    store: Store
    data_root: Path
    report: Reporter
    device_name: str = "auto"
    threads: int | None = None
    force: bool = False

    @classmethod
    def open(
        cls,
        report: Reporter | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        force: bool = False,
    ) -> Session:
        """A session on the store and data folder that the environment names."""
        root = default_root()
        return cls(Store(root), data.default_root(root), report or Silent(), device, threads, force)

    def device(self) -> torch.device:
        """The device to compute on, with threads and determinism set up."""
        from advmix_cli import runtime

        where = runtime.device(self.device_name)
        runtime.configure(self.threads, where)
        return where

    def images(self, dataset: str, split: str) -> ImageSet:
        """A split, on the CPU. Says so when it has to be fetched."""
        if not data.present(dataset, self.data_root):
            self.report.note(f"{dataset} is not in {self.data_root}: fetching it")
        return data.load(dataset, split, self.data_root)

    def fingerprint(self, dataset: str, *, fresh: bool = False) -> str:
        """The fingerprint of a data set: computed once and kept beside the store until its files change."""
        path = self.store.root / "datasets" / f"{data.info(dataset).name}.json"
        now = data.stamp(dataset, self.data_root)
        if now and not fresh:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                kept = json.loads(path.read_text())
                if kept["stamp"] == now:
                    return str(kept["fingerprint"])
        if not data.present(dataset, self.data_root):
            self.report.note(f"{dataset} is not in {self.data_root}: fetching it")
        value = data.fingerprint(dataset, self.data_root)
        now = data.stamp(dataset, self.data_root)
        self.store.write(path, json.dumps({"fingerprint": value, "stamp": now}).encode())
        return value


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
    def digest(self) -> str:
        """The digest of the weights that are meant."""
        return str(self.record["digests"][self.which])

    def lineage(self) -> dict[str, Any]:
        """What is written down of it in things made from it."""
        adversary = (self.record.get("settings") or {}).get("adversary")
        against = {"trained_against": adversary["threat"]} if adversary else {}
        elsewhere = {} if self.stored else {"path": str(self.path.absolute())}
        return {
            "name": self.name,
            "weights": self.which,
            "digest": self.digest,
            "arch": self.arch,
            **against,
            **elsewhere,
        }


def resolve_path(session: Session, ref: str, kinds: tuple[str, ...], suffixes: tuple[str, ...]) -> tuple[str, Path]:
    """(label, path) of what `ref` names: a file, or an artifact of `kinds`. Says on stderr what it came to."""
    if os.sep in ref or ref.endswith(suffixes):
        path = Path(ref).expanduser()
        if path.is_file():
            return path.name, path
        if os.sep in ref:
            raise NotFoundError(f"there is no file {path}", "see advmix store list")
    for suffix in suffixes:
        ref = ref.removesuffix(suffix)
    kind, name = session.store.resolve(ref, kinds)
    if name != ref:
        session.report.note(f"{ref} is {name}")
    return (ref if ref in session.store.refs() else name), session.store.path(kind, name)


def resolve_models(session: Session, refs: list[str]) -> list[ModelRef]:
    """The models that `refs` name; one with a `*` names all aliases of that pattern, in their order."""
    found: list[ModelRef] = []
    for ref in refs:
        if "*" not in ref:
            found.append(resolve_model(session, ref))
            continue
        pattern, at, which = ref.partition("@")
        aliases = sorted(alias for alias, (kind, _) in session.store.refs().items() if kind == "checkpoints")
        named = [alias for alias in aliases if fnmatch.fnmatchcase(alias, pattern)]
        if not named:
            raise NotFoundError(f"no alias of a checkpoint is like {pattern!r}", "see advmix store list")
        found += [resolve_model(session, alias + at + which) for alias in named]
    return found


def resolve_model(session: Session, ref: str) -> ModelRef:
    """The model that `ref` names, verified. Raises NotFoundError, DamagedError or UsageError (a file of others)."""
    base, at, which = ref.rpartition("@")
    if which not in WEIGHTS or not at:
        base, which = ref, "best"
    label, path = resolve_path(session, base, ("checkpoints",), (".safetensors",))
    record = artifacts.checkpoint_record(path)
    stored = session.store.root in path.absolute().parents
    return ModelRef(label + (f"@{which}" if which == "last" else ""), path, which, record, stored)


def history(checkpoint: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a training run, an epoch each, as the checkpoint's record knows them.

    Raises NotFoundError when the file beside the checkpoint is gone, DamagedError when it is another.
    """
    path = checkpoint.with_name(checkpoint.name.removesuffix(".safetensors") + ".history.jsonl")
    again = "train again with the same command and --force"
    try:
        content = path.read_bytes()
    except OSError:
        raise NotFoundError(f"the history {path} is gone", again) from None
    if hashlib.sha256(content).hexdigest() != record["history_sha256"]:
        raise DamagedError(f"{path} is damaged: not what was written", again)
    return [json.loads(line) for line in content.splitlines()]


def load_model(model: ModelRef, device: torch.device | str) -> nn.Sequential:
    """The model with its weights, on a device, in eval mode. Raises DamagedError when they do not fit."""
    from advmix_cli import models

    built = models.build(model.arch)
    try:
        built.load_state_dict(artifacts.checkpoint_weights(model.path, model.which))
    except RuntimeError as error:
        raise DamagedError(
            f"{model.path} does not hold the weights of a {model.arch}", str(error).splitlines()[-1].strip()
        ) from None
    return built.to(device).eval()


def made_with() -> dict[str, str]:
    """The versions that stand in every record."""
    import importlib.metadata

    return {"advmix": __version__, "torch": importlib.metadata.version("torch")}


def make_once(
    session: Session,
    kind: str,
    name: str,
    key: str,
    read: Callable[[Path], dict[str, Any] | None],
    make: Callable[[], None],
) -> tuple[dict[str, Any], bool]:
    """(record, cached) of the artifact `name`: what the store has, else what `make` writes there, under its lock.

    With --force it is made in any case. A damaged artifact is an error rather than silently made again.
    """
    path = session.store.path(kind, name)

    def stored() -> dict[str, Any] | None:
        if session.force or not path.exists():
            return None
        record = read(path)
        if record is None or record.get("key") != key:
            raise DamagedError(f"{path} is not what its name says", "remove it (advmix store remove) or use --force")
        return record

    record = stored()
    cached = record is not None
    if record is None:
        waiting = f"another process is making {name}: waiting for it"
        with session.store.lock(name, on_wait=lambda: session.report.note(waiting)):
            record = stored()
            cached = record is not None
            if record is None:
                make()
                record = read(path)
    if record is None:
        raise AdvmixError(f"{path} was not written", "try again with --force")
    session.store.set_latest(kind, name)
    return record, cached


def set_alias(session: Session, alias: str | None, kind: str, name: str) -> None:
    """Let `alias` (None: nothing) name the artifact, saying so when it named another."""
    if alias is None:
        return
    before = session.store.refs().get(alias)
    if before is not None and before != (kind, name):
        session.report.note(f"{alias} named {before[1]} and now names {name}")
    session.store.set_ref(alias, kind, name)


def quoted(alias: str | None, name: str) -> str:
    """How hints call an artifact."""
    return alias or name
