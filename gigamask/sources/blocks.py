"""Rows from cells: a grid of tiles becomes blocks of whole rows, in memory that does not grow with the width.

One row of tiles of a wide image is large (65536 x 1024 RGB: 200 MB), so where it is over BAND_BYTES its tiles are
put into an unnamed temporary file, one after the other, and rows are read back out of all of them.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigamask.sources.limits import block_rows

Pixels = NDArray[Any]
BAND_BYTES = 16 * 1024**2
DECODERS = 2


@dataclass(frozen=True, slots=True)
class CellGrid:
    """read(row, col) -> (cell_height, cell_width, bands) of `dtype`, overhang included; called from several threads."""

    height: int
    width: int
    cell_height: int
    cell_width: int
    bands: int
    dtype: np.dtype[Any]
    read: Callable[[int, int], Pixels]

    @property
    def shape(self) -> tuple[int, int]:
        """Cells down, cells across."""
        return -(-self.height // self.cell_height), -(-self.width // self.cell_width)


class Shelf:
    """Slabs of pixels side by side, each (height, slab_width, bands), in an unnamed temporary file."""

    def __init__(self, height: int, slab_width: int, bands: int, dtype: np.dtype[Any]) -> None:
        self._height, self._slab_width, self._bands, self._dtype = height, slab_width, bands, dtype
        self._row_bytes = slab_width * bands * dtype.itemsize
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close()

    def put(self, slab: int, y: int, pixels: Pixels) -> None:
        """pixels: (n, slab_width, bands), rows y.. of this slab."""
        start = (slab * self._height + y) * self._row_bytes
        view = np.ascontiguousarray(pixels).data.cast("B")
        while view:
            written = os.pwrite(self._file.fileno(), view, start)
            view, start = view[written:], start + written

    def take(self, slab: int, y: int, rows: int) -> Pixels:
        """-> (rows, slab_width, bands)"""
        start = (slab * self._height + y) * self._row_bytes
        raw = os.pread(self._file.fileno(), rows * self._row_bytes, start)
        return np.frombuffer(raw, self._dtype).reshape(rows, self._slab_width, self._bands)

    def close(self) -> None:
        self._file.close()


def rows_of(grid: CellGrid) -> Iterator[Pixels]:
    """Blocks (n, width, bands), top to bottom."""
    band_bytes = grid.cell_height * grid.width * grid.bands * grid.dtype.itemsize
    with ThreadPoolExecutor(DECODERS) as pool:
        for row in range(grid.shape[0]):
            rows = min(grid.cell_height, grid.height - row * grid.cell_height)
            cells = _decode_row(grid, row, pool)
            yield from _in_memory(grid, cells, rows) if band_bytes <= BAND_BYTES else _on_disk(grid, cells, rows)


def _decode_row(grid: CellGrid, row: int, pool: ThreadPoolExecutor) -> Iterator[Pixels]:
    """The cells of one row, left to right, a few decoded ahead."""
    ahead: deque[Future[Pixels]] = deque()
    try:
        for col in range(grid.shape[1]):
            ahead.append(pool.submit(grid.read, row, col))
            if len(ahead) > DECODERS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for waiting in ahead:
            waiting.cancel()


def _in_memory(grid: CellGrid, cells: Iterator[Pixels], rows: int) -> Iterator[Pixels]:
    band = np.empty((rows, grid.width, grid.bands), grid.dtype)
    for col, cell in enumerate(cells):
        x = col * grid.cell_width
        band[:, x : x + grid.cell_width] = cell[:rows, : grid.width - x]
    yield from split(band)


def _on_disk(grid: CellGrid, cells: Iterator[Pixels], rows: int) -> Iterator[Pixels]:
    if grid.shape[1] == 1:
        yield from split(next(cells)[:rows, : grid.width])
        return
    shelf = Shelf(grid.cell_height, grid.cell_width, grid.bands, grid.dtype)
    try:
        for col, cell in enumerate(cells):
            shelf.put(col, 0, cell[:rows])
        yield from shelf_rows(shelf, rows, grid)
    finally:
        shelf.close()


def shelf_rows(shelf: Shelf, height: int, grid: CellGrid) -> Iterator[Pixels]:
    """Blocks of whole rows from slabs as wide as the grid's cells."""
    step = block_rows(grid.width, grid.bands * grid.dtype.itemsize)
    for y in range(0, height, step):
        n = min(step, height - y)
        block = np.empty((n, grid.width, grid.bands), grid.dtype)
        for col in range(grid.shape[1]):
            x = col * grid.cell_width
            block[:, x : x + grid.cell_width] = shelf.take(col, y, n)[:, : grid.width - x]
        yield block


def split(band: Pixels) -> Iterator[Pixels]:
    """A tall block as several of at most BLOCK_BYTES."""
    step = block_rows(band.shape[1], band.shape[2] * band.itemsize)
    for y in range(0, band.shape[0], step):
        yield band[y : y + step]


def beside(blocks: Iterator[Pixels], others: Iterator[Pixels]) -> Iterator[tuple[Pixels, Pixels]]:
    """Each block with the rows of the other image that lie beside it, however that one is cut."""
    rest = next(others)
    for block in blocks:
        while len(rest) < len(block):
            rest = np.concatenate([rest, next(others)])
        yield block, rest[: len(block)]
        rest = rest[len(block) :]
