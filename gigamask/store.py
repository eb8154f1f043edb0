"""Where things lie under the store's root.

uploads/<id>/                     a body that is still arriving
images/<id>/source/<file name>    the image as uploaded
images/<id>/read.json             how it was asked to be read
images/<id>/image.zarr            its pyramid (image.zarr.<attempt>.partial, and .lock, while one is being written)
jobs/<id>/job.json                the record
jobs/<id>/mask.zarr               the result (mask.zarr.partial while it is being written)
jobs/<id>/exports/                files made of it, on demand
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gigamask.errors import InsufficientStorage, UnknownImage, UnknownJob

LOCK_SUFFIX = ".__lock"  # tensorstore's temporary files; one stays behind where a process was killed
_ID = re.compile(r"[0-9a-f]{32}")


def new_id() -> str:
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Store:
    root: Path

    def upload(self, upload_id: str) -> Path:
        return self.root / "uploads" / upload_id

    def image(self, image_id: str) -> Path:
        """Raises UnknownImage for what is no id (an id never holds a path)."""
        if not _ID.fullmatch(image_id):
            raise UnknownImage(f"no image {image_id!r}")
        return self.root / "images" / image_id

    def image_zarr(self, image_id: str) -> Path:
        return self.image(image_id) / "image.zarr"

    def image_source(self, image_id: str) -> Path:
        """The uploaded file. Raises UnknownImage."""
        folder = self.image(image_id) / "source"
        files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
        if len(files) != 1:
            raise UnknownImage(f"no image {image_id!r}")
        return files[0]

    def job(self, job_id: str) -> Path:
        """Raises UnknownJob for what is no id."""
        if not _ID.fullmatch(job_id):
            raise UnknownJob(f"no job {job_id!r}")
        return self.root / "jobs" / job_id

    def job_record(self, job_id: str) -> Path:
        return self.job(job_id) / "job.json"

    def mask_zarr(self, job_id: str) -> Path:
        return self.job(job_id) / "mask.zarr"

    def exports(self, job_id: str) -> Path:
        return self.job(job_id) / "exports"

    def require_free(self, needed_bytes: int, spare_bytes: int) -> None:
        """Raises InsufficientStorage unless `needed_bytes` fit and `spare_bytes` remain."""
        require_free(self.root, needed_bytes, spare_bytes)


def require_free(folder: Path, needed_bytes: int, spare_bytes: int) -> None:
    """Raises InsufficientStorage unless `needed_bytes` fit beside `folder` and `spare_bytes` remain."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + spare_bytes:
        raise InsufficientStorage(
            f"needs {needed_bytes:,} bytes and {spare_bytes:,} spare; the store has {free:,} free"
        )


def tells_of_full_disk(exc: BaseException) -> bool:
    """Also where a library keeps only the words of the system's error (tensorstore, libvips)."""
    codes = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(exc, OSError) and exc.errno in codes:
        return True
    return any(os.strerror(code) in str(exc) for code in codes)


def disk_is_full(exc: BaseException) -> InsufficientStorage:
    return InsufficientStorage(f"the disk was full, or the quota used up, while writing ({type(exc).__name__})")


def partial(path: Path) -> Path:
    """Where a tree is built before `publish` renames it to `path`."""
    return path.with_name(path.name + ".partial")


def publish(path: Path) -> None:
    """Rename `partial(path)` to `path`: one atomic step, so that a result is either not there or whole."""
    partial(path).rename(path)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A folder that one writer builds to become `target`. lock: descriptor whose lock says that it is being written."""

    target: Path
    folder: Path
    lock: int

    def publish(self) -> bool:
        """False where another attempt was first: a finished tree is never replaced."""
        try:
            self.folder.rename(self.target)
        except OSError as exc:
            if exc.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True


@contextmanager
def attempt(target: Path) -> Iterator[Attempt]:
    """A folder of one's own, so that attempts at one target never meet; gone at the end unless published.

    It is locked before it is made, by a file beside it: `sweep_attempts` takes only what nobody holds.
    """
    lock_path, lock = _hold_new_lock(target)
    folder = lock_path.with_suffix(".partial")
    try:
        folder.mkdir()
        yield Attempt(target, folder, lock)
    finally:
        _remove_attempt(lock_path)
        os.close(lock)


def sweep_attempts(target: Path) -> None:
    """Remove what attempts left whose writers, with every child that inherited the lock, are gone."""
    ours = re.compile(re.escape(target.name) + r"\.[0-9a-f]{32}\.lock")
    for lock_path in [path for path in target.parent.iterdir() if ours.fullmatch(path.name)]:
        with suppress(FileNotFoundError, BlockingIOError), lock_path.open("rb+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_attempt(lock_path)


def _hold_new_lock(target: Path) -> tuple[Path, int]:
    while True:
        path = target.with_name(f"{target.name}.{new_id()}.lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with suppress(BlockingIOError, FileNotFoundError):  # a sweeper was in between
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), path.stat()):
                return path, lock
        os.close(lock)


def _remove_attempt(lock_path: Path) -> None:
    """The lock last: what has no lock would never be swept."""
    shutil.rmtree(lock_path.with_suffix(".partial"), ignore_errors=True)
    lock_path.unlink(missing_ok=True)
