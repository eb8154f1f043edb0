"""Where things lie under the store's root.

uploads/<id>/                     a body that is still arriving
images/<id>/source/<file name>    the image as uploaded
images/<id>/image.zarr            its pyramid (image.zarr.partial while it is being written)
jobs/<id>/job.json                the record
jobs/<id>/mask.zarr               the result (mask.zarr.partial while it is being written)
"""

from __future__ import annotations

import re
import shutil
import uuid
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

    def require_free(self, needed_bytes: int, spare_bytes: int) -> None:
        """Raises InsufficientStorage unless `needed_bytes` fit and `spare_bytes` remain."""
        self.root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.root).free
        if free < needed_bytes + spare_bytes:
            raise InsufficientStorage(
                f"needs {needed_bytes:,} bytes and {spare_bytes:,} spare; the store has {free:,} free"
            )


def partial(path: Path) -> Path:
    """Where a tree is built before `publish` renames it to `path`."""
    return path.with_name(path.name + ".partial")


def publish(path: Path) -> None:
    """Rename `partial(path)` to `path`: one atomic step, so that a result is either not there or whole."""
    partial(path).rename(path)
