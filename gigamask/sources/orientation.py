"""Upright rows from rows stored in any of the eight orientations (TIFF 6.0 tag 274, EXIF).

1 as stored; 2 mirrored left-right; 3 turned by 180 degrees; 4 mirrored top-bottom; 5 transposed; 6 to be turned 90
degrees clockwise; 7 transposed along the other diagonal; 8 to be turned 90 degrees counter-clockwise.
All but 1 and 2 need the last stored rows before the first upright one, so the image goes through a temporary file,
in slabs of columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gigamask.sources.blocks import Shelf
from gigamask.sources.limits import block_rows

Rows = NDArray[np.uint8]
SLAB_PX = 128


def upright_shape(shape: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (shape[1], shape[0]) if orientation >= 5 else shape


def upright(blocks: Iterator[Rows], shape: tuple[int, int], bands: int, orientation: int) -> Iterator[Rows]:
    """blocks: (n, width, bands) as stored, `shape` (height, width) as stored -> upright blocks."""
    if orientation == 1:
        return blocks
    if orientation == 2:
        return (block[:, ::-1] for block in blocks)
    return _turned(blocks, shape, bands, orientation)


def _turned(blocks: Iterator[Rows], shape: tuple[int, int], bands: int, orientation: int) -> Iterator[Rows]:
    shelf = Shelf(shape[0], SLAB_PX, bands, np.dtype(np.uint8))
    try:
        _fill(shelf, blocks, shape[1])
        yield from (
            _transposed(shelf, shape, orientation)
            if orientation >= 5
            else _upside_down(shelf, shape, bands, orientation)
        )
    finally:
        shelf.close()


def _fill(shelf: Shelf, blocks: Iterator[Rows], width: int) -> None:
    y = 0
    for block in blocks:
        for slab, x in enumerate(range(0, width, SLAB_PX)):
            part = block[:, x : x + SLAB_PX]
            pad = SLAB_PX - part.shape[1]
            shelf.put(slab, y, np.pad(part, ((0, 0), (0, pad), (0, 0))) if pad else part)
        y += block.shape[0]


def _upside_down(shelf: Shelf, shape: tuple[int, int], bands: int, orientation: int) -> Iterator[Rows]:
    height, width = shape
    step = block_rows(width, bands)
    for bottom in range(height, 0, -step):
        top = max(0, bottom - step)
        slabs = [shelf.take(slab, top, bottom - top) for slab in range(-(-width // SLAB_PX))]
        block = np.concatenate(slabs, axis=1)[::-1, :width]
        yield block[:, ::-1] if orientation == 3 else block


def _transposed(shelf: Shelf, shape: tuple[int, int], orientation: int) -> Iterator[Rows]:
    """Stored columns become rows: left to right for 5 and 6, right to left for 7 and 8; 6 and 7 read them bottom up."""
    height, width = shape
    slabs = list(enumerate(range(0, width, SLAB_PX)))
    for slab, x in slabs if orientation in (5, 6) else reversed(slabs):
        block = shelf.take(slab, 0, height)[:, : width - x].transpose(1, 0, 2)
        if orientation in (7, 8):
            block = block[::-1]
        if orientation in (6, 7):
            block = block[:, ::-1]
        yield np.ascontiguousarray(block)
