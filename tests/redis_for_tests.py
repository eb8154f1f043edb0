"""A real Valkey for a whole run, emptied before each test. A conftest imports the fixtures it uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gigamask.queue.connection import Connection
from gigamask.queue.embedded import embedded_redis
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def connection(redis_url: str) -> Iterator[Connection]:
    connection = Connection(redis_url)
    connection.call("FLUSHALL")
    yield connection
    connection.close()


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(
        store=tmp_path / "store", models=(tmp_path / "models",), redis_url=redis_url,
        lease_s=0.4, max_attempts=3, inflight_regions=4,
    )  # fmt: skip


@pytest.fixture
def jobs(connection: Connection, settings: Settings) -> JobStore:
    return JobStore(connection, Store(settings.store), settings)
