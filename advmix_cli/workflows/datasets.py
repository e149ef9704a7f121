"""The data sets of a session: what they are, their images, and the fingerprints that keys are made from."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from advmix_cli import artifacts, data, files
from advmix_cli.data import DatasetInfo
from advmix_cli.errors import AdvmixError, DamagedError
from advmix_cli.names import kind_of, short_name
from advmix_cli.results import counted, shown
from advmix_cli.settings import SCHEMA, digest

if TYPE_CHECKING:
    from advmix_cli.data import ImageSet
    from advmix_cli.judging import HeldOut
    from advmix_cli.workflows.session import Session


@dataclasses.dataclass(frozen=True)
class Opened:
    """A data set, the fingerprint of its images, and where they lie prepared; None for one that is known by name."""

    info: DatasetInfo
    fingerprint: str
    path: Path | None = None


def opened(session: Session, name: str, *, fresh: bool = False) -> Opened:
    """The set of that full name; another's is prepared where it has not been, or has changed. `fresh`: in any case."""
    known = session.opened
    if fresh or name not in known:
        find = _known if kind_of(name) == "named" else _prepared
        if session.ranks.first:
            known[name] = find(session, name, fresh)
        session.ranks.agreed(lambda: None)  # the first prepares what is not there
        if not session.ranks.first:
            known[name] = find(session, name, False)
    return known[name]


def about(session: Session, name: str) -> DatasetInfo:
    """What is known of the set; of one that is known by name without a look at its files."""
    return data.info(name) if kind_of(name) == "named" else opened(session, name).info


def images(session: Session, name: str, split: str, held: HeldOut | None = None) -> ImageSet:
    """A split, or what a run held out, on the CPU. Says so when it has to be fetched or prepared."""
    if held is not None:
        from advmix_cli.splitting import held_out

        return held_out(images(session, name, "train"), held)
    if kind_of(name) == "named":
        _say_fetching(session, name)
        return data.load(name, split, session.data_root)
    from advmix_cli.data import prepared

    found = opened(session, name)
    assert found.path is not None
    return prepared.load(found.path, found.info, split)


def record_path(session: Session, name: str) -> Path:
    """Where what is known of a set is kept."""
    if kind_of(name) == "named":
        return session.store.root / "datasets" / f"{name}.json"
    return session.store.root / "datasets" / f"{short_name(name)}-{digest(name)[:8]}.json"


def _known(session: Session, name: str, fresh: bool) -> Opened:
    info, path, root = data.info(name), record_path(session, name), session.data_root
    now = data.stamp(name, root)
    if now and not fresh:
        with contextlib.suppress(AdvmixError):
            kept = record(path)
            if kept["kind"] == "fingerprint" and kept["stamp"] == now:
                return Opened(info, str(kept["fingerprint"]))
    _say_fetching(session, name)
    value = data.fingerprint(name, root)
    content = {"schema": SCHEMA, "kind": "fingerprint", "name": name, "fingerprint": value}
    with contextlib.suppress(AdvmixError):  # a store may be read alone; then it is computed each time
        session.store.write(path, artifacts.sealed(content | {"stamp": data.stamp(name, root)}).encode())
    return Opened(info, value)


def _say_fetching(session: Session, name: str) -> None:
    if not data.present(name, session.data_root):
        session.report.note(f"{name} is not in {session.data_root}: fetching it")


def _prepared(session: Session, name: str, fresh: bool) -> Opened:
    from advmix_cli.data import prepared

    path = record_path(session, name)
    images = path.with_suffix(".images")

    def kept() -> Opened | None:
        if not fresh:
            with contextlib.suppress(AdvmixError):
                found = record(path)
                same = found["kind"] == "dataset" and found["stamp"] == now and found["name"] == name
                if same and prepared.whole(images, found):
                    if found["skipped"]:
                        session.report.note(
                            f"left out of {shown(name)}: {counted(found['skipped'], 'damaged picture')}"
                        )
                    return Opened(prepared.info_of(found), found["fingerprint"], images)
        return None

    now = prepared.stamp(name, session.data_root)
    found = kept()
    if found is None:
        waiting = f"another process is preparing {shown(name)}: waiting for it"
        with session.store.lock(path.stem, on_wait=lambda: session.report.note(waiting)):
            found = kept() or _prepare(session, name, path, images)
    return found


def _prepare(session: Session, name: str, path: Path, place: Path) -> Opened:
    from advmix_cli.data import prepared

    found = prepared.source(name, session.data_root)
    shape = prepared.fitting_shape(name, found)
    for note in found.notes:
        session.report.note(note)
    total = sum(len(labels) for labels in found.labels.values())
    session.store.folder(place.parent)
    try:
        with session.report.progress(f"preparing {short_name(name)}", total, "images") as progress:
            made, left_out = prepared.prepare(
                found, place, shape, skip_damaged=session.skip_damaged, on_images=progress
            )
    except OSError as error:
        raise files.cannot_write(place.parent, error) from error
    counts = f"{made['sizes']['train']} + {made['sizes']['test']} images of {len(made['classes'])} classes"
    size = "x".join(map(str, shape[1:]))
    resized = "" if found.native is not None and found.native[1:] == shape[1:] else "resized and cropped to "
    session.report.note(f"{shown(name)}: {counts}, {resized}{size}")
    for one in left_out[:3]:
        session.report.warn(f"{one.path} cannot be read: {one.reason}")
    if left_out:
        session.report.warn(f"left out of {shown(name)}: {counted(len(left_out), 'damaged picture')}")
    content = made | {
        "schema": SCHEMA, "kind": "dataset", "name": name, "title": counts, "stamp": found.stamp(),
        "skipped": len(left_out),
    }  # fmt: skip
    session.store.write(path, artifacts.sealed(content).encode())
    return Opened(prepared.info_of(content), content["fingerprint"], place)


def record(path: Path) -> artifacts.Record:
    """What is kept of a data set. Raises NotFoundError or DamagedError."""
    found = artifacts.unseal(files.read(path, artifacts.LARGEST), path)
    if found.get("kind") not in ("fingerprint", "dataset"):
        raise DamagedError(f"{path} is damaged: it is of no data set", "remove it")
    return artifacts.check(found, found["kind"], path)


def prepared_sets(session: Session) -> list[DatasetInfo]:
    """The sets of others that are prepared in the store, by name."""
    from advmix_cli.data import prepared

    found = []
    for path in sorted((session.store.root / "datasets").glob("[!.]*.json")):
        with contextlib.suppress(AdvmixError):
            kept = record(path)
            if kept["kind"] == "dataset":
                found.append(prepared.info_of(kept))
    return found


def verify(path: Path) -> None:
    """Read what is kept of a data set, and the images where they are prepared. Raises DamagedError."""
    from advmix_cli.data import prepared

    found, images = record(path), path.with_suffix(".images")
    if found["kind"] == "dataset" and not (
        prepared.whole(images, found) and prepared.fingerprint(images, found) == found["fingerprint"]
    ):
        raise DamagedError(f"{images} is damaged: not what was prepared", "remove it: it is made again")
