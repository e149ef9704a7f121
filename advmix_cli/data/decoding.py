"""Pictures to pixels: what a file comes to, and many files at once, by processes of their own. No torch.

| picture                        | comes to                                                                      |
|--------------------------------|-------------------------------------------------------------------------------|
| any                            | its first frame, turned as its EXIF orientation says                          |
| modes 1, L, LA                 | grey; transparency is dropped                                                 |
| 16-bit grey (I;16, I to 65535) | grey, divided by 257 and rounded                                              |
| F, I beyond 65535              | not read                                                                      |
| RGB, RGBA, P, PA               | colour; transparency is dropped, and the colours below it stay                |
| CMYK, YCbCr, LAB, HSV          | colour, as Pillow converts it                                                 |
| grey among colour              | three channels that are the same                                              |
| of another size                | resized once, on uint8, bilinear with antialiasing, until it just covers the  |
|                                | wanted size, and its middle is cut out: torchvision's Resize and CenterCrop   |
| of the right size              | as it is                                                                      |
| kinds of files                 | PNG, JPEG, BMP, GIF, TIFF, WebP, PPM and PGM, whatever the name says          |
| more pixels than Pillow allows | not read, also where Pillow would only warn                                   |

The processes are not multiprocessing's, which would run a script of the user's again where it has no guard.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from advmix_cli import files
from advmix_cli.data.source import Damaged, shown
from advmix_cli.errors import AdvmixError, DamagedError, NotFoundError

FEW = 256
"""So many pictures are not worth the start of a process."""

_CHUNK = 64  # pictures that a process gets at a time
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # others may start programs, as EPS does
_GREY = ("1", "L", "LA", "I")  # and I;16 of all kinds
_MOST_PIXELS = 1 << 28  # of a picture that is being resized: a thin line would become a large surface
_TURNED = (5, 6, 7, 8)  # orientations that exchange height and width
_WORKER = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.path[:] = sys.argv[1:]; "
    "from advmix_cli.data.decoding import work; work()"
)


class Unreadable(Exception):
    """A picture that cannot be read. `reason` says why, in one short line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def picture(source: str | Image.Image, channels: int, size: tuple[int, int]) -> np.ndarray:
    """The pixels of a file or an image, uint8 (C,H,W) in 0..255, with C and (H,W) as they are wanted.

    Raises Unreadable, also for a picture in colour where one channel is wanted.
    """
    with _opened(source) as image:
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
        grey = _is_grey(image.mode)
        if channels == 1 and not grey:
            raise Unreadable("it is in colour, where the others are grey")
        pixels = np.asarray(_fitted(_plain(image, grey), size))
    if grey:
        return np.broadcast_to(pixels, (channels, *size))
    return pixels.transpose(2, 0, 1)


def inspect(source: str | Image.Image) -> tuple[bool, int, int]:
    """Whether a picture is grey, its height and width as it will be turned, from its header alone.

    An orientation that stands behind a PNG's pixels is not seen. Raises Unreadable.
    """
    with _opened(source) as image:
        grey = _is_grey(image.mode)
        width, height = image.size
        # Not image.getexif(), which reads a PNG to its end. A TIFF's size is turned already.
        turn = 1 if image.format == "TIFF" else Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return (grey, width, height) if turn in _TURNED else (grey, height, width)


@contextlib.contextmanager
def _opened(source: str | Image.Image) -> Iterator[Image.Image]:
    """The image, with whatever goes wrong until the end of the block as Unreadable, and Pillow's warnings kept in."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(source, Image.Image):
                yield source
                return
            with files.opened(Path(source)) as (file, _), Image.open(file, formats=_FORMATS) as image:
                yield image
    except Unreadable:
        raise
    except Exception as error:  # Pillow raises nearly anything on files that are not what they should be
        raise Unreadable(_reason(error)) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, NotFoundError):
        return "there is no such file"
    if isinstance(error, DamagedError):
        return "it is no regular file"
    if isinstance(error, AdvmixError) and error.__cause__ is not None:
        error = error.__cause__  # what the system said, without the path
    if isinstance(error, UnidentifiedImageError):
        return "it is no picture of a kind that is read"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "it has too many pixels"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    text = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    return shown(text)[:120]


def _is_grey(mode: str) -> bool:
    if mode == "F":
        raise Unreadable("its pixels are fractions, of no range that is known")
    return mode in _GREY or mode.startswith("I;16")


def _plain(image: Image.Image, grey: bool) -> Image.Image:
    """The image in mode L or RGB."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise Unreadable("its grey values go beyond 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    mode = "L" if grey else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image resized until it covers (H,W), and its middle."""
    (width, height), (high, wide) = image.size, size
    if (height, width) == size:
        return image
    if height * wide <= width * high:
        width, height = high * width // height, high
    else:
        width, height = wide, wide * height // width
    if width * height > _MOST_PIXELS:
        raise Unreadable("its sides are too unequal")
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - wide) / 2), round((height - high) / 2)
    return image.crop((left, top, left + wide, top + high))


def processes() -> int:
    """How many processes decode: one a core that this one may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 16)


def decode(
    paths: Sequence[str],
    pixels: np.ndarray,
    workers: int,
    on_images: Callable[[int], None] = lambda n: None,
    *,
    few: int = FEW,
) -> list[Damaged]:
    """Write the pictures into `pixels`, uint8 (N,C,H,W), a row each, and give back those that cannot be read.

    `few` pictures or more are decoded by `workers` processes, where `pixels` is a whole file that is mapped to be
    written; fewer, and other arrays, by this one. `on_images` gets how many pictures came in since its last call.
    Rows that cannot be read stay as they are. Raises AdvmixError where a process ends before its work does.
    """
    chunks = [range(start, min(start + _CHUNK, len(paths))) for start in range(0, len(paths), _CHUNK)]
    workers = min(workers, len(chunks))
    found: list[tuple[int, str]] = []
    if workers > 1 and len(paths) >= few and _is_shared(pixels) and sys.executable:
        with contextlib.closing(_side_by_side(paths, chunks, pixels, workers)) as done:
            for rows, damaged in done:
                found += damaged
                on_images(len(rows))
    else:
        for rows in chunks:
            found += _decoded(rows, paths[rows.start : rows.stop], pixels)
            on_images(len(rows))
    return [Damaged(row, shown(paths[row]), reason) for row, reason in sorted(found)]


def _decoded(rows: range, paths: Sequence[str], pixels: np.ndarray) -> list[tuple[int, str]]:
    _, channels, height, width = pixels.shape
    damaged = []
    for row, path in zip(rows, paths, strict=True):
        try:
            pixels[row] = picture(path, channels, (height, width))
        except Unreadable as error:
            damaged.append((row, error.reason))
    return damaged


def _is_shared(pixels: np.ndarray) -> bool:
    """Whether what another process writes into the file is seen here. A view does not know where it begins."""
    return (
        isinstance(pixels, np.memmap)
        and isinstance(pixels.base, mmap.mmap)
        and pixels.filename is not None
        and pixels.mode in ("r+", "w+")
        and pixels.flags.c_contiguous
    )


_Done = tuple[range, list[tuple[int, str]]]
_Worker = subprocess.Popen[bytes]


def _side_by_side(paths: Sequence[str], chunks: Sequence[range], pixels: Any, workers: int) -> Generator[_Done]:
    """What each chunk came to, as they are done. The processes end with the generator."""
    job = {"file": os.fspath(pixels.filename), "offset": pixels.offset, "shape": pixels.shape}
    done: queue.Queue[_Done | _Worker] = queue.Queue()
    waiting: queue.SimpleQueue[range] = queue.SimpleQueue()
    for chunk in chunks:
        waiting.put(chunk)
    started: list[tuple[_Worker, threading.Thread]] = []
    at: defaultdict[int, deque[range]] = defaultdict(deque)

    def next_chunk() -> range | None:
        with contextlib.suppress(queue.Empty):
            return waiting.get_nowait()
        return None

    def serve(worker: _Worker) -> None:
        assert worker.stdin is not None
        assert worker.stdout is not None
        sent = at[worker.pid]
        try:
            _say(worker.stdin, job)
            while True:
                # One chunk ahead, so that it need not wait until this process has its turn.
                while len(sent) < 2 and (rows := next_chunk()) is not None:
                    sent.append(rows)
                    _say(worker.stdin, {"start": rows.start, "paths": paths[rows.start : rows.stop]})
                if not sent:
                    return
                damaged = json.loads(worker.stdout.readline())
                done.put((sent.popleft(), [(row, reason) for row, reason in damaged]))
        except (OSError, ValueError):  # its pipes are closed: it ended
            done.put(worker)

    with tempfile.TemporaryFile() as complaints:
        try:
            for _ in range(workers):
                worker = _start(complaints)
                started.append((worker, threading.Thread(target=serve, args=(worker,), daemon=True)))
                started[-1][1].start()
            for _ in chunks:
                event = done.get()
                if isinstance(event, subprocess.Popen):
                    raise _ended(event, paths, next(iter(at[event.pid]), None), complaints)
                yield event
        finally:
            for worker, _ in started:
                worker.kill()
            for worker, thread in started:
                worker.wait()
                if thread.ident is not None:
                    thread.join()
                for pipe in (worker.stdin, worker.stdout):
                    with contextlib.suppress(OSError):  # what was not said to it any more
                        assert pipe is not None
                        pipe.close()


def _start(complaints: IO[bytes]) -> _Worker:
    # Else each numpy would start a thread a core for nothing.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _WORKER, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
        )
    except OSError as error:
        raise AdvmixError(
            f"no process could be started to decode pictures: {error.strerror or error}",
            "free some memory, or end other processes",
            code="worker-failed",
        ) from error


def _ended(worker: _Worker, paths: Sequence[str], rows: range | None, complaints: IO[bytes]) -> AdvmixError:
    """What to say of a process that ended before its work did."""
    worker.kill()  # it may still be about to end: its pipes are closed already
    code = worker.wait()
    complaints.seek(0)
    last = complaints.read()[-4096:].decode("utf-8", "replace").strip().splitlines()
    how = f"was ended by {_signal(-code)}" if code < 0 else f"ended with status {code}"
    about = f": {shown(last[-1])[:200]}" if last else ""
    within = f", among {shown(paths[rows[0]])} to {shown(paths[rows[-1]])}" if rows else ""
    return AdvmixError(
        f"a process that decodes pictures {how}{within}{about}",
        "memory or the disk may have run out, or one of these pictures makes Pillow crash: move them away in turn",
        code="worker-failed",
    )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def work() -> None:
    """What a process of `decode` does: it is told the job, then rows and paths, and answers each with the damage."""
    job = json.loads(sys.stdin.buffer.readline())
    pixels = np.memmap(job["file"], np.uint8, "r+", job["offset"], tuple(job["shape"]))
    for line in sys.stdin.buffer:
        chunk = json.loads(line)
        rows = range(chunk["start"], chunk["start"] + len(chunk["paths"]))
        _say(sys.stdout.buffer, _decoded(rows, chunk["paths"], pixels))


def _say(pipe: IO[bytes], message: Any) -> None:
    """A line of ASCII: names that are not UTF-8 go through as escapes."""
    pipe.write(json.dumps(message).encode("ascii") + b"\n")
    pipe.flush()
