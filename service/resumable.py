"""Uploads that come in pieces, over hours and restarts: the storage alone, which knows no HTTP.

    uploads/<id>/info.json        what was announced; replaced whole
    uploads/<id>/source/<name>    the bytes. Their count is the offset: nothing else remembers it
    uploads/<id>/floor            only while a piece with a checksum arrives: the offset before it
    uploads/<id>/lock             locked by the one writer; holds the name of whoever claimed it last

All state lies beside the bytes, so an upload outlives the service and any replica on the same disk can go on with it.
A writer that is no longer heard of gives way: a newer claim puts its name into `lock`, and the older one lets go when
it sees that (tus/tusd #335). Reading the offset needs no lock. An offset that was answered to a whole piece is synced.
`finish` renames `source` to its place among the images under the upload's own id: one atomic step, once.

Blocking: to be called in a thread.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from gigamask.errors import (
    BadUpload,
    ChecksumMismatch,
    UnknownUpload,
    UploadExpired,
    UploadTooLarge,
    UploadUnfinished,
    UploadUsed,
    WrongOffset,
)
from gigamask.settings import Settings
from gigamask.store import Store, new_id
from service.claims import Claim
from service.uploads import FREE_CHECK_BYTES, safe_name, storage_errors, sync_folder

CHECKSUMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}
DISK_FULL = "the store's disk is full; what had arrived before is kept"
_ID = re.compile(r"[0-9a-f]{32}")


class UploadInfo(BaseModel):
    """length: bytes in all; None until the client tells it. metadata: as the client sent it."""

    model_config = ConfigDict(frozen=True)

    file_name: str
    length: int | None
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload as it lies on disk now. offset: bytes that need not be sent again. expires_at: seconds since 1970."""

    id: str
    info: UploadInfo
    offset: int
    expires_at: float

    @property
    def whole(self) -> bool:
        return self.offset == self.info.length


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the bytes of one piece must have. digest: raw."""

    algorithm: str
    digest: bytes


class PieceWriter:
    """One piece on its way to the end of an upload. `hold`... `flush`..., then `commit`; `close` at any end.

    A piece without a checksum is kept as far as it came; one with a checksum is kept whole or not at all.
    """

    def __init__(
        self, path: Path, start: int, limit: int, checksum: Checksum | None, watch: Callable[[], None]
    ) -> None:
        """limit: no byte is taken beyond. watch: called each 64 MiB; raises where space runs out."""
        self.offset = start
        self._start, self._limit, self._watch = start, limit, watch
        self._held, self._unwatched_bytes = bytearray(), 0
        self._checksum, self._floor = checksum, path.parent.parent / "floor"
        self._digest = CHECKSUMS[checksum.algorithm]() if checksum else None
        if checksum:
            self._floor.write_text(str(start))
        self._stream = path.open("r+b", buffering=0)
        self._stream.seek(start)

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    @property
    def room_bytes(self) -> int:
        """What may still come."""
        return self._limit - self.offset - self.held_bytes

    def hold(self, piece: bytes) -> None:
        """Takes bytes that `flush` will write. Raises UploadTooLarge, and then holds none of them."""
        if len(piece) > self.room_bytes:
            raise UploadTooLarge(f"the upload has {self._limit:,} bytes; this piece goes beyond them")
        self._held += piece

    def flush(self) -> None:
        """Raises InsufficientStorage."""
        block, self._held = self._held, bytearray()
        self._unwatched_bytes += len(block)
        if self._unwatched_bytes >= FREE_CHECK_BYTES:
            self._unwatched_bytes = 0
            self._watch()
        left = memoryview(block)
        with storage_errors(DISK_FULL):
            while left:
                written = self._stream.write(left)
                left = left[written:]
                self.offset += written
        if self._digest:
            self._digest.update(block)

    def commit(self) -> None:
        """The piece is whole: what `offset` says lasts through a power cut. Raises ChecksumMismatch."""
        self.flush()
        if self._checksum and self._digest and self._digest.digest() != self._checksum.digest:
            raise ChecksumMismatch(f"the piece's {self._checksum.algorithm} is not the one told; send it again")
        with storage_errors(DISK_FULL):
            os.fsync(self._stream.fileno())
        self._floor.unlink(missing_ok=True)
        self._checksum = None

    def close(self) -> None:
        """Keeps what came of a piece without a checksum, throws away what was not proved of one with."""
        try:
            if self._checksum:
                self._stream.truncate(self._start)
                self._floor.unlink(missing_ok=True)
            else:
                self.flush()
        finally:
            self._stream.close()


class ResumableUploads:
    """The uploads under the store's root."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store, self._settings = store, settings

    @property
    def limit_bytes(self) -> int:
        return self._settings.max_upload_bytes

    def create(self, client_name: str, length: int | None, metadata: str = "") -> Upload:
        """Raises UploadTooLarge, InsufficientStorage."""
        self._require_length(length)
        remove_expired_uploads(self._store, self._settings.upload_expiry_s)
        self._store.require_free(length or 0, self._settings.min_free_bytes)
        upload_id = new_id()
        folder, info = self._store.upload(upload_id), UploadInfo(
            file_name=safe_name(client_name), length=length, metadata=metadata
        )  # fmt: skip
        with storage_errors():
            (folder / "source").mkdir(parents=True)
            (folder / "source" / info.file_name).touch()
            (folder / "lock").touch()
            _write_info(folder, info)
        return self.find(upload_id)

    def find(self, upload_id: str) -> Upload:
        """Needs no lock. Raises UnknownUpload, UploadExpired, UploadUsed."""
        folder = self._folder(upload_id)
        try:
            info = UploadInfo.model_validate_json((folder / "info.json").read_bytes())
            found = (folder / "source" / info.file_name).stat()
        except FileNotFoundError as exc:
            raise self._gone(upload_id) from exc
        expires_at = found.st_mtime + self._settings.upload_expiry_s
        if time.time() > expires_at:
            raise UploadExpired(f"nothing was added to upload {upload_id} for {self._settings.upload_expiry_s:,.0f} s")
        return Upload(upload_id, info, _offset(folder, found.st_size), expires_at)

    def claim(self, upload_id: str) -> Claim:
        """Not locked yet. Raises UnknownUpload, UploadExpired, UploadUsed."""
        return Claim(self._folder(self.find(upload_id).id))

    def open_piece(self, upload_id: str, offset: int, length: int | None, checksum: Checksum | None) -> PieceWriter:
        """Under a lock. length: told with this piece, where it was not before. Raises WrongOffset, Conflict, ..."""
        upload = self.find(upload_id)
        if offset != upload.offset:
            raise WrongOffset(f"upload continues at byte {upload.offset}, not {offset}", offset=upload.offset)
        self._require_spare()
        info = self._with_length(upload, length)
        path = self._folder(upload_id) / "source" / info.file_name
        _drop_unproved(path, offset)
        limit = self.limit_bytes if info.length is None else info.length
        return PieceWriter(path, offset, limit, checksum, self._require_spare)

    def finish(self, upload_id: str) -> Path:
        """Under a lock: the upload becomes the image of the same id. Raises UploadUnfinished, BadUpload. -> its file"""
        upload = self.find(upload_id)
        require_whole(upload)
        if not upload.offset:
            raise BadUpload(f"the file {upload.info.file_name!r} is empty")
        folder, target = self._folder(upload_id), self._store.image(upload_id) / "source"
        with storage_errors():
            _sync_file(folder / "source" / upload.info.file_name)
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / "source").rename(target)
            for synced in (target, target.parent, target.parent.parent):
                sync_folder(synced)
        shutil.rmtree(folder, ignore_errors=True)
        return target / upload.info.file_name

    def remove(self, upload_id: str) -> None:
        """Under a lock."""
        shutil.rmtree(self._folder(upload_id), ignore_errors=True)

    def _folder(self, upload_id: str) -> Path:
        if not _ID.fullmatch(upload_id):
            raise UnknownUpload(f"no upload {upload_id!r}")
        return self._store.upload(upload_id)

    def _gone(self, upload_id: str) -> UnknownUpload | UploadUsed:
        if (self._store.image(upload_id) / "source").is_dir():
            return UploadUsed(f"upload {upload_id} is an image now: name it as `image`", image=upload_id)
        return UnknownUpload(f"no upload {upload_id!r}")

    def _with_length(self, upload: Upload, length: int | None) -> UploadInfo:
        """Raises BadUpload for a length that is not the one told before."""
        if length is None or length == upload.info.length:
            return upload.info
        if upload.info.length is not None or length < upload.offset:
            raise BadUpload(
                f"the upload's length is {upload.info.length or 'at least ' + str(upload.offset)}, not {length}"
            )
        self._require_length(length)
        info = upload.info.model_copy(update={"length": length})
        with storage_errors(DISK_FULL):
            _write_info(self._folder(upload.id), info)
        return info

    def _require_length(self, length: int | None) -> None:
        if length is not None and length > self.limit_bytes:
            raise UploadTooLarge(f"an upload has at most {self.limit_bytes:,} bytes; this one announces {length:,}")

    def _require_spare(self) -> None:
        self._store.require_free(0, self._settings.min_free_bytes)


def require_whole(upload: Upload) -> None:
    """Raises UploadUnfinished, which tells `offset` and `length`."""
    if not upload.whole:
        told = "an unknown number of" if upload.info.length is None else f"{upload.info.length:,}"
        raise UploadUnfinished(
            f"upload {upload.id} has {upload.offset:,} of {told} bytes", offset=upload.offset, length=upload.info.length
        )


def remove_expired_uploads(store: Store, expiry_s: float) -> int:
    """Those that nothing was added to for so long and that nobody writes to now. Returns how many."""
    removed = 0
    for info in (store.root / "uploads").glob("*/info.json"):
        folder = info.parent
        with suppress(FileNotFoundError, BlockingIOError), (folder / "lock").open("rb") as lock:
            newest = max(path.stat().st_mtime for path in (info, *folder.glob("source/*")))
            if time.time() - newest > expiry_s:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
    return removed


def _offset(folder: Path, size: int) -> int:
    """While a piece with a checksum arrives, none of it counts."""
    try:
        return min(size, int((folder / "floor").read_text() or size))
    except FileNotFoundError:
        return size


def _drop_unproved(path: Path, offset: int) -> None:
    """What a killed service left of a piece with a checksum."""
    if path.stat().st_size > offset:
        os.truncate(path, offset)
    (path.parent.parent / "floor").unlink(missing_ok=True)


def _write_info(folder: Path, info: UploadInfo) -> None:
    temporary = folder / ".info.json"
    with temporary.open("wb") as stream:
        stream.write(info.model_dump_json().encode())
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(folder / "info.json")
    sync_folder(folder)


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
