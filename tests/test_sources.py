"""Pictures of the user's own: what a file comes to, folders, arrays, torchvision's sets, and what is no such set."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from advmix_cli.data import decoding, others, source
from advmix_cli.data.arrays import arrays
from advmix_cli.data.decoding import Unreadable, decode, inspect, picture
from advmix_cli.data.folder import folder
from advmix_cli.data.others import torchvision_set
from advmix_cli.data.source import Damaged
from advmix_cli.errors import AdvmixError, DamagedError, NotFoundError, UnsafeError, UsageError

RNG = np.random.default_rng(0)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Uint8 (H,W) for one channel, else (H,W,C)."""
    shape = (height, width) if channels == 1 else (height, width, channels)
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def opened(path: Path) -> Image.Image:
    """A picture as Pillow opens it, with its file closed."""
    with Image.open(path) as image:
        image.load()
    return image


def nothing(count: int) -> None:
    """Nobody is told how many pictures came in."""


# One picture


def test_grey_of_all_kinds_is_grey(tmp_path: Path) -> None:
    grey = noise(5, 7, 1)
    two = np.where(grey > 127, 255, 0).astype(np.uint8)
    wide = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
    wide[0, :5] = 0, 128, 129, 65535, 65406
    narrowed = np.rint(wide / 257).astype(np.uint8)
    assert narrowed[0, :5].tolist() == [0, 0, 1, 255, 254]
    transparent = Image.merge("LA", (Image.fromarray(grey), Image.new("L", (7, 5), 0)))
    cases: list[tuple[str, Image.Image, str, np.ndarray]] = [
        ("l.png", Image.fromarray(grey), "L", grey),
        ("l.bmp", Image.fromarray(grey), "L", grey),
        ("l.pgm", Image.fromarray(grey), "L", grey),
        ("one.png", Image.fromarray(two).convert("1"), "1", two),
        ("la.png", transparent, "LA", grey),
        ("wide.png", Image.fromarray(wide), "I;16", narrowed),
        ("wide.tif", Image.fromarray(wide), "I;16", narrowed),
        ("wide.pgm", Image.fromarray(wide), "I", narrowed),
        ("int.tif", Image.fromarray(wide.astype(np.int32)), "I", narrowed),
    ]
    for name, image, mode, expected in cases:
        image.save(tmp_path / name)
        assert opened(tmp_path / name).mode == mode, name
        path = str(tmp_path / name)
        assert inspect(path) == (True, 5, 7), name
        one, three = picture(path, 1, (5, 7)), picture(path, 3, (5, 7))
        assert one.dtype == np.uint8
        assert np.array_equal(one, expected[None]), name
        assert np.array_equal(three, np.stack([expected] * 3)), name
    swapped = Image.frombytes("I;16B", (7, 5), wide.astype(">u2").tobytes())
    assert np.array_equal(picture(swapped, 1, (5, 7)), narrowed[None])


def test_colour_of_all_kinds_is_rgb_and_transparency_is_dropped(tmp_path: Path) -> None:
    colour = noise(5, 7)
    rgb = Image.fromarray(colour)
    clear = rgb.copy()
    clear.putalpha(0)
    palette = rgb.quantize(8)
    see_through = palette.copy()
    see_through.info["transparency"] = bytes(range(0, 240, 30))
    by_palette = np.asarray(palette.convert("RGB"))
    cases: list[tuple[str, Image.Image, str, np.ndarray]] = [
        ("rgb.png", rgb, "RGB", colour),
        ("rgb.ppm", rgb, "RGB", colour),
        ("rgb.tif", rgb, "RGB", colour),
        ("rgb.webp", rgb, "RGB", colour),
        ("rgba.png", clear, "RGBA", colour),
        ("p.png", palette, "P", by_palette),
        ("p-clear.png", see_through, "P", by_palette),
        ("cmyk.tif", rgb.convert("CMYK"), "CMYK", np.asarray(rgb.convert("CMYK").convert("RGB"))),
    ]
    for name, image, mode, expected in cases:
        image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
        assert opened(tmp_path / name).mode == mode, name
        path = str(tmp_path / name)
        assert inspect(path) == (False, 5, 7), name
        assert np.array_equal(picture(path, 3, (5, 7)), expected.transpose(2, 0, 1)), name
    for mode in ("YCbCr", "HSV", "PA"):
        image = palette.convert("PA") if mode == "PA" else rgb.convert(mode)
        assert np.array_equal(picture(image, 3, (5, 7)), np.asarray(image.convert("RGB")).transpose(2, 0, 1)), mode
    lab = Image.frombytes("LAB", (7, 5), noise(5, 7).tobytes())
    assert np.array_equal(picture(lab, 3, (5, 7)), np.asarray(lab.convert("RGB")).transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_pictures_are_turned_as_they_say(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{kind}", noise(16, 24), exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(opened(path)).convert("RGB"))
    assert expected.shape[:2] == ((16, 24) if orientation == 3 else (24, 16))
    assert inspect(str(path)) == (False, *expected.shape[:2])
    assert np.array_equal(picture(str(path), 3, expected.shape[:2]), expected.transpose(2, 0, 1))
    assert np.array_equal(picture(opened(path), 3, expected.shape[:2]), expected.transpose(2, 0, 1))


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.tif"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        with Image.open(tmp_path / name) as image:
            assert image.n_frames == 2
        assert picture(str(tmp_path / name), 3, (4, 6))[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (33, 33), (500, 375), (20, 31), (31, 20), (32, 45), (7, 300)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_torchvisions_resize_and_centre_crop(shape: tuple[int, int], channels: int) -> None:
    from torchvision.transforms.v2 import functional

    image = Image.fromarray(noise(*shape, channels))
    expected = functional.pil_to_tensor(functional.center_crop(functional.resize(image, [32]), [32, 32]))
    assert np.array_equal(picture(image, channels, (32, 32)), expected.numpy())


def test_for_sizes_that_are_not_square_a_picture_covers_and_its_middle_stays() -> None:
    image = Image.fromarray(noise(40, 60))
    tall = np.asarray(image.resize((72, 48), Image.Resampling.BILINEAR))[:, 26:46]
    assert np.array_equal(picture(image, 3, (48, 20)), tall.transpose(2, 0, 1))
    flat = np.asarray(image.resize((90, 60), Image.Resampling.BILINEAR))[20:40]
    assert np.array_equal(picture(image, 3, (20, 90)), flat.transpose(2, 0, 1))
    cut = np.asarray(image)[:, 10:50]
    assert np.array_equal(picture(image, 3, (40, 40)), cut.transpose(2, 0, 1))


UNREADABLE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "text": ("no picture", lambda path: path.write_text("a cat")),
    "empty": ("no picture", lambda path: path.write_bytes(b"")),
    "missing": ("no such file", lambda path: None),
    "folder": ("no regular file", lambda path: path.mkdir()),
    "pipe": ("no regular file", lambda path: os.mkfifo(path)),
    "link to nothing": ("no such file", lambda path: path.symlink_to("gone.png")),
    "link to itself": ("no such file", lambda path: path.symlink_to(path.name)),
    "half": ("truncated", lambda path: path.write_bytes(save(path, noise(40, 40)).read_bytes()[:2000])),
    "half a header": ("", lambda path: path.write_bytes(save(path, noise(9, 9)).read_bytes()[:20])),
    "postscript": ("no picture", lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")),
    "fractions": ("fractions", lambda path: Image.new("F", (4, 4), 0.5).save(path, "TIFF")),
    "too bright": ("16 bits", lambda path: Image.fromarray(np.full((4, 4), 65536, np.int32)).save(path, "TIFF")),
    "negative": ("16 bits", lambda path: Image.fromarray(np.full((4, 4), -1, np.int32)).save(path, "TIFF")),
    "a line": ("unequal", lambda path: Image.new("L", (400_000, 1)).save(path)),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_picture_is_unreadable_with_a_reason(tmp_path: Path, name: str) -> None:
    reason, make = UNREADABLE[name]
    path = tmp_path / "a.png"
    make(path)
    with pytest.raises(Unreadable) as error:
        picture(str(path), 3, (32, 32))
    assert reason in error.value.reason
    assert 0 < len(error.value.reason) <= 120
    assert "\n" not in error.value.reason


def test_too_many_pixels_are_unreadable_also_where_pillow_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(save(tmp_path / "a.png", noise(30, 30)))
    for most in (899, 300):  # a warning, an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        for read in (inspect, lambda path: picture(path, 3, (32, 32))):
            with pytest.raises(Unreadable, match="too many pixels"):
                read(path)


def test_a_picture_in_colour_does_not_become_grey_unasked() -> None:
    with pytest.raises(Unreadable, match="colour"):
        picture(Image.fromarray(noise(4, 4)), 1, (4, 4))


# Many pictures


@pytest.fixture
def many(tmp_path: Path) -> list[str]:
    """300 paths: pictures of which three sizes occur, in a folder whose name is not UTF-8, and two that are none."""
    place = os.path.join(os.fsencode(tmp_path), b"pictures \xff\n")
    os.mkdir(place)
    paths = []
    for i in range(6):
        content = io.BytesIO()
        Image.fromarray(noise(10 + i % 3, 12)).save(content, "PNG")
        path = os.path.join(place, b"%d.png" % i)
        with open(path, "wb") as file:
            file.write(content.getvalue())
        paths.append(os.fsdecode(path))
    paths = [paths[i % 6] for i in range(300)]
    paths[70] = os.path.join(os.fsdecode(place), "gone.png")
    paths[299] = str(Path(__file__))
    return paths


def mapped(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A raw file of zeros behind a head of 8 bytes."""
    path.write_bytes(bytes(8 + int(np.prod(shape))))
    return np.memmap(path, np.uint8, "r+", 8, shape)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started to decode."""
    found: list[subprocess.Popen[bytes]] = []
    start = decoding._start

    def watched(complaints: Any) -> subprocess.Popen[bytes]:
        found.append(start(complaints))
        return found[-1]

    monkeypatch.setattr(decoding, "_start", watched)
    return found


def test_processes_decode_what_one_does(
    tmp_path: Path, many: list[str], started: list[subprocess.Popen[bytes]]
) -> None:
    alone = np.full((300, 3, 9, 9), 7, np.uint8)
    counts: list[int] = []
    damaged = decode(many, alone, 2, counts.append)
    assert started == []
    assert sum(counts) == 300
    assert [(each.row, each.reason) for each in damaged] == [
        (70, "there is no such file"),
        (299, "it is no picture of a kind that is read"),
    ]
    assert all(each.path.isprintable() for each in damaged)
    assert (alone[70] == 7).all()
    assert np.array_equal(alone[1], picture(many[1], 3, (9, 9)))

    together = mapped(tmp_path / "raw", (300, 3, 9, 9))
    counts.clear()
    assert decode(many, together, 2, counts.append, few=300) == damaged
    assert len(started) == 2
    assert [process.returncode is None for process in started] == [False, False]
    assert sum(counts) == 300
    assert (together[70] == 0).all()
    good = np.delete(np.arange(300), [70, 299])
    assert np.array_equal(together[good], alone[good])
    assert np.array_equal(np.fromfile(tmp_path / "raw", np.uint8, offset=8).reshape(together.shape), together)


def test_few_pictures_and_what_is_no_whole_file_are_decoded_here(
    tmp_path: Path, many: list[str], started: list[subprocess.Popen[bytes]]
) -> None:
    pixels = mapped(tmp_path / "raw", (301, 3, 9, 9))
    decode(many, pixels[:300], 2, few=301)
    decode(many, pixels[1:], 2, few=1)
    decode(many, np.memmap(tmp_path / "raw", np.uint8, "c", 8, (300, 3, 9, 9)), 2, few=1)
    assert started == []
    assert np.array_equal(pixels[2], picture(many[1], 3, (9, 9)))


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("os.kill(os.getpid(), 9)", "was ended by SIGKILL, among .*[0-9].png"),
        ("raise ImportError('no module called PIL')", "ended with status 1, .*ImportError: no module called PIL"),
        ("os._exit(3)", "ended with status 3"),
    ],
)
def test_a_process_that_dies_is_an_error(
    tmp_path: Path,
    many: list[str],
    started: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    does: str,
    says: str,
) -> None:
    line = "sys.stdin.buffer.readline()"
    monkeypatch.setattr(decoding, "_WORKER", f"import os, sys; {line}; {line}; {does}")
    with pytest.raises(AdvmixError, match=says) as error:
        decode(many, mapped(tmp_path / "raw", (300, 3, 9, 9)), 2, few=1)
    assert error.value.code == "worker-failed"
    assert len(started) == 2
    assert all(process.returncode is not None for process in started)


def test_processes_end_with_the_loop(tmp_path: Path, many: list[str], started: list[subprocess.Popen[bytes]]) -> None:
    def interrupted(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode(many, mapped(tmp_path / "raw", (300, 3, 9, 9)), 2, interrupted, few=1)
    assert [process.returncode is None for process in started] == [False, False]


def test_ctrl_c_ends_the_processes(tmp_path: Path, many: list[str]) -> None:
    pixels = mapped(tmp_path / "raw", (60_000, 3, 9, 9))
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import json, signal, sys
import numpy as np
from advmix_cli.data import decoding
signal.signal(signal.SIGINT, signal.default_int_handler)
start = decoding._start
def watched(complaints):
    worker = start(complaints)
    print(worker.pid, flush=True)
    return worker
decoding._start = watched
paths = json.loads({json.dumps(json.dumps(many[:60]))}) * 1000
pixels = np.memmap({str(tmp_path / "raw")!r}, np.uint8, "r+", 8, {pixels.shape})
decoding.decode(paths, pixels, 2, lambda n: print("some", flush=True))
print("all")
"""
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1] != "some":
            lines.append(process.stdout.readline().strip())
            assert lines[-1], process.communicate()[1]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert "all" not in out
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    pids = [int(line) for line in lines if line.isdigit()]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_script_without_a_guard_is_not_run_again_and_its_folder_is_not_searched(
    tmp_path: Path, many: list[str]
) -> None:
    mapped(tmp_path / "raw", (300, 3, 9, 9))
    (tmp_path / "PIL.py").write_text("raise SystemExit('this is not Pillow')")
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(
        f"""
import json
import numpy as np
from advmix_cli.data.decoding import decode
print("once")
paths = json.loads({json.dumps(json.dumps(many))})
print(len(decode(paths, np.memmap({str(tmp_path / "raw")!r}, np.uint8, "r+", 8, (300, 3, 9, 9)), 2)))
"""
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("once\n2\n", "")


def test_a_process_that_decodes_imports_pillow_and_numpy_but_no_torch(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(12))
    job = json.dumps({"file": str(tmp_path / "raw"), "offset": 0, "shape": [1, 3, 2, 2]})
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-P", "-c", decoding._WORKER, *sys.path],
        input=job + "\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert {"PIL", "numpy", "advmix_cli"} <= loaded
    assert not loaded & {"torch", "torchvision", "typer", "rich", "matplotlib", "multiprocessing"}


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from advmix_cli.data import arrays, folder, others; "
        "others.stamp('MNIST', __import__('pathlib').Path('nowhere')); print('torch' in sys.modules)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "False\n"


# Folders


def tree(root: Path, classes: dict[str, int], size: tuple[int, int] = (8, 8)) -> Path:
    """`root` with class folders, of so many pictures each."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            save(root / name / f"{i}.png", noise(*size))
    return root


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Cats and dogs in train and test, 3 and 2 each."""
    tree(tmp_path / "pets/train", {"cat": 3, "dog": 3})
    tree(tmp_path / "pets/test", {"cat": 2, "dog": 2})
    return tmp_path / "pets"


def test_a_folder_is_what_torchvisions_image_folder_says(pets: Path) -> None:
    from torchvision.datasets import ImageFolder

    save(pets / "train/cat/deep/er/z.jpg", noise(8, 8))
    save(pets / "train/cat/deep/a.PNG", noise(8, 8))
    save(pets / "train/cat/deep-a/a.png", noise(8, 8))
    save(pets / "train/Bird/b.bmp", noise(8, 8))
    save(pets / "test/Bird/b.bmp", noise(8, 8))
    found = folder(pets)
    assert (found.native, found.channels, found.sizes, found.notes) == ((3, 8, 8), 3, "8x8", ())
    for split in ("train", "test"):
        theirs = ImageFolder(str(pets / split))
        assert found.classes == tuple(theirs.classes) == ("Bird", "cat", "dog")
        assert found.labels[split].dtype == np.int64
        assert found.labels[split].tolist() == theirs.targets
        pixels = np.zeros((len(theirs), 3, 8, 8), np.uint8)
        counts: list[int] = []
        assert found.fill(split, pixels, counts.append) == []
        assert sum(counts) == len(theirs)
        for row, (image, _) in zip(pixels, theirs, strict=True):
            assert np.array_equal(row, np.asarray(image).transpose(2, 0, 1))


def test_the_first_of_several_folders_to_test_on_is_taken(pets: Path) -> None:
    tree(pets / "val", {"cat": 1, "dog": 1})
    (pets / "notes").mkdir()
    found = folder(pets)
    assert found.labels["test"].tolist() == [0, 0, 1, 1]
    assert found.notes == ("left out: notes, val",)
    (pets / "test").rename(pets / ".test")
    tree(pets / "validation", {"cat": 5, "dog": 5})
    found = folder(pets)
    assert found.labels["test"].tolist() == [0, 1]
    assert found.notes == ("tested on val", "left out: notes, validation")


def test_a_folder_without_splits_is_divided_by_a_seed_and_stays_divided(tmp_path: Path) -> None:
    tree(tmp_path / "set", {"cat": 1, "dog": 2})
    for i in range(200):
        os.link(tmp_path / "set/cat/0.png", tmp_path / f"set/cat/{i:03}.png")

    def test_files() -> set[str]:
        found = folder(tmp_path / "set")
        return {path for path in found._files["test"] if "cat" in path}

    found = folder(tmp_path / "set")
    train, test = (len(found.labels[split]) for split in ("train", "test"))
    assert train + test == 203
    assert 25 <= test <= 60
    assert found.labels["train"].tolist().count(1) == found.labels["test"].tolist().count(1) == 1
    assert found.notes == (f"no splits: divided by a seed, {train} to train, {test} to test",)
    assert not set(found._files["train"]) & set(found._files["test"])
    before = test_files()
    for i in range(200, 300):
        os.link(tmp_path / "set/cat/0.png", tmp_path / f"set/cat/{i:03}.png")
    after = test_files()
    assert len(after) > len(before)
    assert {path for path in after if path < "cat/200.png"} == before


def test_how_a_set_is_divided_never_changes() -> None:
    """By what is written here: another hash would turn training pictures into test pictures of the same model."""
    names = [b"cat/%d.png" % i for i in range(30)]
    assert np.flatnonzero(source.divided("cat", names)).tolist() == [2, 3, 4, 5, 7, 9, 11, 20, 21, 25]
    assert source.divided("cat", [b"%d" % i for i in range(10_000)]).mean() == pytest.approx(0.2, abs=0.01)
    for count in range(2, 12):
        chosen = source.divided("cat", names[-count:])
        assert 0 < chosen.sum() < count


def test_what_is_left_out_is_said_and_what_is_hidden_is_not(pets: Path) -> None:
    for name in ("train/cat/notes.txt", "train/readme.md", "train/dog/deep/a.csv", "train/dog/x.npy"):
        (pets / name).parent.mkdir(exist_ok=True)
        (pets / name).write_text("")
    for name in (".DS_Store", "train/.hidden.png", "train/cat/.a.png"):
        (pets / name).write_text("")
    os.mkfifo(pets / "train/cat/pipe.png")
    tree(pets / "train/.git", {"objects": 1})
    save(pets / "test/astray.png", noise(8, 8))
    found = folder(pets)
    assert found.classes == ("cat", "dog")
    assert found.labels["train"].tolist() == [0] * 3 + [1] * 3
    assert found.notes == (
        "5 files that are no pictures are left out: train/readme.md, train/cat/notes.txt, train/cat/pipe.png, ...",
        "1 file that is a picture in no class folder is left out: test/astray.png",
    )


def test_sizes_and_channels_are_those_of_all_pictures(pets: Path) -> None:
    for path in pets.rglob("*.png"):
        save(path, noise(40, 60, 1))
    found = folder(pets)
    assert (found.native, found.channels, found.sizes, found.suggested) == ((1, 40, 60), 1, "60x40", 32)
    for path in (pets / "train").rglob("*.png"):
        save(path, noise(400, 140, 1))
    save(pets / "train/dog/0.png", noise(500, 375))
    found = folder(pets)
    assert (found.native, found.channels, found.sizes) == (None, 3, "from 60x40 to 375x500")
    assert found.suggested == 128
    pixels = np.zeros((4, 3, 32, 48), np.uint8)
    assert found.fill("test", pixels, nothing) == []
    assert (pixels[:, 0] == pixels[:, 2]).all()
    assert np.array_equal(pixels[3], picture(str(pets / "test/dog/1.png"), 3, (32, 48)))


@pytest.mark.parametrize(("side", "expected"), [(8, 32), (47, 32), (48, 48), (100, 96), (223, 160), (4000, 224)])
def test_the_suggested_size_is_rounded_down(side: int, expected: int) -> None:
    from collections import Counter

    assert source.sizes_of(Counter({(side, 2 * side): 3, (1, 1): 1, (5000, 5000): 1}))[1] == expected


def test_links_to_folders_are_followed_and_links_to_nothing_are_damaged_pictures(pets: Path, tmp_path: Path) -> None:
    tree(tmp_path / "away", {"more": 2})
    (pets / "train/cat/linked").symlink_to(tmp_path / "away/more")
    (pets / "test/cat/linked").symlink_to(tmp_path / "away/more")
    (pets / "test/dog/1.png").unlink()
    (pets / "test/dog/1.png").symlink_to("gone.png")
    (pets / "test/cat/0.png").write_text("no picture")
    found = folder(pets)
    assert found.native == (3, 8, 8)
    assert found.labels["train"].tolist().count(0) == 5
    pixels = np.full((6, 3, 8, 8), 9, np.uint8)
    assert found.fill("test", pixels, nothing) == [
        Damaged(0, str(pets / "test/cat/0.png"), "it is no picture of a kind that is read"),
        Damaged(5, str(pets / "test/dog/1.png"), "there is no such file"),
    ]
    assert (pixels[[0, 5]] == 9).all()


def test_a_thousand_classes_are_fine(tmp_path: Path) -> None:
    one = save(tmp_path / "one.png", noise(4, 4, 1))
    for split in ("train", "test"):
        for i in range(1001):
            (tmp_path / f"set/{split}/{i:04}").mkdir(parents=True)
            os.link(one, tmp_path / f"set/{split}/{i:04}/a.png")
    found = folder(tmp_path / "set")
    assert len(found.classes) == 1001
    assert found.labels["test"].tolist() == list(range(1001))


def lost(pets: Path) -> Path:
    return pets / "gone"


def no_folder(pets: Path) -> Path:
    return pets / "train/cat/0.png"


def no_classes(pets: Path) -> Path:
    return pets / "train/cat"


def one_class(pets: Path) -> Path:
    (pets / "train/dog").rename(pets / "dog")
    return pets / "train"


def empty_class(pets: Path) -> Path:
    (pets / "train/ferret").mkdir()
    (pets / "train/ferret/notes.txt").touch()
    return pets


def no_test(pets: Path) -> Path:
    (pets / "test").rename(pets / "tset")
    return pets


def capital_train(pets: Path) -> Path:
    (pets / "train").rename(pets / "Train")
    return pets


def only_in_train(pets: Path) -> Path:
    (pets / "test/cat").rename(pets / "test/Cat")
    return pets


def one_class_of_two_in_test(pets: Path) -> Path:
    both = tree(pets / "few/train", {"cat": 1, "ship": 1})
    tree(pets / "few/test", {"cat": 1})
    return both.parent


def only_in_test(pets: Path) -> Path:
    tree(pets / "test", {"walrus": 1})
    return pets


def not_utf8(pets: Path) -> Path:
    for split in ("train", "test"):
        os.rename(pets / split / "cat", os.path.join(os.fsencode(pets / split), b"caf\xe9"))
    return pets


def control(pets: Path) -> Path:
    for split in ("train", "test"):
        (pets / split / "cat").rename(pets / split / "c\x1b[2Jat")
    return pets


def circle(pets: Path) -> Path:
    (pets / "train/cat/again").symlink_to(pets / "train")
    return pets


def damaged(pets: Path) -> Path:
    for path in pets.rglob("*.png"):
        path.write_text("no picture")
    return pets


def one_picture(pets: Path) -> Path:
    return tree(pets / "undivided", {"cat": 1, "dog": 4})


@pytest.mark.parametrize(
    ("spoil", "error", "message", "hint"),
    [
        (lost, NotFoundError, r"there is no .*gone", "check the path"),
        (no_folder, UsageError, r"0\.png is a file, not a folder", "one folder a class"),
        (no_classes, UsageError, r"no class folders in .*cat, only pictures such as 0\.png", "one folder a class"),
        (one_class, UsageError, r"one class only, 'cat'", "at least two"),
        (empty_class, UsageError, r"'ferret' has no pictures in .*train", r"\.png"),
        (no_test, UsageError, r"has a folder train, but nothing to test on", "test, val, valid or validation"),
        (capital_train, UsageError, r"has a folder Train, but none called train", "call them train and test"),
        (only_in_train, UsageError, r"'cat' is in train but not in test", "is it 'Cat' there"),
        (one_class_of_two_in_test, UsageError, r"'ship' is in train but not in test", "every class needs"),
        (only_in_test, UsageError, r"'walrus' is in test but not in train", "every class needs pictures in both"),
        (not_utf8, UsageError, r"caf\\xe9 is not UTF-8", "rename it"),
        (control, UsageError, r"control characters: 'c\\x1b\[2Jat'", "rename it"),
        (circle, UsageError, r"in a circle: .*train/cat/again links", "remove that link"),
        (damaged, DamagedError, r"none of the pictures in .* can be read; .*0\.png: it is no picture", "again"),
        (one_picture, UsageError, r"the class 'cat' has one picture only", "add pictures"),
    ],
)
def test_folders_that_are_no_data_set(
    pets: Path, spoil: Callable[[Path], Path], error: type[AdvmixError], message: str, hint: str
) -> None:
    path = spoil(pets)
    with pytest.raises(error, match=message) as raised:
        folder(path)
    assert type(raised.value) is error
    assert raised.value.message.isprintable()
    assert re.search(hint, raised.value.hint)


def test_a_folder_that_the_system_refuses_is_named(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if Path(path).name == "cat":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(AdvmixError, match=r"cannot read .*t/cat: Permission denied") as error:
        folder(pets)
    assert error.value.code == "unreadable"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every folder")
def test_a_folder_that_may_not_be_read_is_named(pets: Path) -> None:
    (pets / "train/cat").chmod(0)
    try:
        with pytest.raises(AdvmixError, match=r"cannot read .*train/cat"):
            folder(pets)
    finally:
        (pets / "train/cat").chmod(0o755)


def test_the_stamp_of_a_folder_changes_with_its_files_and_only_with_them(pets: Path) -> None:
    first = source.stamp(pets)
    assert folder(pets).stamp() == first == source.stamp(pets)
    (pets / ".DS_Store").touch()
    assert source.stamp(pets) == first
    seen = {first}
    for change in (
        lambda: os.utime(pets / "train/cat/0.png", ns=(1, 1)),
        lambda: os.utime(pets / "train/cat/0.png", ns=(1, 2)),
        lambda: (pets / "train/cat/1.png").rename(pets / "train/cat/4.png"),
        lambda: (pets / "train/cat/4.png").rename(pets / "train/dog/4.png"),
        lambda: (pets / "train/ferret").mkdir(),
        lambda: (pets / "train/dog/4.png").unlink(),
        lambda: (pets / "train/dog/4.png").symlink_to("gone"),
    ):
        change()
        seen.add(source.stamp(pets))
    assert len(seen) == 8
    with pytest.raises(NotFoundError):
        source.stamp(pets / "gone")


# Arrays


KERAS = ("x_train", "y_train", "x_test", "y_test")
MEDMNIST = ("train_images", "train_labels", "test_images", "test_labels")


def four(shape: tuple[int, ...] = (8, 8), names: tuple[str, ...] = KERAS, **others: Any) -> dict[str, Any]:
    """Twelve pictures to train on and six to test on, of three classes."""
    values = {}
    for (x, y), count in zip((names[:2], names[2:]), (12, 6), strict=True):
        values[x] = RNG.integers(0, 256, (count, *shape), dtype=np.uint8)
        values[y] = np.arange(count) % 3
    return values | others


def saved(path: Path, values: dict[str, Any], *, compressed: bool = False) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **values)
    return path


@pytest.mark.parametrize("names", [KERAS, MEDMNIST])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 1), (8, 9, 3), (1, 8, 9), (3, 8, 9)])
def test_arrays_of_all_shapes(tmp_path: Path, names: tuple[str, ...], compressed: bool, shape: tuple[int, ...]) -> None:
    values = four(shape, names)
    values[names[1]] = values[names[1]].astype(">i4")
    values[names[3]] = values[names[3]][:, None].astype(np.uint8)
    found = arrays(saved(tmp_path / "a.npz", values, compressed=compressed))
    assert found.classes == ("0", "1", "2")
    assert found.native == (found.channels, 8, 9)
    assert (found.sizes, found.suggested, found.notes) == ("9x8", 32, ())
    for x, y, split in ((*names[:2], "train"), (*names[2:], "test")):
        raw = values[x][:, None] if len(shape) == 2 else values[x]
        expected = raw.transpose(0, 3, 1, 2) if shape[-1] in (1, 3) else raw
        assert found.labels[split].dtype == np.int64
        assert found.labels[split].tolist() == values[y].reshape(-1).tolist()
        counts: list[int] = []
        pixels = np.zeros((len(raw), *found.native), np.uint8)
        assert found.fill(split, pixels, counts.append) == []
        assert sum(counts) == len(raw)
        assert np.array_equal(pixels, expected)


def test_arrays_are_resized_as_pictures_are_and_grey_is_repeated(tmp_path: Path) -> None:
    values = four((10, 12, 3)) | {"x_test": RNG.integers(0, 256, (6, 20, 16), dtype=np.uint8)}
    found = arrays(saved(tmp_path / "a.npz", values))
    assert (found.native, found.channels, found.sizes) == (None, 3, "from 12x10 to 16x20")
    pixels = np.zeros((12, 3, 8, 8), np.uint8)
    found.fill("train", pixels, nothing)
    assert np.array_equal(pixels[5], picture(Image.fromarray(values["x_train"][5]), 3, (8, 8)))
    pixels = np.zeros((6, 3, 20, 16), np.uint8)
    found.fill("test", pixels, nothing)
    assert np.array_equal(pixels, np.repeat(values["x_test"][:, None], 3, axis=1))


@pytest.mark.parametrize("names", [("x", "y"), ("images", "labels")])
def test_arrays_without_splits_are_divided(
    tmp_path: Path, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advmix_cli.data.arrays._PIECE", 7 * 64)  # seven pictures at a time
    x, y = RNG.integers(0, 256, (200, 8, 8), dtype=np.uint8), RNG.integers(0, 3, 200)
    found = arrays(saved(tmp_path / "a.npz", dict(zip(names, (x, y), strict=True))))
    train, test = (len(found.labels[split]) for split in ("train", "test"))
    assert train + test == 200
    assert 20 <= test <= 65
    assert set(found.labels["test"].tolist()) == {0, 1, 2}
    assert found.notes == (f"no splits: divided by a seed, {train} to train, {test} to test",)
    whole = {image.tobytes(): label for image, label in zip(x, y.tolist(), strict=True)}
    seen = []
    for split in ("train", "test"):
        pixels = np.zeros((len(found.labels[split]), 1, 8, 8), np.uint8)
        counts: list[int] = []
        found.fill(split, pixels, counts.append)
        assert sum(counts) == len(pixels)
        assert [whole[image.tobytes()] for image in pixels] == found.labels[split].tolist()
        seen += [image.tobytes() for image in pixels]
    assert set(seen) == set(whole)


def test_names_of_classes_and_what_is_left_out(tmp_path: Path) -> None:
    values = four(val_images=np.zeros(3), extra=np.array([{}], dtype=object))
    found = arrays(saved(tmp_path / "a.npz", values | {"class_names": np.array(["cat", "dog", "Füchse"])}))
    assert found.classes == ("cat", "dog", "Füchse")
    assert found.notes == ("left out: extra, val_images",)
    found = arrays(saved(tmp_path / "b.npz", four(classes=np.array(["c", "b", "a"]))))
    assert found.classes == ("c", "b", "a")


def test_pixels_pass_in_pieces(tmp_path: Path) -> None:
    """A set may be larger than memory: of 96 MiB no more than a few are there at once."""
    values = {"x": np.zeros((24_576, 64, 64), np.uint8), "y": np.arange(24_576) % 2}
    values["x"][-1] = 7
    path = saved(tmp_path / "a.npz", values, compressed=True)
    del values
    found = arrays(path)
    split = "test" if found._rows is not None and found._rows["test"][-1] == 24_575 else "train"
    pixels = np.memmap(tmp_path / "raw", np.uint8, "w+", shape=(len(found.labels[split]), 1, 64, 64))
    tracemalloc.start()
    try:
        found.fill(split, pixels, nothing)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20
    assert (pixels[-1] == 7).all()
    assert (pixels[:-1:1000] == 0).all()


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """The first bytes of an array that is said to have that shape."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"shape": shape, "fortran_order": False, "descr": descr})
    return content.getvalue()


def raw(path: Path, members: dict[str, bytes]) -> None:
    """An archive of those bytes, and of sound arrays for the rest."""
    saved(path, {name: value for name, value in four().items() if not {name, f"{name}.npy"} & set(members)})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def flipped(path: Path) -> None:
    """One bit of the pictures to train on is another."""
    saved(path, four())
    content = bytearray(path.read_bytes())
    content[content.index(b"x_train.npy") + 400] ^= 1
    path.write_bytes(content)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("trapped",)


def change(**values: Any) -> Callable[[Path], object]:
    return lambda path: saved(path, {k: v for k, v in (four() | values).items() if v is not None})


ONE_HOT = np.eye(3, dtype=np.int64)[np.arange(12) % 3]
BAD_ARRAYS: dict[str, tuple[Callable[[Path], object], type[AdvmixError], str, str]] = {
    "nothing": (lambda path: None, NotFoundError, "there is no", "check the path"),
    "text": (lambda path: path.write_text("x"), DamagedError, "not a whole .npz file", "again"),
    "a folder": (lambda path: path.mkdir(), DamagedError, "is a folder", "name a file"),
    "half": (lambda path: path.write_bytes(saved(path, four()).read_bytes()[:900]), DamagedError, "not a whole", ""),
    "cut in front": (lambda path: path.write_bytes(saved(path, four()).read_bytes()[900:]), DamagedError, "whole", ""),
    "no names": (lambda path: saved(path, {"a": np.zeros(3)}), UsageError, "by a name that is known, but a", "x_train"),
    "no array": (lambda path: raw(path, {"x_train": b"12"}), DamagedError, "x_train .* no array of numpy's", "savez"),
    "no test": (change(x_test=None, y_test=None), UsageError, "has x_train, y_train, but no x_test, y_test", "savez"),
    "floats": (change(x_test=np.zeros((6, 8, 8))), UsageError, "x_test .* holds float64, not uint8", "255"),
    "ambiguous": (change(x_train=np.zeros((12, 3, 9, 3), np.uint8)), UsageError, "second or the last axis", ""),
    "flat": (change(x_train=np.zeros((12, 64), np.uint8)), UsageError, r"shape \(12, 64\)", r"\(N,H,W\)"),
    "two channels": (change(x_train=np.zeros((12, 8, 8, 2), np.uint8)), UsageError, r"\(12, 8, 8, 2\)", "C 1 or 3"),
    "no pictures": (
        change(x_test=np.zeros((0, 8, 8), np.uint8), y_test=np.zeros(0, int)), UsageError, "x_test .* no pictures", "",
    ),
    "no height": (change(x_test=np.zeros((6, 0, 8), np.uint8)), UsageError, "x_test .* no pictures", ""),
    "Fortran": (change(x_test=np.asfortranarray(np.ones((6, 8, 8), np.uint8))), UsageError, "Fortran", "contiguous"),
    "few labels": (change(y_test=np.arange(5) % 3), UsageError, r"y_test .*\(5,\), but x_test holds 6", "one label"),
    "one-hot": (change(y_train=ONE_HOT), UsageError, "one-hot", "argmax"),
    "half labels": (change(y_train=np.arange(12) / 2), UsageError, "y_train .* holds float64, not whole", "int64"),
    "negative": (change(y_train=np.arange(12) % 3 - 1), UsageError, "y_train .* the label -1", "0, 1"),
    "huge": (change(y_train=np.full(12, 2**64 - 1, np.uint64)), UsageError, str(2**64 - 1), "0, 1"),
    "gap": (change(y_train=np.arange(12) % 3 * 2), UsageError, "no picture has the label 3, of 0 to 4", "gaps"),
    "class of training": (change(y_test=np.arange(6) % 2), UsageError, "'2' is in y_train but not in y_test", "both"),
    "class of the test": (change(y_train=np.arange(12) % 2), UsageError, "'2' is in y_test but not in y_train", "both"),
    "one class": (
        change(y_train=np.zeros(12, int), y_test=np.zeros(6, int)), UsageError, "one class only, '0'", "at least two",
    ),
    "few names": (change(classes=np.array(["a", "b"])), UsageError, "label 2, but only 2 names", "once"),
    "many names": (change(classes=np.array(list("abcd"))), UsageError, "no picture has the label 3", "gaps"),
    "numbers for names": (change(classes=np.arange(3)), UsageError, "classes .* no list of names", "dtype=str"),
    "one name twice": (change(classes=np.array(list("aba"))), UsageError, "two classes are called 'a'", "rename"),
    "a name that steers": (change(classes=np.array(["a", "\x1b", "c"])), UsageError, r"'\\x1b'", "rename"),
    "pickled": (change(y_train=np.array([Trap()] * 12)), UnsafeError, "y_train .* pickled objects", "numbers"),
    "pickled names": (change(classes=np.array(["a", "b", "c"], object)), UnsafeError, "classes .* pickled", "str"),
    "flipped": (flipped, DamagedError, "not a whole", "again"),
    "said to be larger": (
        lambda path: raw(path, {"x_train.npy": header((1 << 40, 8, 8))}), DamagedError, "agree with its size", "",
    ),
    "said to be smaller": (
        lambda path: raw(path, {"x_train.npy": header((1, 8, 8)) + bytes(640)}), DamagedError, "agree", "",
    ),
    "negative shape": (
        lambda path: raw(path, {"x_train.npy": header((-12, -8, 8)) + bytes(768)}), DamagedError, "agree", "",
    ),
    "a long header": (
        lambda path: raw(path, {"x_train.npy": header((0,) * 9000, "|u1")}), DamagedError, "not a whole", "",
    ),
    "no header": (lambda path: raw(path, {"y_train.npy": b"12"}), DamagedError, "not a whole", ""),
    "a header that calls": (
        lambda path: raw(path, {"y_train.npy": header((3,)).replace(b"(3,)", b"f(3)")}), DamagedError, "whole", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_arrays_that_are_no_data_set(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, error, message, hint = BAD_ARRAYS[name]
    path = tmp_path / "a.npz"
    make(path)
    tracemalloc.start()
    try:
        with pytest.raises(error, match=message) as raised:
            arrays(path).fill("train", np.zeros((12, 1, 8, 8), np.uint8), nothing)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(raised.value) is error
    assert re.search(hint, raised.value.hint)
    assert peak < 8 << 20
    assert not (tmp_path / "trapped").exists()


def test_two_arrays_of_one_name_are_damage(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", four())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x_train.npy", header((0, 8, 8)))
    with pytest.raises(DamagedError, match="two arrays of one name"):
        arrays(path)


def test_a_member_that_cannot_have_become_so_small_is_damage(tmp_path: Path) -> None:
    """An archive may say of any member that it is large."""
    path = tmp_path / "a.npz"
    raw(path, {"x_train.npy": header((3000, 8, 8)) + bytes(192_000)})
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("x_train.npy")
    content = path.read_bytes()
    old, start = info.file_size, content.rindex(b"PK\x01\x02", 0, content.rindex(b"x_train.npy"))
    large = header((1 << 24, 8, 8))
    raw(path, {"x_train.npy": large})
    content = bytearray(path.read_bytes())
    start = content.rindex(b"PK\x01\x02", 0, content.rindex(b"x_train.npy"))
    content[start + 24 : start + 28] = (len(large) + (1 << 30)).to_bytes(4, "little")
    path.write_bytes(content)
    assert old == 192_128
    with pytest.raises(DamagedError, match="larger than its bytes can become"):
        arrays(path)


def test_the_stamp_of_arrays_is_that_of_their_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", four())
    os.utime(path, ns=(1, 1))
    first = source.stamp(path)
    assert arrays(path).stamp() == first
    os.utime(path, ns=(1, 2))
    assert source.stamp(path) != first
    path.write_bytes(path.read_bytes() + b" ")
    os.utime(path, ns=(1, 1))
    assert source.stamp(path) != first


# torchvision's sets


def test_fake_data_is_divided(tmp_path: Path) -> None:
    found = torchvision_set("FakeData", tmp_path, False)
    assert found.classes == tuple("0123456789")
    assert (found.native, found.channels, found.suggested) == ((3, 224, 224), 3, 224)
    train, test = (len(found.labels[split]) for split in ("train", "test"))
    assert train + test == 1000
    assert 140 < test < 260
    assert found.notes == (f"no splits: divided by a seed, {train} to train, {test} to test",)
    from torchvision.datasets import FakeData

    pixels = np.zeros((test, 3, 32, 32), np.uint8)
    counts: list[int] = []
    assert found.fill("test", pixels, counts.append) == []
    assert sum(counts) == test
    row = int(found._rows["test"][70])
    image, label = FakeData()[row]
    assert label == found.labels["test"][70]
    assert np.array_equal(pixels[70], picture(image, 3, (32, 32)))
    assert found.stamp() == others.stamp("FakeData", tmp_path / "elsewhere")


def test_a_set_of_files_is_read_by_our_rules(tmp_path: Path) -> None:
    tree(tmp_path / "eurosat/2750", {"River": 8, "SeaLake": 8})
    save(tmp_path / "eurosat/2750/River/1.png", noise(8, 8, 1))
    (tmp_path / "eurosat/2750/SeaLake/3.png").write_text("no picture")
    found = torchvision_set("EuroSAT", tmp_path, False)
    assert found.classes == ("River", "SeaLake")
    assert found.native == (3, 8, 8)
    damaged = []
    for split in ("train", "test"):
        pixels = np.zeros((len(found.labels[split]), 3, 8, 8), np.uint8)
        damaged += [each.path for each in found.fill(split, pixels, nothing)]
        for at, row in enumerate(found._rows[split]):
            path = tmp_path / "eurosat/2750" / ("River" if row < 8 else "SeaLake") / f"{row % 8}.png"
            assert found.labels[split][at] == row // 8
            if row != 11:
                assert np.array_equal(pixels[at], picture(str(path), 3, (8, 8)))
    assert damaged == [str(tmp_path / "eurosat/2750/SeaLake/3.png")]
    before = found.stamp()
    assert others.stamp("EuroSAT", tmp_path) == before
    save(tmp_path / "eurosat/2750/River/9.png", noise(8, 8))
    assert others.stamp("EuroSAT", tmp_path) != before


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Let torchvision have a set Toy, with splits of that many pictures, and labels as they are given."""
    from torchvision import datasets
    from torchvision.datasets.utils import verify_str_arg

    def add(splits: dict[str, list[Any]], classes: Any = None, image: Any = None) -> None:
        class Toy(datasets.VisionDataset):
            def __init__(self, root: str, split: str = "train", transform: Any = None) -> None:
                self.labels = splits[verify_str_arg(split, "split", tuple(splits))]
                if classes is not None:
                    self.classes = classes

            def __len__(self) -> int:
                return len(self.labels)

            def __getitem__(self, index: int) -> Any:
                return (Image.new("L", (4, 4), index) if image is None else image), self.labels[index]

        monkeypatch.setattr(datasets, "Toy", Toy, raising=False)
        monkeypatch.setattr(datasets, "__all__", (*datasets.__all__, "Toy"))

    return add


def test_the_first_split_that_has_labels_is_tested_on(toy: Callable[..., None], tmp_path: Path) -> None:
    toy({"train": [0, 1, 2], "test": [None, None], "val": [2, 1], "extra": [0]}, [("tench", "Tinca"), "crane", "crane"])
    found = torchvision_set("Toy", tmp_path, True)
    assert found.notes == ("tested on val",)
    assert found.labels["test"].tolist() == [2, 1]
    assert found.classes == ("tench, Tinca", "crane (1)", "crane (2)")
    assert found.native == (1, 4, 4)
    pixels = np.zeros((3, 1, 4, 4), np.uint8)
    assert found.fill("train", pixels, nothing) == []
    assert pixels[:, 0, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("splits", "image", "says"),
    [
        ({"train": [0, 1]}, None, "it has no split to test on"),
        ({"main": [0, 1], "test": [0, 1]}, None, "it has no split train"),
        ({"train": [0, 1], "test": [None]}, None, "item 0 has the label None"),
        ({"train": [0, -1], "test": [0, 1]}, None, "item 1 has the label -1"),
        ({"train": [0, 1.5], "test": [0, 1]}, None, "item 1 has the label 1.5"),
        ({"train": [0, 1], "test": [0, 1]}, "text", "no pairs of a picture and a label, but str, int"),
        ({"train": [], "test": [0, 1]}, None, "holds no pictures"),
        ({"train": [0, 0], "test": [0]}, None, "one class only"),
    ],
)
def test_what_is_no_classification_set(
    toy: Callable[..., None], tmp_path: Path, splits: dict[str, list[Any]], image: Any, says: str
) -> None:
    toy(splits, image=image)
    with pytest.raises(UsageError, match=says):
        torchvision_set("Toy", tmp_path, True)


@pytest.mark.parametrize(
    ("name", "says", "hint"),
    [
        ("mnist", "no data set 'mnist'", "MNIST"),
        ("ImageFolder", "no data set 'ImageFolder'", "ImageNet"),
        ("CocoDetection", "not a classification set: it needs annFile", "folder"),
    ],
)
def test_names_that_are_no_classification_set(tmp_path: Path, name: str, says: str, hint: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        torchvision_set(name, tmp_path, False)
    assert hint in error.value.hint


@pytest.mark.parametrize("name", ["EMNIST", "SVHN", "OxfordIIITPet", "QMNIST"])
@pytest.mark.parametrize("download", [False, True])
def test_sets_that_are_not_there_are_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, download: bool
) -> None:
    import urllib.error
    import urllib.request

    asked = []

    def offline(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(AdvmixError, match=name) as error:
        torchvision_set(name, tmp_path / "data", download)
    assert bool(asked) == download
    assert error.value.code == "data-unavailable"
    assert str(tmp_path / "data") in error.value.hint
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("name", "shape"), [("MNIST", (1, 28, 28)), ("CIFAR10", (3, 32, 32))])
def test_real_sets_of_torchvision(real_data: Path, name: str, shape: tuple[int, int, int]) -> None:
    from torchvision import datasets

    found = torchvision_set(name, real_data, False)
    assert found.native == shape
    assert {split: len(labels) for split, labels in found.labels.items()}["test"] == 10_000
    theirs = getattr(datasets, name)(str(real_data), train=False)
    assert found.classes == tuple(theirs.classes)
    assert torch.equal(torch.as_tensor(found.labels["test"]), torch.as_tensor(theirs.targets))
    pixels = np.zeros((10_000, *shape), np.uint8)
    assert found.fill("test", pixels, nothing) == []
    raw = np.asarray(theirs.data)
    assert np.array_equal(pixels, raw[:, None] if raw.ndim == 3 else raw.transpose(0, 3, 1, 2))
    assert found.stamp() == others.stamp(name, real_data)
