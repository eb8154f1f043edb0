"""Upload speed, and what the service needs in memory while a large body arrives.

The body is a real TIFF with a tail of zeros behind it, so that the service takes it for what it is: a large upload.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from benchmarks.peak import MIB, POLL_S
from benchmarks.service import serving

PIECE_BYTES = 1 << 20


def measure(gib: float, model: str) -> dict[str, float]:
    """-> MB/s, and the service's resident set in MiB before and at its highest during the upload."""
    with tempfile.TemporaryDirectory(prefix="gigamask-bench-") as folder:
        body = Path(folder) / "large.bin"
        _write(body, round(gib * (1 << 30)))
        with serving(Path(folder) / "store") as service:
            process = service.process
            before = process.memory_info().rss
            with _watched(process) as highest:
                started = time.perf_counter()
                with body.open("rb") as stream:
                    answer = httpx.post(
                        f"{service.url}/segment", data={"model": model}, files={"file": stream}, timeout=None
                    )
                seconds = time.perf_counter() - started
            answer.raise_for_status()
        size = body.stat().st_size
    return {
        "gib": gib,
        "mb_per_s": round(size / 1e6 / seconds, 1),
        "disk_copy_mb_per_s": _disk_speed(),
        "rss_before_mib": round(before / MIB, 1),
        "rss_peak_mib": round(highest[0] / MIB, 1),
    }


def _write(path: Path, size: int) -> None:
    piece = os.urandom(PIECE_BYTES)
    with path.open("wb") as stream:
        for _ in range(size // PIECE_BYTES):
            stream.write(piece)


def _disk_speed() -> float:
    """MB/s of a plain copy with fsync of 1 GiB on the same disk, for scale."""
    with tempfile.TemporaryDirectory(prefix="gigamask-bench-") as folder:
        source, target = Path(folder) / "a", Path(folder) / "b"
        _write(source, 1 << 30)
        started = time.perf_counter()
        with source.open("rb") as reader, target.open("wb") as writer:
            shutil.copyfileobj(reader, writer, PIECE_BYTES)
            os.fsync(writer.fileno())
        return round((1 << 30) / 1e6 / (time.perf_counter() - started), 1)


@contextmanager
def _watched(process: psutil.Process) -> Iterator[list[int]]:
    """A list of one number: the highest resident set so far, in bytes."""
    highest, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(POLL_S):
            highest[0] = max(highest[0], process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield highest
    finally:
        stop.set()
        thread.join()
