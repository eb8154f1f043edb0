"""A pyramid as one file, streamed: ZIP64, stored, metadata first (OME-NGFF RFC-9)."""

from __future__ import annotations

import json
from pathlib import Path

from zipstream import ZIP_STORED, ZipStream

from gigamask.pyramid.ngff import VERSION
from gigamask.store import LOCK_SUFFIX

METADATA = "zarr.json"


def ozx_stream(root: Path) -> ZipStream:
    """The bytes of the archive, as they are read. `len` of it is the archive's size, known before the first byte."""
    archive = ZipStream(compress_type=ZIP_STORED, sized=True)
    archive.comment = json.dumps({"ome": {"version": VERSION}})
    for path in ozx_order(root):
        archive.add_path(path, arcname=path.relative_to(root).as_posix())
    return archive


def ozx_order(root: Path) -> list[Path]:
    """Every `zarr.json`, breadth first, then the shards, level by level."""
    files = [p for p in root.rglob("*") if p.is_file() and not p.name.endswith(LOCK_SUFFIX)]
    metadata = sorted((p for p in files if p.name == METADATA), key=lambda p: (len(p.parts), p))
    return metadata + sorted(p for p in files if p.name != METADATA)
