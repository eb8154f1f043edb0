"""`python -m gigamask.exports ROOT NAME TARGET`: write one file of a result, as a process with bounds of its own.

JSON lines on stdout: {"progress": f}, then {"done": true}, {"elsewhere": true} where another process builds the target,
or {"problem": {"code", "detail"}} with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gigamask.errors import ExportFailed, GigamaskError
from gigamask.exports.building import hold
from gigamask.exports.catalog import export, read_options
from gigamask.processes import die_with_parent, give_back_freed_memory

NICE = 5  # whoever waits for a tile goes first

Say = Callable[[dict[str, Any]], None]


def main() -> int:
    asked = _arguments()
    say = _private_stdout()
    if asked.parent:
        die_with_parent(asked.parent, signal.SIGKILL)
    os.nice(NICE)
    give_back_freed_memory()
    if asked.memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (asked.memory_bytes, asked.memory_bytes))
    try:
        say(_build(asked, say))
    except Exception as exc:  # the seam to the parent: it raises this again
        say({"problem": _problem_of(exc, asked.memory_bytes)})
        return 1
    return 0


def _build(asked: argparse.Namespace, say: Say) -> dict[str, Any]:
    options = read_options(sys.stdin.read() if asked.options == "-" else asked.options)
    with hold(asked.target) as tell:
        if tell is None:
            return {"elsewhere": True}
        if not asked.target.exists():
            export(asked.root, asked.name, asked.target, options, _Told(tell, say))
    return {"done": True}


class _Told:
    """Progress to whoever reads the lock's file and, in steps of one percent, to the parent."""

    def __init__(self, tell: Callable[[float], None], say: Say) -> None:
        self._tell, self._say, self._percent = tell, say, -1

    def __call__(self, fraction: float) -> None:
        self._tell(fraction)
        if int(100 * fraction) > self._percent:
            self._percent = int(100 * fraction)
            self._say({"progress": fraction})


def _problem_of(exc: Exception, memory_bytes: int | None) -> dict[str, str]:
    if isinstance(exc, MemoryError):
        exc = ExportFailed(f"it needs more memory than the {memory_bytes or 0:,} bytes that it may take")
    if isinstance(exc, GigamaskError):
        return {"code": exc.code, "detail": exc.message}
    traceback.print_exception(exc)
    return {"code": ExportFailed.code, "detail": f"an unexpected error ({type(exc).__name__})"}


def _private_stdout() -> Say:
    """Keep stdout for ourselves and give libraries that print to it stderr instead."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        private.write(json.dumps(message) + "\n")
        private.flush()

    return say


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m gigamask.exports", description=__doc__)
    parser.add_argument("root", type=Path, help="the result's OME-Zarr")
    parser.add_argument("name", help="a format's name")
    parser.add_argument("target", type=Path, help="the file to write, unless it is there")
    parser.add_argument("--options", default="{}", help="JSON, as gigamask.exports.catalog.write_options; -: on stdin")
    parser.add_argument("--memory-bytes", type=int, help="data memory that this process may take")
    parser.add_argument("--parent", type=int, help="process with which this one dies")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
