"""Files of results in the making: child processes, a few at a time, others wait their turn. Knows no HTTP.

A build that failed is kept until somebody has been told why; then it may be tried again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gigamask.errors import (
    Busy,
    Conflict,
    ExportFailed,
    GigamaskError,
    InsufficientStorage,
    InvalidOption,
    NotFound,
)

AT_ONCE = 2
MAX_HELD = 64  # running, waiting and failed
LONGEST_S = 6 * 3600.0
RAISED: dict[str, type[GigamaskError]] = {
    kind.code: kind for kind in (Conflict, ExportFailed, InsufficientStorage, InvalidOption, NotFound)
}


@dataclass(frozen=True, slots=True)
class Task:
    """options: JSON, as gigamask.exports.catalog.write_options."""

    root: Path
    name: str
    target: Path
    options: str
    memory_bytes: int

    def command(self) -> list[str]:
        asked = [str(self.root), self.name, str(self.target), "--options", "-"]
        bounds = ["--memory-bytes", str(self.memory_bytes), "--parent", str(os.getpid())]
        return [sys.executable, "-m", "gigamask.exports", *asked, *bounds]


@dataclass(slots=True)
class Build:
    """ended: also where another process builds the target, or where `problem` says why there is none."""

    task: Task
    fraction: float = 0.0
    problem: GigamaskError | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self, turn: threading.Semaphore) -> None:
        try:
            with turn:
                self.problem = self._run_child()
        except OSError as exc:
            self.problem = ExportFailed(f"no process could be started ({exc.strerror})")
        finally:
            self.ended.set()

    def _run_child(self) -> GigamaskError | None:
        """The child dies with this thread, which waits for it."""
        with subprocess.Popen(
            self.task.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_surroundings()
        ) as child:
            watch = threading.Timer(LONGEST_S, child.kill)
            watch.daemon = True
            watch.start()
            try:
                _tell_options(child, self.task.options)
                last = self._listen(child)
            finally:
                watch.cancel()
                child.kill()
        if "problem" in last:
            return _problem(last["problem"])
        if "done" in last or "elsewhere" in last:
            return None
        return ExportFailed(f"the process that made it ended early (status {child.returncode})")

    def _listen(self, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        """The child's last line."""
        assert child.stdout is not None
        message: dict[str, Any] = {}
        for line in child.stdout:
            message = json.loads(line)
            self.fraction = float(message.get("progress", self.fraction))
        return message


class Builds:
    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._turn = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._held: dict[Path, Build] = {}

    def find(self, target: Path) -> Build | None:
        """One that runs, waits, or failed; of those that failed the reason is told once."""
        with self._lock:
            self._drop_ended()
            build = self._held.get(target)
            if build and build.ended.is_set():
                del self._held[target]
            return build

    def peek(self, target: Path) -> Build | None:
        """One that runs or waits."""
        build = self._held.get(target)
        return None if build is None or build.ended.is_set() else build

    def begin(self, task: Task) -> Build:
        """The build of that target, begun now unless it was. Raises Busy where too many wait."""
        with self._lock:
            self._drop_ended()
            build = self._held.get(task.target)
            if build and not build.ended.is_set():
                return build
            if len(self._held) >= MAX_HELD:
                self._drop_failed()
            if len(self._held) >= MAX_HELD:
                raise Busy(f"{MAX_HELD} files are being made or wait for it; ask again later")
            build = self._held[task.target] = Build(task)
        threading.Thread(target=build.run, args=(self._turn,), name=task.name, daemon=True).start()
        return build

    def _drop_ended(self) -> None:
        for target in [t for t, build in self._held.items() if build.ended.is_set() and build.problem is None]:
            del self._held[target]

    def _drop_failed(self) -> None:
        for target in [t for t, build in self._held.items() if build.ended.is_set()]:
            del self._held[target]


def _tell_options(child: subprocess.Popen[bytes], options: str) -> None:
    """By a pipe: an argument has at most 128 KiB (Linux), and a region of interest may have more."""
    assert child.stdin is not None
    with suppress(BrokenPipeError), child.stdin:  # it ended before it read them, and is asked why below
        child.stdin.write(options.encode())


def _surroundings() -> dict[str, str]:
    """One heap and one thread a library: a file is made beside everything else that this machine does."""
    home = Path(__file__).resolve().parent.parent
    paths = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "VIPS_CONCURRENCY": "1", "GDAL_NUM_THREADS": "1"}
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(paths)}


def _problem(told: dict[str, str]) -> GigamaskError:
    return RAISED.get(told["code"], ExportFailed)(told["detail"])
