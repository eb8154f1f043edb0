"""The child of `workers.ingest`: binds its own hands, then decodes. Task on stdin, JSON lines on what was stdout."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gigamask.errors import GigamaskError
from gigamask.image_info import ImageInfo, ReadOptions
from gigamask.processes import die_with_parent
from gigamask.settings import Settings
from gigamask.sources.source import open_source
from gigamask.store import disk_is_full, require_free, tells_of_full_disk
from workers.ingest import out_of_memory

REPORT_S = 0.2

Say = Callable[[dict[str, Any]], None]


def main() -> int:
    say = _private_stdout()
    task = json.loads(sys.stdin.buffer.read())
    settings = Settings.model_validate(task["settings"])
    die_with_parent(task["parent"], signal.SIGKILL)
    _limit(settings)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # damaged tags are reported once, as the problem
    try:
        info = _work(task, settings, say)
    except Exception as exc:  # the seam to the parent: it raises this again
        say({"problem": _problem_of(exc, settings)})
    else:
        say({"info": info.model_dump(mode="json")})
    sys.stderr.flush()
    os._exit(0)  # decoders' threads and exit handlers have nothing left to say


def _problem_of(exc: Exception, settings: Settings) -> dict[str, str]:
    if isinstance(exc, MemoryError):
        exc = out_of_memory(settings)
    elif tells_of_full_disk(exc) and not isinstance(exc, GigamaskError):
        exc = disk_is_full(exc)
    if isinstance(exc, GigamaskError):
        return {"code": exc.code, "detail": exc.message}
    traceback.print_exception(exc)
    return {"code": "internal", "detail": f"{type(exc).__name__}: {exc}"}


def _work(task: dict[str, Any], settings: Settings, say: Say) -> ImageInfo:
    root = Path(task["root"]) if task["root"] else None
    if root is not None:
        tempfile.tempdir = str(root)  # bands of a huge image do not fit a small /tmp
    source = open_source(Path(task["source"]), ReadOptions.model_validate(task["read"]), settings)
    if root is not None:
        from gigamask.pyramid.image import ImageWriter

        report = _Report(say, source.info.height, lambda: require_free(root, 0, settings.min_free_bytes))
        with ImageWriter(root, source.info) as writer:
            for rows in source.rows():
                writer.append(rows)
                report.add(len(rows))
    return source.info


class _Report:
    """Fractions of the rows, a few a second; as often, `check` may stop the work by what it raises."""

    def __init__(self, say: Say, height: int, check: Callable[[], None]) -> None:
        self._say, self._height, self._check = say, height, check
        self._done, self._last = 0, time.monotonic()

    def add(self, rows: int) -> None:
        self._done += rows
        if time.monotonic() - self._last >= REPORT_S:
            self._last = time.monotonic()
            self._check()
            self._say({"progress": self._done / self._height})


def _private_stdout() -> Say:
    """Keep stdout for ourselves and give C libraries that print to it stderr instead."""
    private = os.dup(1)
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        view = memoryview(json.dumps(message).encode() + b"\n")
        while view:
            view = view[os.write(private, view) :]

    return say


def _limit(settings: Settings) -> None:
    """RLIMIT_DATA counts heap and private mappings, thread stacks too, but no shared files (setrlimit(2))."""
    seconds = int(settings.ingest_timeout_s) + 60
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds * 4, seconds * 4 + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (settings.ingest_memory_bytes, settings.ingest_memory_bytes))


if __name__ == "__main__":
    sys.exit(main())
