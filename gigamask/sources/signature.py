"""What a file is, by its first bytes; its name is never asked."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from gigamask.errors import BadImage, UnsupportedImage


class Kind(StrEnum):
    TIFF = "tiff"
    CZI = "czi"
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"


_KNOWN: tuple[tuple[bytes, Kind], ...] = (
    (b"II*\0", Kind.TIFF),
    (b"MM\0*", Kind.TIFF),
    (b"II+\0", Kind.TIFF),
    (b"MM\0+", Kind.TIFF),
    (b"\x89PNG\r\n\x1a\n", Kind.PNG),
    (b"\xff\xd8\xff", Kind.JPEG),
    (b"ZISRAWFILE", Kind.CZI),
)
_REFUSED: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"%PDF", "PDF"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"\xffO\xffQ", "JPEG 2000 codestream"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL codestream"),
    (b"\x89HDF", "HDF5"),
    (b"PK\x03\x04", "ZIP"),
    (b"<", "XML or SVG"),
    (b"8BPS", "Photoshop"),
    (b"v/1\x01", "OpenEXR"),
    (b"SIMPLE  =", "FITS"),
)
ACCEPTED = "TIFF, BigTIFF, GeoTIFF, SVS and other slides in one file, PNG, JPEG and WebP are read"


def identify(path: Path) -> Kind:
    """Raises UnsupportedImage for a known format that is not read, BadImage for anything else."""
    with path.open("rb") as stream:
        head = stream.read(16)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Kind.WEBP
    for magic, kind in _KNOWN:
        if head.startswith(magic):
            return kind
    for magic, name in _REFUSED:
        if head.startswith(magic):
            raise UnsupportedImage(f"{name} is not read; {ACCEPTED}")
    if not head:
        raise BadImage("the file is empty")
    raise BadImage(f"no known image begins with the bytes {head[:8].hex(' ')}; {ACCEPTED}")
