"""The queue against both servers: the embedded Valkey, and Redis itself where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from gigamask.queue.embedded import embedded_redis
from tests.redis_for_tests import connection, jobs, settings

__all__ = ["connection", "jobs", "settings"]

START_S = 20.0


@pytest.fixture(scope="session", params=["valkey", "redis"])
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    serving = embedded_redis if request.param == "valkey" else installed_redis
    with serving(tmp_path_factory.mktemp(request.param)) as url:
        yield url


@contextmanager
def installed_redis(_folder: Path) -> Iterator[str]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server is installed here")
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        path = Path(folder) / "redis.sock"
        process = subprocess.Popen(
            [binary, "--port", "0", "--unixsocket", str(path), "--dir", folder, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until_it_answers(path)
            yield f"unix://{path}"
        finally:
            process.terminate()
            process.wait()


def wait_until_it_answers(path: Path) -> None:
    deadline = time.monotonic() + START_S
    with redis.Redis(unix_socket_path=str(path)) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < deadline, "redis-server did not come up"
                time.sleep(0.02)
