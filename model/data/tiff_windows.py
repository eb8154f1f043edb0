"""Windows of a TIFF straight from the file: the tiles or strips that a box touches, and no others.

Taken here are 8-bit samples in cells that are small enough and whose decoder tells of damage; values are as stored
(a palette's indices, not its colours). What is not taken is left to `model.data.converted`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigamask.errors import BadImage
from gigamask.geometry import Box
from gigamask.settings import Settings
from gigamask.sources.limits import translated
from gigamask.sources.tiff_cells import Segments, locate_segments
from gigamask.sources.tiff_header import MINISBLACK, PALETTE, RGB, TiffHeader, read_tiff_header

Bytes = NDArray[np.uint8]

MAX_CELL_BYTES = 16 * 2**20  # a larger cell makes small windows dear
_CODECS = (1, 5, 8, 32773, 32946, 50000)  # none, LZW, deflate, packbits, zstd; a damaged JPEG decodes without a word
_OPEN_FILES = 64  # whose tables of cells are remembered


def read_header(path: Path) -> TiffHeader:
    """Raises BadImage."""
    return read_tiff_header(path, Settings.model_construct())


def takes_windows(h: TiffHeader) -> bool:
    cell_bytes = h.cell[0] * h.cell[1] * (1 if h.separate else h.bands)
    plain = h.dtype == np.uint8 and h.bits == 8 and h.photometric in (MINISBLACK, RGB, PALETTE) and h.orientation == 1
    return plain and h.codec in _CODECS and cell_bytes <= MAX_CELL_BYTES


@dataclass(frozen=True, slots=True)
class _Cells:
    header: TiffHeader
    segments: Segments
    decode: Any  # tifffile's, of one cell; needs no open file


def read_window(path: Path, stamp: int, box: Box) -> Bytes:
    """(h, w, bands) of a box inside the picture. stamp: changes with the file. Raises BadImage."""
    cells = _cells(path, stamp)
    out = np.empty((*box.shape, cells.header.bands), np.uint8)
    with path.open("rb") as stream:
        for index, cell, plane in _touched(cells.header, box):
            pixels = _decoded(cells, stream.fileno(), index)
            inside = Box(max(cell.y0, box.y0), max(cell.x0, box.x0), min(cell.y1, box.y1), min(cell.x1, box.x1))
            out[(*inside.within(box).slices, plane)] = pixels[inside.within(cell).slices]
    return out


@lru_cache(maxsize=_OPEN_FILES)
def _cells(path: Path, stamp: int) -> _Cells:
    import tifffile

    header = read_header(path)
    segments = locate_segments(header)
    if segments.gaps:
        raise BadImage(f"{segments.gaps} of {len(segments.sizes)} segments hold no data")
    with translated("the TIFF tags cannot be read"), tifffile.TiffFile(path) as tiff:
        return _Cells(header, segments, tiff.pages[header.page].decode)


def _touched(h: TiffHeader, box: Box) -> Iterator[tuple[int, Box, slice]]:
    """Index, place and bands of every cell that the box meets; bands lie in planes of their own where stored so."""
    (height, width), down, across = h.cell, -(-h.height // h.cell[0]), -(-h.width // h.cell[1])
    planes = [slice(band, band + 1) for band in range(h.bands)] if h.separate else [slice(0, h.bands)]
    for number, plane in enumerate(planes):
        for row in range(box.y0 // height, -(-box.y1 // height)):
            for col in range(box.x0 // width, -(-box.x1 // width)):
                cell = Box(row * height, col * width, (row + 1) * height, (col + 1) * width)
                yield (number * down + row) * across + col, cell.clip((h.height, h.width)), plane


def _decoded(cells: _Cells, descriptor: int, index: int) -> Bytes:
    """(cell height, cell width, bands); a cell at the right or bottom may be larger than its place."""
    size, offset = int(cells.segments.sizes[index]), int(cells.segments.offsets[index])
    with translated(f"segment {index} of {len(cells.segments.sizes)} does not decode"):
        decoded, _, _ = cells.decode(os.pread(descriptor, size, offset), index)
        pixels: Bytes = decoded[0]
        return pixels
