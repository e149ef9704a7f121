"""Names, refs and records of any content: what is accepted works and stays where it belongs, the rest is said."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from hostile import ESCAPES, held
from hostile_records import VALUES, no_records, sealed
from hypothesis import example, given, settings
from hypothesis import strategies as st

from advmix_cli import artifacts
from advmix_cli.errors import AdvmixError, UsageError
from advmix_cli.store import SUFFIXES, Store, check_alias

KINDS = tuple(SUFFIXES)
PLAUSIBLE = st.text("abcXYZ019._-@/~\\ \n\t*?[]$", min_size=1, max_size=12)
ODD = st.sampled_from(
    [
        "", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "~", "~root", "-", "--", "-x", "a\0b", "a\nb", "a b", "*",
        "latest", "untrained", "latest@checkpoints", "x.safetensors", "x.pt", "x" * 100, "x" * 101, "x" * 300, ESCAPES,
        "\u202egpj", "é", "\ud800", "٣", "ﬁ", "a.", "a..b", "a.tmp-b", ".tmp-a", "con", "nul", "0", "a@last", "a@best",
    ]
)  # fmt: skip
NAMES = st.one_of(st.text(max_size=20), PLAUSIBLE, ODD, st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,120}\Z"))
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
    | st.sampled_from([2, "2", 2.0, 10**400, "checkpoint", "samples", "evaluation"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["schema", "kind", "name", "key", "digest"]) | st.text(), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


def new_store(folder: Path) -> Store:
    return Store(Path(tempfile.mkdtemp(dir=folder)) / "store")


def everything(root: Path) -> set[Path]:
    return {path for path in root.parent.rglob("*") if path.is_file()}


@settings(max_examples=150, deadline=None)
@given(alias=NAMES)
def test_a_name_that_is_accepted_works_and_stays_in_its_folder(folder: Path, alias: str) -> None:
    store = new_store(folder)
    store.write(store.path("checkpoints", "model"), b"x")
    before = everything(store.root)
    try:
        accepted = check_alias(alias) == alias
    except UsageError:
        with pytest.raises(AdvmixError):
            store.set_ref(alias, "checkpoints", "model")
        assert everything(store.root) == before
        return
    assert accepted
    store.set_ref(alias, "checkpoints", "model")
    written = everything(store.root) - before
    assert written == {store.root / "refs" / alias}
    assert store.refs() == {alias: ("checkpoints", "model")}
    assert store.resolve(alias, ("checkpoints",)) == ("checkpoints", "model")
    assert not store.leftovers()
    store.delete(store.root / "refs" / alias)
    assert everything(store.root) == before


@settings(max_examples=150, deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.builds(lambda kind, name: f"{kind}/{name}".encode("utf-8", "surrogatepass"), st.sampled_from(KINDS), NAMES),
        st.builds(lambda n: b"checkpoints/" + b"../" * n + b"outside", st.integers(1, 6)),
        st.sampled_from([b"checkpoints/" + b"x" * 300, b"checkpoints/" + b"x/" * 3000, b"\xff\xfe", b"checkpoints/\0"]),
    ),
    kind=st.sampled_from(KINDS),
)
@example(content=b"checkpoints/../../outside", kind="checkpoints")
@example(content=b"checkpoints/" + b"x" * 300, kind="checkpoints")
def test_a_ref_of_any_content_leads_to_what_is_in_the_store_or_nowhere(folder: Path, content: bytes, kind: str) -> None:
    store = new_store(folder)
    (refs := store.root / "refs").mkdir(parents=True)
    for each, suffixes in SUFFIXES.items():
        store.path(each, "there").parent.mkdir()
        for path in (store.path(each, "there"), store.root.parent / f"outside{suffixes[0]}"):
            path.write_bytes(b"x")
    for name in ("mine", *(f"latest@{each}" for each in KINDS)):
        (refs / name).write_bytes(content)
    store.refs()
    store.leftovers()
    for ref in ("mine", "latest", "there", "the", "other", ""):
        for kinds in ((kind,), KINDS):
            try:
                found = store.resolve(ref, kinds)
            except AdvmixError:
                continue
            assert found[0] in kinds
            path = store.path(*found)
            assert path.parent == store.root / found[0]
            assert path.is_file()


@settings(max_examples=150, deadline=None)
@given(ref=NAMES, kind=st.sampled_from(KINDS))
def test_a_reference_of_any_content_leads_to_what_is_in_the_store_or_nowhere(folder: Path, ref: str, kind: str) -> None:
    store = new_store(folder)
    store.write(store.path(kind, "there"), b"x")
    try:
        found = store.resolve(ref, (kind,))
    except AdvmixError:
        return
    assert found == (kind, "there")


@settings(max_examples=400, deadline=None)
@given(record=VALUE)
@example(record=[])
@example(record=None)
@example(record={"schema": 2})
@example(record={"schema": True, "kind": []})
def test_a_record_of_any_content_is_given_or_refused(record: Any) -> None:
    try:
        found = artifacts.unseal(sealed(record), Path("theirs"))
    except AdvmixError:
        return
    assert found == record
    assert isinstance(found, dict)


@settings(max_examples=150, deadline=None)
@given(
    text=st.one_of(
        st.text(), st.binary(), VALUE.map(json.dumps),
        st.builds(lambda a, b: json.dumps({"record": a, "sha256": b}), VALUE, VALUE),
        st.sampled_from(["[" * 200_000, '{"record": ' + "[" * 200_000, '{"record": 1e999, "sha256": ""}', "9" * 9999]),
    )
)  # fmt: skip
def test_a_text_of_any_content_is_no_record(text: str | bytes) -> None:
    with pytest.raises(AdvmixError):
        artifacts.unseal(text, Path("theirs"))


def test_what_is_no_record_is_refused() -> None:
    for what, value in [*no_records(), *((str(each)[:20], each) for each in VALUES)]:
        try:
            found = artifacts.unseal(sealed(value), Path("theirs"))
        except AdvmixError:
            continue
        assert isinstance(found, dict), what


def test_a_name_of_any_content_ends_in_words(trained: Path, advmix: Run) -> None:
    for turn, name in enumerate((
        "", ".", "..", "../x", "/etc/passwd", "a/b", "~nobody-here/x", "-", "a\0b", "a\nb", "*", "[", "x" * 300,
        ESCAPES, "x/" * 3000, "/dev/zero", "\udcff", "\u202egpj.exe", "latest@checkpoints",
        "x" * 300 + ".pt", "/" + "x" * 300 + ".safetensors", "\0.safetensors", "\x1b[31m/x.pt",
    )):  # fmt: skip
        for number, line in enumerate((
            "store show", "store path", "store verify", "store remove -y", "eval --limit 3", "attack --limit 3",
            "eval a --limit 3 --samples", "visualize matrix", "visualize curves", "visualize samples",
            "advtrain --limit 60 --epochs 1 --init", "import --dataset glyphs --arch lenet5",
            "attack a --limit 3 --steps 1 --name", "import --arch lenet5 --dataset", "eval a --limit 3 --dataset",
        )):  # fmt: skip
            if (turn + number) % 2:
                continue
            given = [*line.split(), name] if not name.startswith("-") else [*line.split(), f"./{name}"]
            held(advmix(*given), {0, 2, 3, 4}, f"{line} {name!r}")
    assert {path.name for path in (trained / "refs").iterdir() if "@" not in path.name} == {"a", "b", "pa"}
