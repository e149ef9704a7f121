"""Bytes, names, locks and references, also when things go wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advmix_cli import files
from advmix_cli.errors import AdvmixError, DamagedError, LockedError, NotFoundError, UsageError
from advmix_cli.settings import SCHEMA
from advmix_cli.store import Store, check_alias

NAMES = st.text("abcdef0123456789-.", min_size=1, max_size=12).filter(lambda name: name[0] not in ".-")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, *names: str, kind: str = "checkpoints") -> None:
    for name in names:
        store.write(store.path(kind, name), b"x")


def test_nothing_is_created_before_the_first_write(store: Store) -> None:
    assert store.names("checkpoints") == []
    assert store.refs() == {}
    assert store.leftovers() == {}
    assert not store.root.exists()


def test_a_write_is_whole_or_not_at_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store.write(store.path("samples", "a"), b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AdvmixError, match="No space left") as error:
        store.write(path, b"new")
    assert error.value.code == "disk-full"
    assert "prune" in error.value.hint
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["a.pt"]


def test_a_store_of_another_schema_is_refused_with_what_to_do(store: Store) -> None:
    store.check_schema()
    put(store, "a")
    assert (store.root / "schema").read_text() == f"{SCHEMA}\n"
    store.check_schema()
    for found in ("1\n", "99\n", "two\n", ""):
        (store.root / "schema").write_text(found)
        with pytest.raises(DamagedError, match=f"reads {SCHEMA}") as error:
            store.check_schema()
        assert (error.value.code, error.value.exit_code) == ("unknown-schema", 4)
        assert "ADVMIX_HOME" in error.value.hint
        assert "mv " in error.value.hint
    (store.root / "schema").unlink()
    with pytest.raises(DamagedError, match="has the schema 1"):
        store.check_schema()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AdvmixError, match="cannot write") as error:
        put(Store(tmp_path / "file" / "store"), "a")
    assert "ADVMIX_HOME" in error.value.hint


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX resource limits")
@pytest.mark.parametrize(
    "data",
    [
        "b'x' * 5000",
        "artifacts.samples_writer(torch.zeros(9, 1, 28, 28), torch.zeros(9).long(), torch.arange(9), {})",
    ],
)
def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path: Path, data: str) -> None:
    """A limit on file sizes fails the write in its middle, as a full disk does."""
    code = (
        "import resource, sys, signal, torch; from pathlib import Path; from advmix_cli import artifacts\n"
        "from advmix_cli.store import Store\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"store = Store(Path(sys.argv[1])); store.write(store.path('samples', 'a'), {data})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "cannot write" in done.stderr
    assert list((tmp_path / "samples").iterdir()) == []


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, min_size=1, max_size=6, unique=True), pick=st.integers(0, 5))
def test_names_and_unique_prefixes_resolve(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], pick: int
) -> None:
    store = Store(tmp_path_factory.mktemp("s"))
    put(store, *names)
    assert sorted(store.names("checkpoints")) == sorted(names)
    name = names[pick % len(names)]
    assert store.resolve(name, ("checkpoints",)) == ("checkpoints", name)
    prefix = next(
        name[:i] for i in range(1, len(name) + 1) if sum(n.startswith(name[:i]) for n in names) == 1 or i == len(name)
    )
    assert store.resolve(prefix, ("checkpoints",)) == ("checkpoints", name)


def test_references(store: Store) -> None:
    put(store, "mnist-a-11", "mnist-a-22", "mnist-b-33")
    store.set_ref("vanilla", "checkpoints", "mnist-a-11")
    assert store.resolve("vanilla", ("checkpoints",)) == ("checkpoints", "mnist-a-11")
    with pytest.raises(NotFoundError, match="ambiguous") as ambiguous:
        store.resolve("mnist-a", ("checkpoints",))
    assert "mnist-a-11, mnist-a-22" in ambiguous.value.hint
    assert "mnist-b" not in ambiguous.value.hint
    with pytest.raises(NotFoundError) as unknown:
        store.resolve("vanila", ("checkpoints",))
    assert "vanilla" in unknown.value.hint
    with pytest.raises(NotFoundError, match="empty"):
        store.resolve("", ("checkpoints",))
    with pytest.raises(NotFoundError, match="not a sample cache"):
        store.resolve("vanilla", ("samples",))
    store.delete(store.path("checkpoints", "mnist-a-11"))
    with pytest.raises(NotFoundError, match="gone"):
        store.resolve("vanilla", ("checkpoints",))


def test_latest_is_what_a_command_last_gave(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint in the store"):
        store.resolve("latest", ("checkpoints",))
    put(store, "a", "b")
    os.utime(store.path("checkpoints", "a"), (1, 1))
    assert store.latest(("checkpoints",)) == ("checkpoints", "b")
    put(store, "s", kind="samples")
    store.set_latest("samples", "s")
    assert store.resolve("latest", ("checkpoints", "samples")) == ("samples", "s")
    store.set_latest("checkpoints", "a")  # answered from the cache
    assert store.latest(("checkpoints",)) == ("checkpoints", "a")
    store.delete(store.path("checkpoints", "a"))
    assert store.latest(("checkpoints",)) == ("checkpoints", "b")


@pytest.mark.parametrize(
    "alias", ["", "latest", "a/b", "../x", "-x", "a@best", "a b", "x" * 101, ".hidden", "untrained", "a.pt"]
)
def test_names_that_cannot_be_aliases(alias: str) -> None:
    with pytest.raises(UsageError):
        check_alias(alias)


@pytest.fixture(params=["system", "lease"])
def locks(request: pytest.FixtureRequest, store: Store) -> None:
    """The store has these."""
    if request.param == "lease":
        store.write(store.locks.marker, b"")


@pytest.mark.usefixtures("locks")
def test_a_lock_is_exclusive_says_so_and_waits(store: Store) -> None:
    waited: list[str] = []
    order: list[str] = []

    def second() -> None:
        with store.lock("key", on_wait=lambda: waited.append("yes")):
            order.append("second")

    with store.lock("key"):
        with pytest.raises(LockedError):
            store.lock("key").__enter__()
        other = threading.Thread(target=second)
        other.start()
        while not waited:
            pass
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]


@contextlib.contextmanager
def held_elsewhere(store: Store) -> Iterator[subprocess.Popen[str]]:
    """Another process holds `key`, until it is killed."""
    code = (
        "import sys, time; from pathlib import Path; from advmix_cli import locks; from advmix_cli.store import Store\n"
        "store, locks.LEASE_S = Store(Path(sys.argv[1])), float(sys.argv[2])\n"
        "with store.lock('key'): print('held', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, str(store.root), str(LEASE_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
        holder.kill()


LEASE_S = 2.0


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases soon run out."""
    monkeypatch.setattr("advmix_cli.locks.LEASE_S", LEASE_S)


@pytest.mark.usefixtures("locks", "short")
def test_a_killed_holder_frees_the_lock_and_its_leftovers_go(store: Store) -> None:
    stray = store.root / "samples" / ".tmp-key.pt"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"half")
    with held_elsewhere(store) as holder:
        with pytest.raises(LockedError):
            store.lock("key").__enter__()
        holder.kill()
        holder.wait()
        with store.lock("key", on_wait=lambda: None):
            assert not stray.exists()


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.usefixtures("short")
def test_a_lease_that_nobody_renews_is_taken_over(waits: bool, store: Store) -> None:
    """By who waits for it, and by who tries again and again."""
    store.write(store.locks.marker, b"")
    with held_elsewhere(store) as holder:
        for _ in range(3):
            with pytest.raises(LockedError):
                store.lock("key").__enter__()
        holder.send_signal(signal.SIGSTOP)  # as good as a machine that nobody hears of
        while True:
            with contextlib.suppress(LockedError), store.lock("key", on_wait=(lambda: None) if waits else None):
                break


def test_leftovers_are_what_interrupted_work_left(store: Store) -> None:
    put(store, "a")
    store.set_ref("good", "checkpoints", "a")
    store.set_ref("dangling", "checkpoints", "gone")
    store.write(store.unfinished_piece("b", 0), b"state")
    (store.root / "samples").mkdir()
    (store.root / "samples" / ".tmp-c.pt").write_bytes(b"half")
    assert {path.name for path in store.leftovers()} == {"dangling", "b.000000.pt", ".tmp-c.pt"}
    assert store.names("samples") == []


def test_only_its_own_files_are_the_stores(store: Store, tmp_path: Path) -> None:
    put(store, "a")
    own = store.path("checkpoints", "a")
    assert store.owns(own) == ("checkpoints", "a")
    (tmp_path / "link").symlink_to(store.root)
    assert store.owns(tmp_path / "link/checkpoints" / own.name) == ("checkpoints", "a")
    for elsewhere in (tmp_path / own.name, store.root / own.name, store.root / "samples" / own.name):
        assert store.owns(elsewhere) is None


def test_what_is_being_written_is_let_be_and_a_stray_is_written_over(store: Store) -> None:
    put(store, "a")
    path = store.path("checkpoints", "b")
    stray = path.with_name(files.TEMPORARY + path.name)
    stray.write_bytes(b"of a killed writer, and longer")
    with files.replacing(path) as file:
        file.write(b"new")
        files.clear(stray)
        assert stray.exists()
    assert path.read_bytes() == b"new"
    stray.write_bytes(b"half")
    files.clear(stray)
    assert not stray.exists()


@pytest.mark.parametrize("where", ["_lock", "_is_there"])
def test_ctrl_c_before_the_first_byte_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    real = getattr(files, where)
    turns = iter([True, False])

    def stopped(*given: object, **more: object) -> bool:
        if next(turns, False):
            raise KeyboardInterrupt
        return bool(real(*given, **more))

    monkeypatch.setattr(files, where, stopped)
    with pytest.raises(KeyboardInterrupt), files.replacing(tmp_path / "a.pt"):
        pass
    assert not list(tmp_path.iterdir())


def test_refs_stay_inside(store: Store) -> None:
    put(store, "a")
    store.set_ref("x", "checkpoints", "a")
    for content in (
        "checkpoints/../samples/a",
        "checkpoints/a/../../x",
        "checkpoints/.tmp-a",
        "../checkpoints/a",
        "a",
        "x" * 5000,
    ):
        (store.root / "refs/x").write_text(content)
        assert store.refs() == {}
        assert store.no_use(store.root / "refs/x") == "leads nowhere"


def test_a_ref_that_cannot_be_read_is_no_ref_that_leads_nowhere(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "a")
    store.set_ref("x", "checkpoints", "a")

    def broken(path: Path, most: int = 0) -> bytes:
        raise AdvmixError("cannot read", code="unreadable")

    monkeypatch.setattr(files, "read", broken)
    with pytest.raises(AdvmixError, match="cannot read"):
        store.leftovers()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_only_regular_files_are_read_and_none_beyond_its_bound(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 11)
    for name in ("pipe", "large", "."):
        with pytest.raises(DamagedError):
            files.read(tmp_path / name, 10)
    for name in ("none", "x" * 300, "a\0b"):
        with pytest.raises(NotFoundError):
            files.read(tmp_path / name)
