"""A picture that cannot be read by windows, converted once to one that can: a Zarr array in a cache folder.

PNG and JPEG decode from the top only. So a large one is decoded once, row by row, into chunks of 512 x 512, and every
window after that reads only the chunks it touches. Memory: about a row of chunks and the decoder's own rows while
converting (some 8 KiB a pixel of width, whatever the height), the window itself while reading.

The folder is $GIGAMASK_DATA_CACHE, else `gigamask/pictures` in the user's cache folder. It may be deleted at any time.
An entry belongs to a path, size and time of change; a file that was replaced is converted anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box

if TYPE_CHECKING:
    from gigamask.pyramid.arrays import Layout, LevelReader

Bytes = NDArray[np.uint8]

CACHE_VARIABLE = "GIGAMASK_DATA_CACHE"
CHUNK_PX = 512
_SHARD_PX = 16 * CHUNK_PX  # width of one file; its height is one chunk
_OPEN_ARRAYS = 64


def cache_folder() -> Path:
    told = os.environ.get(CACHE_VARIABLE)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(told) if told else home / "gigamask" / "pictures"


def read_window(path: Path, stamp: int, shape: tuple[int, int, int], box: Box) -> Bytes:
    """(h, w, bands) of a box inside a picture of (height, width, bands). Converts at first use; raises BadImage."""
    array = _open(cache_folder(), path, stamp, shape)
    y, x = box.slices
    return np.ascontiguousarray(array.read((slice(0, shape[2]), y, x)).transpose(1, 2, 0))


@lru_cache(maxsize=_OPEN_ARRAYS)
def _open(cache: Path, path: Path, stamp: int, shape: tuple[int, int, int]) -> LevelReader:
    from gigamask.pyramid.arrays import LevelReader

    key = hashlib.sha256(f"{path.resolve()}|{stamp}|{shape}".encode()).hexdigest()[:24]
    folder = cache / f"{path.stem}-{key}"
    if not folder.is_dir():
        _convert(path, shape, folder)
    return LevelReader(folder)


def _convert(path: Path, shape: tuple[int, int, int], folder: Path) -> None:
    """Written beside and renamed: a folder of that name is always whole, whoever else converts the same file."""
    from gigamask.sources.libvips import open_picture, picture_rows
    from gigamask.sources.signature import identify

    partial = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.part")
    partial.mkdir(parents=True)
    try:
        _write(partial, shape, picture_rows(open_picture(path, identify(path))))
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _layout(shape: tuple[int, int, int]) -> Layout:
    from gigamask.pyramid.arrays import Layout

    height, width, bands = shape
    shard_px = min(_SHARD_PX, -(-width // CHUNK_PX) * CHUNK_PX)
    chunk = (bands, CHUNK_PX, CHUNK_PX)
    return Layout((bands, height, width), chunk, (bands, CHUNK_PX, shard_px), ("c", "y", "x"), fill=0)


def _write(folder: Path, shape: tuple[int, int, int], blocks: Iterable[Bytes]) -> None:
    from gigamask.pyramid.arrays import LevelWriter, create_level

    layout = _layout(shape)
    create_level(folder, layout)
    writer, across = LevelWriter(folder, layout), layout.shard[2]
    for row, band in enumerate(_bands(blocks, shape)):
        for col, x in enumerate(range(0, shape[1], across)):
            writer.write_shard(row, col, band[:, :, x : x + across]).result()


def _bands(blocks: Iterable[Bytes], shape: tuple[int, int, int]) -> Iterator[Bytes]:
    """Blocks (n, width, bands) -> (bands, 512, width), the last with what is left. The buffer is used again."""
    height, width, depth = shape
    band, filled, done = np.empty((depth, min(CHUNK_PX, height), width), np.uint8), 0, 0
    for block in blocks:
        while len(block):
            taken = min(len(block), band.shape[1] - filled)
            band[:, filled : filled + taken] = block[:taken].transpose(2, 0, 1)
            block, filled, done = block[taken:], filled + taken, done + taken
            if filled == band.shape[1] or done == height:
                yield band[:, :filled]
                filled = 0
