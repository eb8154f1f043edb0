"""Image files as they are stored, read by windows, whatever their size.

Three ways, by what the file allows:

- a TIFF in small tiles or strips: its cells are read from the file (`model.data.tiff_windows`);
- a picture of at most 8 megapixels: decoded whole, and the last ones are kept, 256 MiB of them together;
- anything else: converted once to chunks on disk (`model.data.converted`).

So memory is bounded by what is kept and by the windows in hand, and does not grow with a picture or with their number.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from gigamask.errors import BadImage
from gigamask.geometry import Box
from gigamask.sources.libvips import open_picture, picture_rows
from gigamask.sources.signature import Kind, identify
from model.data import converted, tiff_windows

Bytes = NDArray[np.uint8]

DECODED_PX = 8 * 2**20  # a picture of more pixels is never decoded whole
KEPT_BYTES = 256 * 2**20  # of decoded pictures, all together


@dataclass(frozen=True, slots=True)
class Raster:
    """One file of 8-bit samples. stamp: changes when the file does."""

    path: Path
    height: int
    width: int
    bands: int
    stamp: int
    in_cells: bool  # a TIFF whose cells are read one by one

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    def read(self, box: Box) -> Bytes:
        """(h, w, bands) of a box inside, as stored. Raises BadImage, naming the file; IndexError for a box beyond."""
        if box.clip(self.shape) != box:
            raise IndexError(f"{self.path}: {box} is not inside {self.height} x {self.width}")
        with named(self.path):
            if self.in_cells:
                return tiff_windows.read_window(self.path, self.stamp, box)
            if self.height * self.width <= DECODED_PX:
                whole = _kept.get((self.path, self.stamp), lambda: decode(self.path))
                return whole[box.slices].copy()  # a view would hold all of it, kept or not
            return converted.read_window(self.path, self.stamp, (*self.shape, self.bands), box)


def open_raster(path: Path, bands: int | None = None) -> Raster:
    """Reads the header alone. Raises FileNotFoundError, BadImage, and ValueError where `bands` or 8 bits are not so."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected there, no such file")
    status = path.stat()
    stamp = status.st_mtime_ns ^ (status.st_size << 64)
    with named(path):
        if identify(path) is Kind.TIFF:
            header = tiff_windows.read_header(path)
            found, dtype, in_cells = header.bands, header.dtype, tiff_windows.takes_windows(header)
            shape = header.height, header.width
        else:
            picture = open_picture(path, identify(path))
            found, dtype, in_cells, shape = picture.bands, picture.dtype, False, (picture.height, picture.width)
    if bands not in (None, found):
        raise ValueError(f"{path}: {found} bands, expected {bands}")
    if dtype != np.uint8:
        raise ValueError(f"{path}: samples are {dtype}, expected uint8")
    return Raster(path, *shape, found, stamp, in_cells)


def decode(path: Path) -> Bytes:
    """(height, width, bands), whole."""
    rows = list(picture_rows(open_picture(path, identify(path))))
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """A file that does not decode is named."""
    try:
        yield
    except BadImage as exc:
        raise type(exc)(f"{path}: {exc}") from exc


@dataclass(slots=True)
class Kept:
    """The arrays that were used last, as many as fit into `budget_bytes`. Safe from several threads."""

    budget_bytes: int
    _arrays: OrderedDict[object, Bytes] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def get(self, key: object, make: Callable[[], Bytes]) -> Bytes:
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
                return self._arrays[key]
        made = make()
        made.setflags(write=False)
        with self._lock:
            self._arrays[key] = made
            while self.held_bytes > self.budget_bytes:
                self._arrays.popitem(last=False)
        return made

    @property
    def held_bytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())


_kept = Kept(KEPT_BYTES)
