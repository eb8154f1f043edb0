"""The service as a process of its own, with its own Redis, for whoever measures it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from gigamask.queue.embedded import embedded_redis

READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Service:
    url: str
    redis_url: str
    process: psutil.Process


@contextmanager
def serving(store: Path, **more: object) -> Iterator[Service]:
    """more: settings by their names. Raises RuntimeError where it does not become ready."""
    with embedded_redis(store / "redis") as redis_url:
        port = _free_port()
        settings = {"store": store, "redis_url": redis_url, "port": port} | more
        environment = os.environ | {f"GIGAMASK_{name.upper()}": str(value) for name, value in settings.items()}
        child = subprocess.Popen([sys.executable, "-m", "cli.main", "serve"], env=environment)
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(url)
            yield Service(url, redis_url, psutil.Process(child.pid))
        finally:
            child.terminate()
            child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(url: str) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{url} did not become ready in {READY_S:.0f} s")
