"""Pixels that stay in their file: read as they are indexed, so that a set may be larger than memory."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from advmix_cli.errors import DamagedError


class FilePixels:
    """Rows of a file of uint8 pixels (N,C,H,W); indexed by rows or a slice it gives a tensor on its device.

    They are read, not mapped: what was read takes no memory afterwards, and a file that became shorter is an error and
    no signal.
    """

    def __init__(
        self,
        path: Path,
        offset: int,
        shape: tuple[int, int, int, int],
        device: torch.device | str = "cpu",
        rows: torch.Tensor | None = None,
    ) -> None:
        self._path, self._offset, self._of = path, offset, shape
        self._rows = torch.arange(shape[0]) if rows is None else rows
        self.device = torch.device(device)
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._file)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N,C,H,W)."""
        return (len(self._rows), *self._of[1:])

    @property
    def nbytes(self) -> int:
        """Of all its pixels."""
        n, channels, height, width = self.shape
        return n * channels * height * width

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | torch.Tensor) -> torch.Tensor:
        return self._read(self._at(index).tolist()).to(self.device, non_blocking=True)

    def of(self, index: slice | torch.Tensor) -> FilePixels:
        """These rows, unread."""
        return FilePixels(self._path, self._offset, self._of, self.device, self._at(index))

    def _at(self, index: slice | torch.Tensor) -> torch.Tensor:
        return self._rows[index.cpu() if isinstance(index, torch.Tensor) else index]

    def to(self, device: torch.device | str) -> FilePixels:
        """The same, whose tensors come to another device."""
        return FilePixels(self._path, self._offset, self._of, device, self._rows)

    def _read(self, rows: list[int]) -> torch.Tensor:
        _, channels, height, width = self._of
        size = channels * height * width
        pixels = torch.empty((len(rows), channels, height, width), dtype=torch.uint8)
        target = memoryview(pixels.view(-1).numpy().data) if len(rows) else memoryview(b"")
        done = 0
        while done < len(rows):
            last = done + 1
            while last < len(rows) and rows[last] == rows[last - 1] + 1:  # neighbours in one go
                last += 1
            self._fill(target[done * size : last * size], self._offset + rows[done] * size)
            done = last
        return pixels

    def _fill(self, target: memoryview, offset: int) -> None:
        while target:
            count = os.preadv(self._file, [target], offset)
            if count <= 0:
                raise DamagedError(f"{self._path} is damaged: it is shorter than it was", "advmix data verify")
            target, offset = target[count:], offset + count


Pixels = torch.Tensor | FilePixels


def batches(pixels: Pixels, rows: Sequence[torch.Tensor]) -> Iterator[torch.Tensor]:
    """`pixels[each]` for each of `rows`; from a file the next is read while this one is worked on."""
    if isinstance(pixels, torch.Tensor):
        yield from (pixels[each] for each in rows)
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(pixels.__getitem__, rows[0]) if rows else None
        for following in [*rows[1:], None]:
            assert waiting is not None
            now, waiting = waiting, None if following is None else pool.submit(pixels.__getitem__, following)
            yield now.result()
