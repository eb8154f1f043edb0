"""Which upload belongs to which file, beyond the end of the process: one small file for each, in the user's cache.

The key is the file's path, size and time of change, and the service. While a process sends a file it holds the lock of
that memory; a second one that sends the same file at the same time has an upload of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What a file is held to while it is sent."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> FileIdentity:
        """Raises OSError."""
        found = path.stat()
        return cls(path.resolve(), found.st_size, found.st_mtime_ns)


class Memory:
    """The upload of one file, by its id; `None` where there is none."""

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream

    def recall(self) -> str | None:
        if self._stream is None:
            return None
        self._stream.seek(0)
        return self._stream.read().strip() or None

    def keep(self, upload_id: str) -> None:
        """Empty: forget."""
        if self._stream is None:
            return
        with suppress(OSError):  # a full disk costs the memory, not the upload
            self._stream.seek(0)
            self._stream.truncate()
            self._stream.write(upload_id)
            self._stream.flush()

    def forget(self) -> None:
        self.keep("")
        if self._stream is not None:
            with suppress(OSError):
                Path(self._stream.name).unlink()


@contextmanager
def memory_of(identity: FileIdentity, server: str, folder: Path | None) -> Iterator[Memory]:
    """Without a folder, or where nothing can be written or another process sends the file: one that keeps nothing."""
    name = hashlib.sha256(f"{server}\n{identity.path}\n{identity.size}\n{identity.mtime_ns}".encode()).hexdigest()
    stream = _open_locked(folder / name) if folder else None
    try:
        yield Memory(stream)
    finally:
        if stream is not None:
            if not Memory(stream).recall():
                Memory(stream).forget()
            stream.close()


def _open_locked(path: Path) -> IO[str] | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+", encoding="ascii")
    except OSError:
        return None
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return None
    return stream


def cache_folder() -> Path:
    """As the XDG base directory specification says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gigamask" / "uploads"
