"""`gigamask up`: the whole service on this machine. An embedded Redis, the HTTP service and the workers, as children.

A child that dies is started again (the queue redelivers what it held), Redis on the same socket with what its
append-only file kept. SIGTERM or Ctrl-C lets the workers finish the region in hand and stops everything.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cli.console import err
from gigamask.processes import PARENT_PID
from gigamask.settings import Settings

if TYPE_CHECKING:
    from gigamask.queue.embedded import EmbeddedRedis

RESTART_PAUSE_S = 1.0
DRAIN_S = 60.0


@dataclass(slots=True)
class Child:
    """A process that should be running."""

    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None)
    started_s: float = 0.0

    def start(self) -> None:
        command = [sys.executable, "-m", "cli.main", *self.arguments]
        self.process = subprocess.Popen(command, env=self.environment, start_new_session=True)
        self.started_s = time.monotonic()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def revive(self) -> None:
        """Start again if it died, at most once a pause."""
        if self.running or time.monotonic() - self.started_s < RESTART_PAUSE_S:
            return
        code = self.process.returncode if self.process else None
        err.print(f"[yellow]{self.name} ended ({code}); starting it again[/]")
        self.start()

    def signal(self, number: int) -> None:
        if self.process and self.running:
            self.process.send_signal(number)

    def wait(self, until_s: float) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def children(settings: Settings, redis_url: str, segment_workers: int) -> list[Child]:
    """Settings travel to the children as the environment they would be read from."""
    environment = os.environ | {
        "GIGAMASK_STORE": str(settings.store.absolute()),
        "GIGAMASK_REDIS_URL": redis_url,
        "GIGAMASK_HOST": settings.host,
        "GIGAMASK_PORT": str(settings.port),
        PARENT_PID: str(os.getpid()),
    }
    workers = ["ingest", "assemble", *["segment"] * segment_workers]
    return [Child("service", ("serve",), environment)] + [
        Child(f"{stage} worker", ("worker", stage), environment) for stage in workers
    ]


@contextmanager
def running(family: list[Child]) -> Iterator[None]:
    try:
        for child in family:
            child.start()
        yield
    finally:
        for child in family:
            child.signal(signal.SIGTERM)
        until_s = time.monotonic() + DRAIN_S
        for child in family:
            child.wait(until_s)


def supervise(family: list[Child], redis: EmbeddedRedis | None = None) -> None:
    """Keep them running until SIGTERM or SIGINT. Raises QueueUnavailable where Redis cannot be started again."""
    stopping = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with running(family):
        while not stopping:
            if redis is not None and (code := redis.revive()) is not None:
                err.print(f"[yellow]the embedded Redis ended ({code}); it was started again[/]")
            for child in family:
                child.revive()
            time.sleep(0.2)
        err.print("stopping; workers finish what they hold")


def run(settings: Settings, segment_workers: int, embedded: bool) -> None:
    """Until SIGTERM or SIGINT. Raises QueueUnavailable where the embedded Redis does not start, or start again."""
    chosen = settings.model_copy(update={"port": settings.port or free_port(settings.host)})
    err.print(f"store {chosen.store.absolute()}\nservice http://{chosen.host}:{chosen.port} (docs at /docs)")
    if not embedded:
        supervise(children(chosen, chosen.redis_url, segment_workers))
        return
    from gigamask.queue.embedded import embedded_server

    with embedded_server(chosen.store / "redis") as redis:
        supervise(children(chosen, redis.url, segment_workers), redis)


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as listener:
        return int(listener.getsockname()[1])
