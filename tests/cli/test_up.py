"""`gigamask up`: what dies is started again, the queue itself included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from cli.up import free_port

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60


class Up:
    def __init__(self, store: Path) -> None:
        port = free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "cli.main", "up", "--store", str(store), "--port", str(port)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
        )

    def redis(self) -> psutil.Process | None:
        """The server that runs now."""
        children = psutil.Process(self.process.pid).children()
        return next((c for c in children if "valkey" in c.name() and c.status() != psutil.STATUS_ZOMBIE), None)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path / "store")
    yield up
    if up.process.poll() is None:
        up.process.terminate()
    up.process.communicate(timeout=PATIENCE_S)


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.1)


def test_a_redis_that_died_is_started_again_and_the_service_goes_on(up: Up) -> None:
    wait_until(up.ready)
    first = up.redis()
    assert first is not None
    first.send_signal(signal.SIGKILL)
    wait_until(lambda: (now := up.redis()) is not None and now.pid != first.pid)
    wait_until(up.ready)
    assert up.process.poll() is None
    up.process.send_signal(signal.SIGTERM)
    _out, said = up.process.communicate(timeout=PATIENCE_S)
    assert up.process.returncode == 0, said
    assert "the embedded Redis ended (-9)" in said


def test_a_redis_that_cannot_be_started_again_ends_everything_with_the_reason(up: Up, tmp_path: Path) -> None:
    wait_until(up.ready)
    redis = up.redis()
    assert redis is not None
    for path in (tmp_path / "store" / "redis" / "appendonlydir").glob("*.manifest"):
        path.write_text("not a manifest")
    redis.send_signal(signal.SIGKILL)
    _out, said = up.process.communicate(timeout=PATIENCE_S)
    assert up.process.returncode == 1
    assert "queue_unavailable" in said and "did not come up" in said
