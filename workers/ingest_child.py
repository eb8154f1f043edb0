"""The child of `workers.ingest`: binds its own hands, then decodes. Task on stdin, JSON lines on what was stdout."""

from __future__ import annotations

import ctypes
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
from gigamask.settings import Settings
from gigamask.sources.source import open_source

REPORT_S = 0.2
_PR_SET_PDEATHSIG = 1
_MIB = 1024**2

Say = Callable[[dict[str, Any]], None]


def main() -> int:
    say = _private_stdout()
    task = json.loads(sys.stdin.buffer.read())
    settings = Settings.model_validate(task["settings"])
    _die_with(task["parent"])
    _limit(settings)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # damaged tags are reported once, as the problem
    try:
        info = _work(task, settings, say)
    except GigamaskError as exc:
        say({"problem": {"code": exc.code, "detail": exc.message}})
    except MemoryError:
        say({"problem": {"code": "bad_image", "detail": _too_little(settings)}})
    except Exception as exc:  # the seam to the parent: it raises this again
        traceback.print_exc()
        say({"problem": {"code": "internal", "detail": f"{type(exc).__name__}: {exc}"}})
    else:
        say({"info": info.model_dump(mode="json")})
    sys.stderr.flush()
    os._exit(0)  # decoders' threads and exit handlers have nothing left to say


def _work(task: dict[str, Any], settings: Settings, say: Say) -> ImageInfo:
    root = Path(task["root"]) if task["root"] else None
    if root is not None:
        tempfile.tempdir = str(root)  # bands of a huge image do not fit a small /tmp
    source = open_source(Path(task["source"]), ReadOptions.model_validate(task["read"]), settings)
    if root is not None:
        from gigamask.pyramid.image import ImageWriter

        report = _Report(say, source.info.height)
        with ImageWriter(root, source.info) as writer:
            for rows in source.rows():
                writer.append(rows)
                report.add(len(rows))
    return source.info


class _Report:
    """Fractions of the rows, a few a second."""

    def __init__(self, say: Say, height: int) -> None:
        self._say, self._height, self._done, self._last = say, height, 0, time.monotonic()

    def add(self, rows: int) -> None:
        self._done += rows
        if time.monotonic() - self._last >= REPORT_S:
            self._last = time.monotonic()
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


def _die_with(parent: int) -> None:
    """SIGKILL for us when the parent is gone (prctl(2)); Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _limit(settings: Settings) -> None:
    """RLIMIT_DATA counts heap and private mappings, thread stacks too, but no shared files (setrlimit(2))."""
    seconds = int(settings.ingest_timeout_s) + 60
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds * 4, seconds * 4 + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (settings.ingest_memory_bytes, settings.ingest_memory_bytes))


def _too_little(settings: Settings) -> str:
    return f"decoding needs more memory than the {settings.ingest_memory_bytes:,} bytes that it may take"


if __name__ == "__main__":
    sys.exit(main())
