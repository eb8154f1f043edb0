"""TIFF tiles and strips one by one: located by tifffile, decoded by imagecodecs, or by libvips where it is JPEG.

Takes the codecs that the libvips in the wheel lacks (it would yield black without an error), and whatever else it can:
libvips holds two whole rows of tiles, or several strips, so that its memory grows with the width. JPEG goes through
libvips one tile at a time: imagecodecs is silent about a damaged stream, libvips with `fail_on="warning"` is not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigamask.errors import BadImage, ImageTooLarge
from gigamask.sources.blocks import CellGrid, Pixels, rows_of
from gigamask.sources.libvips import library
from gigamask.sources.limits import BLOCK_BYTES, MAX_CELL_BYTES, translated
from gigamask.sources.tiff_header import CIELAB, MINISBLACK, MINISWHITE, PALETTE, RGB, SEPARATED, YCBCR, TiffHeader

JPEG = 7
_TRANSPARENCY = 4
_WHOLE_STRIP_BYTES = 32 * 1024**2  # larger ones are left to libvips, which reads them by scanlines
_VIPS_CODECS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946, 50001}
_CELL_CODECS = {1, 5, 7, 8, 32773, 32946, 33005, 34712, 34887, 34925, 50000, 50001, 50002, 52546}
_RGB_INSIDE = {JPEG, 34712, 50001, 50002, 52546}  # codecs whose decoder turns YCbCr into RGB


def takes_cells(h: TiffHeader) -> bool:
    """Whether this page is read here; libvips takes it otherwise."""
    if h.codec not in _CELL_CODECS or not _plain_samples(h):
        return False
    return h.tiled or h.separate or not libvips_takes(h) or _segment_bytes(h) <= _WHOLE_STRIP_BYTES


def _segment_bytes(h: TiffHeader) -> int:
    """Of one tile or strip, decoded."""
    assert h.dtype is not None
    return h.cell[0] * h.cell[1] * (1 if h.separate else h.bands) * h.dtype.itemsize


def libvips_takes(h: TiffHeader) -> bool:
    """libvips has no tiles of less than 8 bits."""
    known = h.photometric not in (PALETTE, CIELAB, _TRANSPARENCY) or h.bits < 8
    return h.codec in _VIPS_CODECS and known and not (h.tiled and h.bits < 8)


def _plain_samples(h: TiffHeader) -> bool:
    known = (MINISWHITE, MINISBLACK, RGB, PALETTE, SEPARATED, CIELAB, _TRANSPARENCY)
    whole = h.dtype is not None and h.dtype.kind in "uif" and (h.bits in (1, 2, 4) or h.bits == 8 * h.dtype.itemsize)
    return whole and (h.photometric in known or (h.photometric == YCBCR and h.codec in _RGB_INSIDE))


@dataclass(frozen=True, slots=True)
class Segments:
    """Where each tile or strip lies. gaps: how many have no bytes (sparse files: no data there)."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    gaps: int


def locate_segments(h: TiffHeader) -> Segments:
    """Raises BadImage where the tables are short, overrun the file or hold nothing, ImageTooLarge for a huge cell."""
    cell_bytes = _segment_bytes(h)
    if cell_bytes > MAX_CELL_BYTES:
        raise ImageTooLarge(
            f"one {'tile' if h.tiled else 'strip'} decodes to {cell_bytes:,} bytes; at most {MAX_CELL_BYTES:,} are read"
        )
    offsets, sizes = _tables(h)
    end = h.path.stat().st_size
    beyond = np.flatnonzero((offsets < 0) | (sizes < 0) | (offsets + sizes > end))
    if beyond.size:
        i = int(beyond[0])
        raise BadImage(f"segment {i} of {len(offsets)} ends at byte {offsets[i] + sizes[i]:,} of {end:,}: truncated?")
    gaps = int(np.count_nonzero(sizes == 0))
    if gaps == len(sizes):
        raise BadImage(f"none of the image's {len(sizes):,} segments holds data")
    return Segments(offsets, sizes, gaps)


def _tables(h: TiffHeader) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    down, across = -(-h.height // h.cell[0]), -(-h.width // h.cell[1])
    expected = down * across * (h.bands if h.separate else 1)
    with translated("the TIFF tags cannot be read"):
        import tifffile

        with tifffile.TiffFile(h.path) as tiff:
            page = tiff.pages[h.page]
            offsets = np.asarray(page.dataoffsets, np.int64)
            sizes = np.asarray(page.databytecounts, np.int64)
    if len(offsets) != expected or len(sizes) != expected:
        raise BadImage(
            f"{expected:,} segments make this image; the file lists {len(offsets):,} and {len(sizes):,} sizes"
        )
    return offsets, np.where(offsets == 0, 0, sizes)


def cell_rows(h: TiffHeader, segments: Segments) -> Iterator[Pixels]:
    """Blocks (n, width, bands), or bands + 1 where there are gaps: the last band is then 1 where data is."""
    with ExitStack() as open_files:
        import tifffile

        with translated("the TIFF tags cannot be read"):
            page = open_files.enter_context(tifffile.TiffFile(h.path)).pages[h.page]
            decoder = _Decoder(h, segments, page, open_files.enter_context(h.path.open("rb")).fileno())
        bands = h.bands + bool(segments.gaps)
        assert h.dtype is not None
        height = h.cell[0] * decoder.strips
        yield from rows_of(CellGrid(h.height, h.width, height, h.cell[1], bands, h.dtype, decoder.read))


class _Decoder:
    """Stateless after construction, so that threads may share it. strips: how many strips make a cell."""

    def __init__(self, header: TiffHeader, segments: Segments, page: Any, descriptor: int) -> None:
        self._h, self._segments, self._page, self._descriptor = header, segments, page, descriptor
        self._tables: bytes | None = page.jpegtables
        self._down, self._across = -(-header.height // header.cell[0]), -(-header.width // header.cell[1])
        self._decode = page.decode
        self.strips = 1 if header.tiled else max(1, BLOCK_BYTES // _segment_bytes(header))

    def read(self, row: int, col: int) -> Pixels:
        """-> (cell height, cell width, bands)"""
        if self.strips == 1:
            return self._cell(row, col)
        first = row * self.strips
        return np.concatenate([self._cell(i, col) for i in range(first, min(first + self.strips, self._down))])

    def _cell(self, row: int, col: int) -> Pixels:
        """One tile, or one strip, of all bands."""
        index = row * self._across + col
        planes = range(self._h.bands) if self._h.separate else range(1)
        parts = [self._segment(index + plane * self._down * self._across) for plane in planes]
        if self._segments.gaps:
            parts.append(np.full((*parts[0].shape[:2], 1), self._segments.sizes[index] > 0, self._h.dtype))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)

    def _segment(self, index: int) -> Pixels:
        """-> (cell height, cell width, bands of a segment), zeros where the file has none."""
        assert self._h.dtype is not None
        bands = 1 if self._h.separate else self._h.bands
        cell = np.zeros((*self._h.cell, bands), self._h.dtype)
        size = int(self._segments.sizes[index])
        if size:
            with translated(f"segment {index} of {len(self._segments.sizes)} ({self._h.codec_name}) does not decode"):
                pixels = self._pixels(os.pread(self._descriptor, size, int(self._segments.offsets[index])), index)
                cell[: pixels.shape[0], : pixels.shape[1]] = pixels
        return cell

    def _pixels(self, raw: bytes, index: int) -> Pixels:
        h = self._h
        if h.codec == JPEG and h.bits == 8 and not h.separate and h.bands in (1, 3):
            return decode_jpeg(raw, self._tables, h.photometric, h.cell, h.bands)
        options = {"jpegtables": self._tables} if h.codec == JPEG else {}
        decoded, _, _ = self._decode(raw, index, **options)
        pixels: Pixels = decoded[0]
        return pixels


def decode_jpeg(raw: bytes, tables: bytes | None, photometric: int, cell: tuple[int, int], bands: int) -> Pixels:
    """One abbreviated JPEG stream -> (height, width, bands), not larger than the cell."""
    image = library().Image.jpegload_buffer(whole_jpeg(raw, tables, photometric), fail_on="warning")
    if image.bands != bands or image.height > cell[0] or image.width > cell[1]:
        raise BadImage(
            f"a tile is {cell[1]} x {cell[0]} px of {bands} bands; "
            f"its JPEG is {image.width} x {image.height} of {image.bands}"
        )
    pixels: Pixels = image.numpy().reshape(image.height, image.width, bands)
    return pixels


def whole_jpeg(raw: bytes, tables: bytes | None, photometric: int) -> bytes:
    """The tile with the shared tables, and an Adobe marker for RGB or YCbCr, which TIFF knows and JPEG does not."""
    if raw[:2] != b"\xff\xd8":
        raise BadImage(f"a JPEG begins with ff d8, not {raw[:2].hex(' ')}")
    shared = tables[2:-2] if tables and tables[-2:] == b"\xff\xd9" else (tables or b"")[2:]
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([1 if photometric == YCBCR else 0])
    return b"\xff\xd8" + (adobe if photometric in (RGB, YCBCR) else b"") + shared + raw[2:]
