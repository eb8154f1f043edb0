"""The service as a process: everything built from Settings, and uvicorn around it.

Headers of proxies are not believed: nothing here depends on them. h11 parses HTTP, because it bounds a request's head.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable

import uvicorn

from gigamask.manifest import ModelShelf
from gigamask.processes import give_back_freed_memory
from gigamask.queue.job_store import open_jobs
from gigamask.settings import Settings
from gigamask.store import Store
from service.app import create_app
from service.events import close_streams
from service.resumable import remove_expired_uploads
from service.tiles import stop_drawing
from service.uploads import remove_stale_uploads

MAX_HEAD_BYTES = 64 * 1024
SHUTDOWN_S = 10
CLEAN_UP_S = 5.0
STALE_UPLOAD_S = 24 * 3600.0
KEEP_ALIVE_S = 15


class Server(uvicorn.Server):
    """Tells its URL once connections are accepted."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.servers:
            self._on_ready(url_of(self.servers[0].sockets[0].getsockname()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn cancels what will not end and lets the signal end the process; cancelled uploads clean up before.

        Streams of events end first: they would not by themselves.
        """
        close_streams(self.config.app)
        await super().shutdown(sockets)
        stop_drawing(self.config.app)
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=CLEAN_UP_S)


def url_of(address: tuple[str, int]) -> str:
    """address: (host, port, ...) of a bound socket. An address that means all of them is shown as this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address[0], address[0])
    return f"http://[{host}]:{address[1]}" if ":" in host else f"http://{host}:{address[1]}"


def say_url(url: str) -> None:
    sys.stdout.write(f"Gigamask listens on {url}\n")
    sys.stdout.flush()


def build_config(settings: Settings, shutdown_s: int = SHUTDOWN_S) -> uvicorn.Config:
    store = Store(settings.store.absolute())
    app = create_app(settings, store, open_jobs(settings), ModelShelf(settings.models))
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http="h11",
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=shutdown_s,
        log_config=None,
        access_log=False,
    )


def run(settings: Settings, on_ready: Callable[[str], None] = say_url, shutdown_s: int = SHUTDOWN_S) -> None:
    """Serve until SIGTERM or SIGINT; what is under way then has `shutdown_s` seconds to end."""
    give_back_freed_memory()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    store = Store(settings.store.absolute())
    remove_stale_uploads(store, STALE_UPLOAD_S)
    remove_expired_uploads(store, settings.upload_expiry_s)
    Server(build_config(settings, shutdown_s), on_ready).run()
