"""The chain of directories of a TIFF, walked by hand before any library sees it: bounded, and loops are noticed."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO

from gigamask.errors import BadImage, ImageTooLarge


def count_directories(path: Path, max_pages: int) -> int:
    """Raises BadImage for a loop or an offset outside the file, ImageTooLarge over `max_pages`."""
    with path.open("rb") as stream:
        end = os.fstat(stream.fileno()).st_size
        order, big, offset = _header(stream)
        seen: set[int] = set()
        while offset:
            if offset in seen:
                raise BadImage(f"the TIFF directories loop: byte {offset:,} comes twice")
            if len(seen) >= max_pages:
                raise ImageTooLarge(f"at most {max_pages:,} TIFF directories are read; this file has more")
            seen.add(offset)
            offset = _next_offset(stream, offset, end, order, big)
    if not seen:
        raise BadImage("the TIFF has no directory")
    return len(seen)


def is_bigtiff(path: Path) -> bool:
    with path.open("rb") as stream:
        return _header(stream)[1]


def _header(stream: BinaryIO) -> tuple[str, bool, int]:
    """Byte order, BigTIFF or not, offset of the first directory."""
    head = stream.read(16).ljust(16, b"\0")
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    offset: int = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)[0]
    return order, big, offset


def _next_offset(stream: BinaryIO, offset: int, end: int, order: str, big: bool) -> int:
    count_form, entry_bytes, offset_form = ("Q", 20, "Q") if big else ("H", 12, "I")
    (entries,) = _unpack(stream, offset, end, order + count_form)
    after = offset + struct.calcsize("=" + count_form) + entries * entry_bytes
    (following,) = _unpack(stream, after, end, order + offset_form)
    return int(following)


def _unpack(stream: BinaryIO, offset: int, end: int, form: str) -> tuple[int]:
    size = struct.calcsize(form)
    if offset + size > end:
        raise BadImage(f"a TIFF directory reaches byte {offset + size:,} of a file of {end:,} bytes")
    stream.seek(offset)
    value: tuple[int] = struct.unpack(form, stream.read(size))
    return value
