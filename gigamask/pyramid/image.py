"""The image's pyramid: written in one pass from rows, read by windows.

Rows gather in a band, a file on disk as high as one shard. A full band is cut into blocks of a shard each; a block is
written and its half handed to the level above, whose band holds such pieces. So memory is a few blocks, whatever the
image's width. Band files have no name: they vanish with the process.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from gigamask.errors import BadImage
from gigamask.geometry import Box, level_count, level_shape
from gigamask.image_info import ImageInfo
from gigamask.plan import CHUNK_PX
from gigamask.pyramid import ngff
from gigamask.pyramid.arrays import Layout, LevelReader, LevelWriter, Pixels, create_level
from gigamask.pyramid.halve import halve_mean

BLOCK_PX = 2048
PIECE_PX = BLOCK_PX // 2


def image_layout(info: ImageInfo, level: int) -> Layout:
    """Shards of BLOCK_PX, or smaller where one holds the whole level."""
    shape = level_shape(info.shape, level)
    chunks = -(-max(shape) // CHUNK_PX)
    side = min(BLOCK_PX, CHUNK_PX << (chunks - 1).bit_length())
    return Layout(
        shape=(info.channels, *shape),
        chunk=(info.channels, CHUNK_PX, CHUNK_PX),
        shard=(info.channels, side, side),
        axes=ngff.IMAGE_AXES,
        fill=0,
    )


class ImageWriter:
    """`root` becomes a pyramid by `close`, which writes the root's metadata last; until then it is none."""

    def __init__(self, root: Path, info: ImageInfo, name: str = "image") -> None:
        self._root, self._info, self._name = root, info, name
        root.mkdir(parents=True, exist_ok=True)
        self._levels: list[_Level] = []
        for level in reversed(range(level_count(info.shape))):
            above = self._levels[0] if self._levels else None
            self._levels.insert(0, _Level(root, info, level, above))
        self._band = _RowBand(root, info)
        self._rows = 0

    def append(self, rows: Pixels) -> None:
        """rows: (n, width, channels), the next ones from the top. Raises BadImage where they do not fit the image."""
        expected = (self._info.width, self._info.channels)
        if rows.ndim != 3 or rows.shape[1:] != expected or rows.dtype != np.uint8:
            raise BadImage(f"rows are (n, {expected[0]}, {expected[1]}) uint8, not {rows.shape} {rows.dtype}")
        if self._rows + len(rows) > self._info.height:
            raise BadImage(f"the image has {self._info.height} rows, not {self._rows + len(rows)} or more")
        while len(rows):
            in_band = self._rows % BLOCK_PX
            part = rows[: BLOCK_PX - in_band]
            self._band.write(in_band, part)
            self._rows += len(part)
            rows = rows[len(part) :]
            if self._rows % BLOCK_PX == 0 or self._rows == self._info.height:
                self._flush()

    def _flush(self) -> None:
        row = (self._rows - 1) // BLOCK_PX
        for col in range(self._band.block_count):
            self._levels[0].write(row, col, self._band.read(col, self._rows - row * BLOCK_PX))

    def close(self) -> None:
        """Raises BadImage where rows are missing."""
        try:
            if self._rows != self._info.height:
                raise BadImage(f"the image has {self._info.height} rows; only {self._rows} were decoded")
            for level in self._levels:
                level.finish()
            ngff.write_group(self._root, ngff.image_attributes(self._info, len(self._levels), self._name))
        finally:
            self.discard()

    def discard(self) -> None:
        """Give back the band files."""
        self._band.close()
        for level in self._levels:
            level.close()

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class _RowBand:
    """Up to BLOCK_PX rows, stored a block after the other: a block is one read."""

    def __init__(self, root: Path, info: ImageInfo) -> None:
        self._width, self._channels = info.width, info.channels
        self._file = _nameless_file(root)
        self.block_count = -(-info.width // BLOCK_PX)

    def write(self, y: int, rows: Pixels) -> None:
        """rows: (n, width, channels), of which the first is row `y` of the band."""
        for col in range(self.block_count):
            part = np.ascontiguousarray(rows[:, col * BLOCK_PX : (col + 1) * BLOCK_PX])
            _write_all(self._file.fileno(), part, self._start(col) + y * part.shape[1] * self._channels)

    def read(self, col: int, height: int) -> Pixels:
        """(channels, height, block's width)"""
        width = min(BLOCK_PX, self._width - col * BLOCK_PX)
        block = _read_all(self._file.fileno(), (height, width, self._channels), self._start(col))
        return np.ascontiguousarray(block.transpose(2, 0, 1))

    def _start(self, col: int) -> int:
        return col * BLOCK_PX * BLOCK_PX * self._channels

    def close(self) -> None:
        self._file.close()


class _PieceBand:
    """Two rows of pieces (halved blocks of the level below), each in a slot of its own."""

    def __init__(self, root: Path, shape: tuple[int, ...]) -> None:
        self._channels, self._height, self._width = shape
        self._file = _nameless_file(root)
        self._cols = -(-self._width // PIECE_PX)

    def put(self, row: int, col: int, piece: Pixels) -> None:
        _write_all(self._file.fileno(), np.ascontiguousarray(piece), self._start(row, col))

    def completes(self, row: int, col: int) -> bool:
        """Whether the pieces in order up to (row, col) fill a row of blocks."""
        last_row = (row + 1) * PIECE_PX >= self._height
        return col == self._cols - 1 and (row % 2 == 1 or last_row)

    @property
    def block_count(self) -> int:
        return -(-self._width // BLOCK_PX)

    def read(self, row: int, col: int) -> Pixels:
        """Block (row, col): (channels, h, w)."""
        height = min(BLOCK_PX, self._height - row * BLOCK_PX)
        width = min(BLOCK_PX, self._width - col * BLOCK_PX)
        block = np.empty((self._channels, height, width), np.uint8)
        for y in range(0, height, PIECE_PX):
            for x in range(0, width, PIECE_PX):
                part = block[:, y : y + PIECE_PX, x : x + PIECE_PX]
                start = self._start(2 * row + y // PIECE_PX, 2 * col + x // PIECE_PX)
                part[...] = _read_all(self._file.fileno(), part.shape, start)
        return block

    def _start(self, row: int, col: int) -> int:
        return ((row % 2) * self._cols + col) * self._channels * PIECE_PX * PIECE_PX

    def close(self) -> None:
        self._file.close()


class _Level:
    """Writes its blocks, and passes their halves to the level above."""

    def __init__(self, root: Path, info: ImageInfo, level: int, above: _Level | None) -> None:
        layout = image_layout(info, level)
        create_level(root / str(level), layout)
        self._writer = LevelWriter(root / str(level), layout)
        self._above = above
        self._band = _PieceBand(root, layout.shape) if level else None
        self._pending: Any = None

    def write(self, row: int, col: int, block: Pixels) -> None:
        self.finish()
        self._pending = self._writer.write_shard(row, col, block)
        if self._above:
            self._above.put(row, col, halve_mean(block))

    def put(self, row: int, col: int, piece: Pixels) -> None:
        """Pieces come row by row, left to right."""
        assert self._band is not None
        self._band.put(row, col, piece)
        if self._band.completes(row, col):
            for block_col in range(self._band.block_count):
                self.write(row // 2, block_col, self._band.read(row // 2, block_col))

    def finish(self) -> None:
        """Wait for the last shard. Raises what its write raised."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        if self._band:
            self._band.close()


def _nameless_file(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def _write_all(file: int, pixels: Pixels, start: int) -> None:
    rest = pixels.data.cast("B")
    while len(rest):
        written = os.pwrite(file, rest, start)
        start, rest = start + written, rest[written:]


def _read_all(file: int, shape: tuple[int, ...], start: int) -> Pixels:
    pixels = np.empty(shape, np.uint8)
    rest = pixels.data.cast("B")
    while len(rest):
        count = os.preadv(file, [rest], start)
        if not count:
            raise OSError(f"a band file ends at byte {start}")
        start, rest = start + count, rest[count:]
    return pixels


class ImagePyramid:
    """A finished image pyramid. Safe to read from several threads."""

    def __init__(self, root: Path) -> None:
        """Raises FileNotFoundError where there is none, or none finished."""
        attributes = ngff.read_attributes(root)
        self.root = root
        self.info = ImageInfo.model_validate(attributes["gigamask"]["image"])
        self.levels = len(attributes["ome"]["multiscales"][0]["datasets"])
        self._readers = [LevelReader(root / str(level)) for level in range(self.levels)]

    def read(self, box: Box, level: int = 0) -> Pixels:
        """box: in pixels of `level`. (channels, h, w). Raises IndexError where it leaves the level."""
        channels = slice(0, self.info.channels)
        return self._readers[level].read((channels, *box.slices))
