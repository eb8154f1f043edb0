"""Limits on what a header may claim, and the one seam where decoders' exceptions become ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from gigamask.errors import BadImage, GigamaskError, ImageTooLarge
from gigamask.settings import Settings
from gigamask.store import disk_is_full, tells_of_full_disk

MAX_BANDS = 64
MAX_CELL_BYTES = 256 * 1024**2
BLOCK_BYTES = 8 * 1024**2


def check_size(height: int, width: int, bands: int, settings: Settings) -> None:
    """Raises BadImage for nothing, ImageTooLarge for too much."""
    if height < 1 or width < 1 or bands < 1:
        raise BadImage(f"an image has at least 1 x 1 px and 1 band; this one says {width} x {height} px, {bands} bands")
    if bands > MAX_BANDS:
        raise ImageTooLarge(f"at most {MAX_BANDS} bands are read; this image says {bands:,}")
    if max(height, width) > settings.max_side_px:
        raise ImageTooLarge(f"a side is at most {settings.max_side_px:,} px; this image says {width:,} x {height:,} px")
    if height * width > settings.max_pixels:
        raise ImageTooLarge(f"at most {settings.max_pixels:,} pixels; this image says {width:,} x {height:,} px")


def block_rows(width: int, pixel_bytes: int) -> int:
    """Rows of one block: as many as fit into BLOCK_BYTES, stored and as RGB + validity; one at least."""
    return max(1, BLOCK_BYTES // (width * max(4, pixel_bytes)))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """BadImage, opened by `what`, from whatever a decoder raises.

    Broad on purpose: on a crafted file the decoders raise anything (tifffile: AttributeError, struct.error),
    and all of it says that the file is bad. Being out of memory is the child's affair.
    """
    try:
        yield
    except (GigamaskError, MemoryError):
        raise
    except Exception as exc:
        if tells_of_full_disk(exc):  # of a band of rows, not of the image
            raise disk_is_full(exc) from exc
        raise BadImage(f"{what}: {_first_line(exc)}") from exc


def _first_line(exc: Exception) -> str:
    """The decoder's own reason, without libvips' preamble."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("unable to")] or lines
    return re.sub(r"^/.*/[^:]*: ", "", telling[0])[:300] if telling else type(exc).__name__
