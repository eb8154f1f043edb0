"""The one writer of an upload, across processes: the newest claim wins, and an older one lets go when it sees that.

A claim puts its name into the upload's `lock` and then waits for the lock itself; who holds it looks now and then
whether its own name still stands there. So nobody is kept out by a writer that is not heard of any more (tus #335).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gigamask.errors import UnknownUpload, UploadLocked
from gigamask.store import new_id

CLAIM_S = 10.0  # how long an older writer may take to let go
CLAIM_POLL_S = 0.05


class Claim:
    """The right to write to one upload, once `try_lock` was true; `close` gives it back."""

    def __init__(self, folder: Path) -> None:
        """Puts our name into the lock, which asks whoever holds it to let go. Raises UnknownUpload."""
        self._path, self._name = folder / "lock", new_id().encode()
        try:
            self._fd = os.open(self._path, os.O_RDWR)
        except FileNotFoundError as exc:
            raise UnknownUpload(f"no upload {folder.name!r}") from exc
        os.pwrite(self._fd, self._name, 0)

    def try_lock(self) -> bool:
        """Raises UnknownUpload where the upload was removed meanwhile, UploadLocked where a newer claim came."""
        self.require_newest()
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            there = os.path.samestat(os.fstat(self._fd), self._path.stat())
        except FileNotFoundError:
            there = False
        if not there:
            raise UnknownUpload(f"no upload {self._path.parent.name!r}")
        return True

    def require_newest(self) -> None:
        """Raises UploadLocked where a newer request goes on with the upload."""
        if os.pread(self._fd, 64, 0) != self._name:
            raise UploadLocked("a newer request goes on with this upload")

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def locked(claim: Claim, within_s: float = CLAIM_S) -> Iterator[Claim]:
    """Waits for an older writer to let go. Raises UploadLocked where it does not."""
    try:
        until = time.monotonic() + within_s
        while not claim.try_lock():
            if time.monotonic() > until:
                raise UploadLocked("another request writes to this upload and does not let go")
            time.sleep(CLAIM_POLL_S)
        yield claim
    finally:
        claim.close()
