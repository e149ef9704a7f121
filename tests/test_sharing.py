"""Artifacts elsewhere and back: a folder, memory, one file, and a real S3 protocol on the loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY, Run
from test_world import free_port

from advmix_cli import remote
from advmix_cli.errors import AdvmixError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model, attacked images and an evaluation of both."""
    place = tmp_path_factory.mktemp("whole")
    for command in (("train", *TINY, "--name", "m"), ("attack", "m", "--limit", "6", "--steps", "2", "--name", "s"),
                    ("eval", "m", "--samples", "s")):  # fmt: skip
        given = os.environ | {"ADVMIX_HOME": str(place)}
        subprocess.run([sys.executable, "-m", "advmix_cli", *command], env=given, check=True, capture_output=True)
    return place


@pytest.fixture
def made(whole: Path, home: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(whole, home)
    return home


def name(home: Path, kind: str) -> str:
    (found,) = (path.stem for path in (home / kind).glob("[!.]*"))
    return found


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path) -> Path:
    """A second machine's empty store."""
    place = tmp_path / "other"
    monkeypatch.setenv("ADVMIX_HOME", str(place))
    return place


def at(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("ADVMIX_HOME", str(home))


@pytest.fixture
def pushed(made: Path, other: Path, advmix: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A folder's URL, and the model that was pushed there; the second machine is the one that is used."""
    url, model = f"file://{tmp_path}/shared", name(made, "checkpoints")
    at(monkeypatch, made)
    assert advmix("store", "push", model, url).code == 0
    at(monkeypatch, other)
    return url, model


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server, and a bucket in it."""
    pytest.importorskip("moto", reason="moto's S3 server is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    given = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1",
             "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
    before = {each: os.environ.get(each) for each in given}
    os.environ.update(given)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(url, timeout=1).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT"), timeout=10).close()
        yield "s3://bucket/advmix"
    finally:
        server.kill()
        server.wait()
        for each, value in before.items():
            os.environ.pop(each) if value is None else os.environ.update({each: value})


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "s3":
        yield f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    elif request.param == "file":
        yield f"file://{tmp_path}/shared"
    else:
        yield f"memory://{tmp_path.name}"


def test_what_was_computed_here_is_answered_there(
    url: str, made: Path, other: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, made)
    evaluation, model = name(made, "evaluations"), name(made, "checkpoints")
    dry = advmix("store", "push", evaluation, url, "--dry-run", "--json")
    assert {each["done"] for each in dry.data["files"]} == {"would be sent"}
    sent = advmix("store", "push", evaluation, url, "--json")
    assert sent.code == 0, sent.err
    assert [each["kind"] for each in sent.data["files"]] == ["checkpoint", "sample cache", "evaluation"]
    again = advmix("store", "push", url, "--json")
    assert {each["done"] for each in again.data["files"]} == {"there"}

    at(monkeypatch, other)
    assert advmix("store", "pull", evaluation, url, "--dry-run").code == 0
    assert not other.exists()
    pulled = advmix("store", "pull", evaluation[:-3], url, "--json")
    assert pulled.code == 0, pulled.err
    assert {each["done"] for each in pulled.data["files"]} == {"fetched"}
    assert advmix("store", "verify").code == 0
    answer = advmix("eval", model, "--samples", name(made, "samples"), "--json")
    assert answer.data["cached"] is True
    assert {each["done"] for each in advmix("store", "pull", url, "--json").data["files"]} == {"here"}


def test_both_have_all_in_the_end(
    url: str, made: Path, other: Path, advmix: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, made)
    assert advmix("store", "push", name(made, "samples"), url).code == 0
    at(monkeypatch, other)
    assert advmix("train", *TINY, "--seed", "1").code == 0
    synced = advmix("store", "sync", url, "--json")
    assert sorted(each["done"] for each in synced.data["files"]) == ["fetched", "fetched", "sent", "there", "there"]
    at(monkeypatch, made)
    assert advmix("store", "pull", url).code == 0
    assert len(list((made / "checkpoints").iterdir())) == 2


def test_a_flipped_byte_there_is_refused(pushed: tuple[str, str], other: Path, advmix: Run, tmp_path: Path) -> None:
    url, model = pushed
    (stored,) = (tmp_path / "shared" / "objects").iterdir()
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)
    refused = advmix("store", "pull", model, url)
    assert refused.code == 4
    assert "damaged there" in refused.err
    assert not list(other.glob("checkpoints/*"))


@pytest.mark.parametrize(
    ("what", "value", "why"),
    [
        ("sha256", "0" * 64, "is not in"),
        ("sha256", "../../x", "does not say"),
        ("bytes", 3, "larger than it says"),
        ("bytes", -1, "does not say"),
        ("file", "../x.safetensors", "does not say"),
        ("name", "another", "does not say"),
        ("needs", 3, "damaged"),
        ("kind", "refs", "does not say"),
    ],
)
def test_what_a_name_claims_there_is_checked(
    what: str, value: object, why: str, pushed: tuple[str, str], other: Path, advmix: Run, tmp_path: Path
) -> None:
    url, model = pushed
    (said,) = (tmp_path / "shared" / "names" / "checkpoints").iterdir()
    said.write_text(json.dumps(json.loads(said.read_text()) | {what: value}))
    refused = advmix("store", "pull", model, url)
    assert refused.code in (3, 4)
    assert why in refused.err
    assert not list(other.glob("checkpoints/*"))


def test_an_upload_that_was_cut_off_is_not_seen(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = remote.to(f"file://{tmp_path}/shared")
    path = next((made / "checkpoints").iterdir())
    entry, data = remote.described("checkpoints", path.stem, path, ())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "hardlink_to", lambda self, other: (_ for _ in ()).throw(OSError("the power fails")))
        with pytest.raises(AdvmixError, match="power"):
            remote.put(place, entry, data)
    assert remote.entries(place) == []
    assert place.size(f"objects/{entry.sha256}") is None
    place.create(f"objects/{entry.sha256}", data)  # cut off between the object and its name
    assert remote.entries(place) == []
    assert remote.put(place, entry, data)
    assert remote.entries(place) == [entry]


def test_what_is_there_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it came between the look and the writing."""
    place = remote.to(f"file://{tmp_path}/shared")
    assert place.create("objects/x", b"first")
    monkeypatch.setattr(type(place), "size", lambda self, path: None)
    assert not place.create("objects/x", b"second")
    assert place.read("objects/x", 100) == b"first"


def test_two_at_once_make_one(url: str, made: Path) -> None:
    path = next((made / "checkpoints").iterdir())
    entry, data = remote.described("checkpoints", path.stem, path, ())
    found: list[object] = []

    def push() -> None:
        try:
            found.append(remote.put(remote.to(url), entry, data))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(each, bool) for each in found), found
    assert True in found
    assert remote.entries(remote.to(url)) == [entry]
    assert remote.get(remote.to(url), entry) == data


def test_one_file_for_a_colleague(
    made: Path, other: Path, advmix: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "for-you.advmix"
    at(monkeypatch, made)
    evaluation = name(made, "evaluations")
    written = advmix("store", "export", evaluation, file, "--json")
    assert written.code == 0, written.err
    assert len(written.data["files"]) == 3
    assert advmix("store", "export", file).code == 2
    at(monkeypatch, other)
    taken = advmix("store", "import", file, "--json")
    assert {each["done"] for each in taken.data["files"]} == {"fetched"}
    assert advmix("store", "verify").code == 0
    assert advmix("store", "show", evaluation).code == 0


def test_files_that_are_no_exports(home: Path, advmix: Run, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no archive")
    assert advmix("store", "import", text).code == 4
    assert advmix("store", "import", tmp_path / "nothing").code == 3
    empty = tmp_path / "empty.zip"
    zipfile.ZipFile(empty, "w").close()
    assert advmix("store", "import", empty).code == 0
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("names/checkpoints/x.safetensors.json", "{}")
    assert advmix("store", "import", bad).code == 4


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("push", "folder"), 2, "is no URL"),
        (("push", "nowhere://x"), 2, "cannot be reached"),
        (("push", "none", "memory://a"), 3, "no"),
        (("push", "memory://a"), 3, "is empty"),
        (("pull", "none", "memory://nothing"), 3, "is not there"),
        (("push",), 2, ""),
    ],
)
def test_bad_calls(arguments: tuple[str, ...], code: int, why: str, home: Path, advmix: Run) -> None:
    told = advmix("store", *arguments)
    assert told.code == code, told.err
    assert why in told.err


def test_a_name_with_other_bytes_is_kept(pushed: tuple[str, str], advmix: Run) -> None:
    url, model = pushed
    assert advmix("train", *TINY).code == 0  # the same weights, made at another time
    kept = advmix("store", "push", model, url, "--json")
    assert kept.code == 0
    assert kept.data["files"][0]["done"].startswith("there")


def test_what_is_named_alone_is_synced(pushed: tuple[str, str], made: Path, advmix: Run) -> None:
    """Also where it is here already: what else is there stays there."""
    url, model = pushed
    assert advmix("store", "pull", model, url).code == 0
    assert advmix("train", *TINY, "--seed", "1", "--name", "own").code == 0
    for dry in ((), ("--dry-run",)):
        synced = advmix("store", "sync", "own", url, *dry, "--json")
        assert synced.code == 0, synced.err
        assert [each["done"] for each in synced.data["files"]] == ["there" if dry else "sent"]
