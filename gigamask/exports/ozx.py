"""A result as one `.ozx` file on disk: what `gigamask.pyramid.ozx` streams."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gigamask.exports.catalog import ExportOptions, Progress
from gigamask.pyramid.ozx import ozx_stream
from gigamask.store import require_free

if TYPE_CHECKING:
    from gigamask.pyramid.result import Result


def write_ozx(result: Result, target: Path, _options: ExportOptions, progress: Progress) -> None:
    """Raises InsufficientStorage before the first byte: the size is known."""
    archive = ozx_stream(result.root)
    size, written = len(archive), 0
    require_free(target.parent, size, 0)
    with target.open("wb") as stream:
        for block in archive:
            written += stream.write(block)
            progress(written / size)
