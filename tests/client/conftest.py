"""One service behind a real socket for all of these tests, and a cache folder for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store
from tests.redis_for_tests import redis_url
from tests.service.conftest import Served, serving, write_model

__all__ = ["redis_url"]


@pytest.fixture(scope="package")
def settings(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("client")
    write_model(folder / "models")
    return Settings(store=folder / "store", models=(folder / "models",), redis_url=redis_url, lease_s=0.4)


@pytest.fixture(scope="package")
def served(settings: Settings) -> Iterator[Served]:
    with serving(settings) as served:
        yield served


@pytest.fixture(scope="package")
def store(settings: Settings) -> Store:
    return Store(settings.store)


@pytest.fixture
def jobs(settings: Settings, store: Store) -> Iterator[JobStore]:
    connection = Connection(settings.redis_url)
    yield JobStore(connection, store, settings)
    connection.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where uploads are remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gigamask" / "uploads"
