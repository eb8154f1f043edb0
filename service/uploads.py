"""Bytes that arrive, on their way to `images/<id>/source/<name>`: the storage alone, which knows no HTTP.

A `PartialUpload` lies in `uploads/<id>/`, on the disk where it stays, and is renamed into its place once it is whole
and synced: an image is either not there or complete. Whatever stops it before leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from gigamask.errors import BadUpload, InsufficientStorage, UploadTooLarge
from gigamask.settings import Settings
from gigamask.store import Store, new_id

MAX_NAME_BYTES = 200
FREE_CHECK_BYTES = 64 * 1024**2
DISK_FULL = "the store's disk is full; nothing of the upload was kept"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def safe_name(client_name: str) -> str:
    """A file name that is one path component, printable, not hidden, and short enough for any file system.

    >>> safe_name("../../etc/passwd"), safe_name("C:\\\\scans\\\\a.svs"), safe_name("..")
    ('passwd', 'a.svs', 'image')
    """
    name = unicodedata.normalize("NFC", client_name).replace("\\", "/").rsplit("/", 1)[-1]
    name = "".join(c if c.isprintable() and c != "�" else "_" for c in name).strip(" .")
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name, ""
    suffix = (dot + suffix).encode()[:32].decode(errors="ignore")
    stem = stem.encode()[: MAX_NAME_BYTES - len(suffix.encode())].decode(errors="ignore")
    return stem + suffix if stem else "image" + suffix


@contextmanager
def storage_errors(detail: str = DISK_FULL) -> Iterator[None]:
    """A full disk becomes InsufficientStorage."""
    try:
        yield
    except OSError as exc:
        if exc.errno in NO_SPACE:
            raise InsufficientStorage(detail) from exc
        raise


class PartialUpload:
    """One file on its way. `open`, `write`... then `commit`; or `discard` at any time, also after `commit`.

    Blocking: to be called in a thread.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self.id = new_id()
        self.file_name = ""
        self.size_bytes = 0
        self._store, self._settings = store, settings
        self._folder = store.upload(self.id)
        self._unchecked_bytes = 0
        self._stream: BinaryIO | None = None

    def open(self, client_name: str) -> None:
        self.file_name = safe_name(client_name)
        self._store.require_free(0, self._settings.min_free_bytes)
        with storage_errors():
            self._folder.mkdir(parents=True)
            self._stream = (self._folder / self.file_name).open("xb")

    def write(self, piece: memoryview) -> None:
        """Raises UploadTooLarge or InsufficientStorage."""
        if self._stream is None:
            raise RuntimeError("an upload is opened before it is written")
        self.size_bytes += len(piece)
        if self.size_bytes > self._settings.max_upload_bytes:
            raise UploadTooLarge(f"an upload has at most {self._settings.max_upload_bytes:,} bytes; this one has more")
        self._watch_free_space(len(piece))
        with storage_errors():
            self._stream.write(piece)

    def commit(self) -> Path:
        """Sync and rename. Raises BadUpload for a missing or an empty file."""
        if self._stream is None:
            raise BadUpload("the form has no file: expected the fields 'file' and 'model'")
        if not self.size_bytes:
            raise BadUpload(f"the file {self.file_name!r} is empty")
        source = self._store.image(self.id) / "source"
        with storage_errors(), self._stream as stream:
            stream.flush()
            os.fsync(stream.fileno())
        with storage_errors():
            source.parent.mkdir(parents=True)
            self._folder.rename(source)
            for folder in (source, source.parent, source.parent.parent):
                sync_folder(folder)
        return source / self.file_name

    def discard(self) -> None:
        if self._stream is not None:
            with suppress(OSError):  # what could not be flushed to a full disk
                self._stream.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._store.image(self.id), ignore_errors=True)

    def _watch_free_space(self, arriving_bytes: int) -> None:
        self._unchecked_bytes += arriving_bytes
        if self._unchecked_bytes >= FREE_CHECK_BYTES:
            self._unchecked_bytes = 0
            self._store.require_free(0, self._settings.min_free_bytes)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` last through a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_stale_uploads(store: Store, older_than_s: float) -> int:
    """Remove what a killed service left: uploads whose files nobody has written to for so long. Returns how many.

    Those that can be resumed are left to `service.resumable`.
    """
    removed = 0
    for folder in (store.root / "uploads").glob("*"):
        if (folder / "info.json").exists():
            continue
        with suppress(FileNotFoundError):  # another replica may remove it too
            newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if time.time() - newest > older_than_s:
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
    return removed
