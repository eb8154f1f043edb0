"""Ingest: an untrusted file becomes a published image pyramid, decoded in a child process that may die.

The child (`workers.ingest_child`) limits its own memory and processor time; silence and total time are watched from
here: no decoder can hold or kill the worker. It speaks JSON lines: {"progress": f}, {"info": {}} or {"problem": {}}.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gigamask.errors import (
    BadImage,
    DecodeTimeout,
    GigamaskError,
    ImageTooLarge,
    InsufficientStorage,
    InvalidOption,
    UnsupportedImage,
)
from gigamask.image_info import ImageInfo, ReadOptions
from gigamask.job import JobOptions
from gigamask.manifest import ModelManifest
from gigamask.plan import plan_job
from gigamask.roi import roi_in_pixels
from gigamask.settings import Settings
from gigamask.store import attempt, require_free, sweep_attempts

POLL_S = 0.5
_RAISED: dict[str, type[GigamaskError]] = {
    kind.code: kind
    for kind in (BadImage, UnsupportedImage, ImageTooLarge, DecodeTimeout, InvalidOption, InsufficientStorage)
}

Progress = Callable[[float], None]
Stop = Callable[[], bool]


class IngestStopped(Exception):
    """`stop` said so."""


def ingest(
    source: Path,
    zarr_root: Path,
    read: ReadOptions,
    settings: Settings,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> ImageInfo:
    """Write `zarr_root` from `source` and publish it by one rename; progress gets fractions of the rows.

    Attempts at one `zarr_root` do not meet: each has a folder beside it, the first to end is published, and the others
    give way to it. Raises BadImage and its kin, InvalidOption, InsufficientStorage or IngestStopped; then nothing of
    this attempt is left behind.
    """
    zarr_root.parent.mkdir(parents=True, exist_ok=True)
    sweep_attempts(zarr_root)
    require_free(zarr_root.parent, 0, settings.min_free_bytes)
    with attempt(zarr_root) as mine:
        info = _run_child(source, mine.folder, read, settings, progress, stop, mine.lock)
        published = mine.publish()
    sweep_attempts(zarr_root)
    return info if published else _published_info(zarr_root)


def _published_info(zarr_root: Path) -> ImageInfo:
    from gigamask.pyramid.image import ImagePyramid

    return ImagePyramid(zarr_root).info


def inspect(path: Path, read: ReadOptions, settings: Settings) -> ImageInfo:
    """What `ingest` would make of the file, from its header alone; in the same guarded child."""
    return _run_child(path, None, read, settings, None, None)


def check_choices(path: Path, manifest: ModelManifest, options: JobOptions, settings: Settings) -> None:
    """What the header can tell of options that an image may not have, before it is read at length.

    Raises InvalidOption where it lacks the size of its pixels, or the region of interest lies outside; BadImage ...
    """
    if (options.resolution == "native" or manifest.pixel_size is None) and options.roi is None:
        return
    info = inspect(path, options.read, settings)
    plan_job(info, manifest, options)
    if options.roi is not None:
        roi_in_pixels(options.roi, info)


def _run_child(
    source: Path,
    root: Path | None,
    read: ReadOptions,
    settings: Settings,
    progress: Progress | None,
    stop: Stop | None,
    lock: int | None = None,
) -> ImageInfo:
    """lock: inherited, so that it is held until the child is gone too."""
    task = {
        "source": str(source.resolve()),
        "root": str(root.resolve()) if root else None,
        "read": read.model_dump(),
        "settings": settings.model_dump(mode="json"),
        "parent": os.getpid(),
    }
    with tempfile.TemporaryFile() as noise, _start(noise, lock) as child:
        try:
            _hand_over(child, task)
            return _Listener(child, noise, settings, progress, stop).result()
        finally:
            child.kill()


def _start(noise: IO[bytes], lock: int | None) -> subprocess.Popen[bytes]:
    home = Path(__file__).resolve().parent.parent
    paths = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
    # one arena: glibc gives every decoding thread its own otherwise, and keeps what they free (malloc(3), M_ARENA_MAX)
    surroundings = {"PYTHONPATH": os.pathsep.join(paths), "VIPS_CONCURRENCY": "1", "MALLOC_ARENA_MAX": "1"}
    surroundings["MALLOC_MMAP_THRESHOLD_"] = str(1024**2)  # freed blocks of pixels go back at once
    return subprocess.Popen(
        [sys.executable, "-m", "workers.ingest_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=noise,
        env={**os.environ, **surroundings},
        start_new_session=True,
        pass_fds=() if lock is None else (lock,),
    )


def _hand_over(child: subprocess.Popen[bytes], task: dict[str, Any]) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(task).encode())
        child.stdin.close()
    except BrokenPipeError:
        pass  # it died at once: the listener says how


@dataclass(slots=True)
class _Listener:
    child: subprocess.Popen[bytes]
    noise: IO[bytes]
    settings: Settings
    progress: Progress | None
    stop: Stop | None

    def result(self) -> ImageInfo:
        """Raises what the child reported, DecodeTimeout, IngestStopped, or BadImage where it died without a word."""
        assert self.child.stdout is not None
        os.set_blocking(self.child.stdout.fileno(), False)
        started = heard = time.monotonic()
        waiting = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self.child.stdout, selectors.EVENT_READ)
            while True:
                self._check_time(started, heard)
                if not selector.select(POLL_S):
                    continue
                chunk = os.read(self.child.stdout.fileno(), 65536)
                if not chunk:
                    raise self._death()
                heard = time.monotonic()
                *lines, waiting = (waiting + chunk).split(b"\n")
                for line in lines:
                    info = self._hear(json.loads(line))
                    if info is not None:
                        return info

    def _hear(self, message: dict[str, Any]) -> ImageInfo | None:
        if "problem" in message:
            raise _problem(message["problem"])
        if "progress" in message and self.progress is not None:
            self.progress(float(message["progress"]))
        return ImageInfo.model_validate(message["info"]) if "info" in message else None

    def _check_time(self, started: float, heard: float) -> None:
        now = time.monotonic()
        if self.stop is not None and self.stop():
            raise IngestStopped
        if now - heard > self.settings.ingest_stall_s:
            raise DecodeTimeout(f"no row was decoded for {self.settings.ingest_stall_s:g} s")
        if now - started > self.settings.ingest_timeout_s:
            raise DecodeTimeout(f"decoding took more than {self.settings.ingest_timeout_s:g} s")

    def _death(self) -> GigamaskError:
        """Its exit says why: SIGXCPU for processor time, otherwise most likely memory or a broken decoder."""
        code = self.child.wait()
        if -code == signal.SIGXCPU:
            return DecodeTimeout(f"decoding took more than {self.settings.ingest_timeout_s:g} s of processor time")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self.noise.seek(0)
        words = self.noise.read(100_000).decode(errors="replace").lower()
        if any(sign in words for sign in ("bad_alloc", "out of memory", "cannot allocate", "memoryerror")):
            return out_of_memory(self.settings)
        return BadImage(f"the decoder died of this file ({how}); at most {self.settings.ingest_memory_bytes:,} bytes")


def out_of_memory(settings: Settings) -> BadImage:
    return BadImage(f"decoding needs more memory than the {settings.ingest_memory_bytes:,} bytes that it may take")


def _problem(problem: dict[str, str]) -> GigamaskError:
    kind = _RAISED.get(problem["code"])
    if kind is None:  # a fault of ours, not of the file: said as it is, so that the worker logs it
        raise RuntimeError(f"ingest failed: {problem['detail']}")
    return kind(problem["detail"])
