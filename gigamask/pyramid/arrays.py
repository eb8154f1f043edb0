"""One level of a pyramid: a sharded Zarr v3 array, read by windows and written by whole shards.

A shard is one file, written once: temporary file, fsync, rename (tensorstore's file driver).
tensorstore reads a shard back before it writes one that overruns the array's end, because the inner chunks beyond the
end are never written; a torn or foreign shard would then fail the write for ever. So a level is written through a
handle whose shape is rounded up to whole shards: every write covers its shard, and chunks of fill value are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

# Threads that copy and encode, and files open at a time; no cache, so that memory stays flat.
COPY_THREADS = 4
OPEN_FILES = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """shape, chunk, shard: one entry an axis, the last two axes being (y, x). fill: value of what was never written."""

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    axes: tuple[str, ...]
    fill: int

    @property
    def padded(self) -> tuple[int, ...]:
        """The shape in whole shards."""
        return tuple(-(-n // side) * side for n, side in zip(self.shape, self.shard, strict=True))

    def metadata(self, shape: tuple[int, ...]) -> dict[str, Any]:
        return {
            "shape": shape,
            "data_type": "uint8",
            "fill_value": self.fill,
            "dimension_names": self.axes,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.shard}},
            "codecs": [_sharding(self.chunk)],
        }


def _sharding(chunk: tuple[int, ...]) -> dict[str, Any]:
    zstd = {"name": "zstd", "configuration": {"level": 1, "checksum": False}}
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": chunk,
            "codecs": [{"name": "bytes"}, zstd],
            "index_codecs": index,
            "index_location": "end",
        },
    }


@lru_cache(maxsize=1)
def _context() -> Any:
    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": 0},
            "data_copy_concurrency": {"limit": COPY_THREADS},
            "file_io_concurrency": {"limit": OPEN_FILES},
        }
    )


def _spec(path: Path) -> dict[str, Any]:
    return {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path.absolute()}/"}}


def create_level(path: Path, layout: Layout) -> None:
    """Write the array's `zarr.json` unless the same one is there. Raises ValueError where another one is."""
    spec = _spec(path) | {"metadata": layout.metadata(layout.shape)}
    ts.open(spec, create=True, open=True, context=_context()).result()


class LevelReader:
    def __init__(self, path: Path) -> None:
        """Raises FileNotFoundError where there is no array."""
        if not (path / "zarr.json").is_file():
            raise FileNotFoundError(f"no Zarr array at {path}")
        self._array = ts.open(_spec(path), open=True, context=_context()).result()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._array.shape)

    def read(self, window: tuple[slice, ...]) -> Pixels:
        """Raises IndexError where the window leaves the array: unlike numpy, nothing is clipped."""
        for part, size in zip(window, self.shape, strict=True):
            if not 0 <= part.start < part.stop <= size:
                raise IndexError(f"a window lies in [0, {size}), not [{part.start}, {part.stop})")
        pixels: Pixels = self._array[window].read(order="C").result()
        return pixels


class LevelWriter:
    """Writes whole shards of a level that `create_level` made."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._layout = layout
        spec = _spec(path) | {
            "metadata": layout.metadata(layout.padded),
            "open": True,
            "assume_metadata": True,
        }
        self._array = ts.open(spec, context=_context()).result()

    def write_shard(self, row: int, col: int, block: Pixels) -> Any:
        """block: (..., h, w), the shard's part inside the array. Returns a future; `block` is not to change before it.

        Raises ValueError where the block is not exactly that part.
        """
        origin = (0,) * (block.ndim - 2) + (row * self._layout.shard[-2], col * self._layout.shard[-1])
        expected = tuple(
            min(side, n - start) for side, n, start in zip(self._layout.shard, self._layout.shape, origin, strict=True)
        )
        if block.shape != expected:
            raise ValueError(f"shard ({row}, {col}) has shape {expected}, not {block.shape}")
        window = tuple(slice(a, a + side) for a, side in zip(origin, self._layout.shard, strict=True))
        return self._array[window].write(self._whole(block), can_reference_source_data_indefinitely=True)

    def _whole(self, block: Pixels) -> Pixels:
        if block.shape == self._layout.shard:
            return block
        whole = np.full(self._layout.shard, self._layout.fill, np.uint8)
        whole[tuple(slice(n) for n in block.shape)] = block
        return whole
