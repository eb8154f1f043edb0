"""One builder a file, among all processes that share a store.

Who builds a target holds the lock of a file beside it, which goes with the process however that ends, and writes there
how far it is, for others to read.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gigamask.store import sweep_attempts

SUFFIX = ".building"
_ATTEMPT = re.compile(r"(.+)\.[0-9a-f]{32}\.lock")
TELL_S = 0.2
# Who asks `fraction_of` holds the lock for a moment: a builder that meets one tries again.
TRIES, TRY_S = 20, 0.05


def lock_path(target: Path) -> Path:
    return target.with_name(target.name + SUFFIX)


@contextmanager
def hold(target: Path) -> Iterator[Callable[[float], None] | None]:
    """Yields what tells others the fraction done; None where another process builds the target."""
    path = lock_path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(path)
    if lock is None:
        yield None
        return
    try:
        yield _teller(lock)
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def fraction_of(target: Path) -> float | None:
    """How far another process is with the target, in [0, 1]; None where none builds it."""
    with suppress(FileNotFoundError), lock_path(target).open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return float(stream.read(16) or 0)
    return None


def sweep_folder(folder: Path) -> None:
    """Remove what builders that died left of any target there."""
    for path in list(folder.iterdir()) if folder.is_dir() else ():
        if attempt := _ATTEMPT.fullmatch(path.name):
            sweep_attempts(folder / attempt[1])
        elif path.suffix == SUFFIX and fraction_of(path.with_suffix("")) is None:
            path.unlink(missing_ok=True)


def _lock(path: Path) -> int | None:
    """An open, locked descriptor of the file that has this name."""
    for _ in range(TRIES):
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with suppress(BlockingIOError, FileNotFoundError):  # held, or removed by who held it
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        os.close(lock)
        time.sleep(TRY_S)
    return None


def _teller(lock: int) -> Callable[[float], None]:
    told = 0.0

    def tell(fraction: float) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_S:
            told = time.monotonic()
            os.pwrite(lock, f"{fraction:.6f}".encode(), 0)

    return tell
