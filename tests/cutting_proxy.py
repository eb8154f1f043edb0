"""A TCP proxy between a client and a service that cuts connections after so many bytes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing is a reset


class CuttingProxy:
    """cuts: for one connection after another, the bytes in both directions until it is reset; then none is cut."""

    def __init__(self, target: tuple[str, int], cuts: Iterator[int]) -> None:
        self.target, self._cuts = target, cuts
        self.cut = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._stopping.set()
        for thread in list(self._threads):
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                near, _ = self._listener.accept()
                thread = threading.Thread(target=self._carry, args=(near, next(self._cuts, None)))
                thread.start()
                self._threads.append(thread)

    def _carry(self, near: socket.socket, left: int | None) -> None:
        with near:
            try:
                far = socket.create_connection(self.target)
            except OSError:
                return
            with far:
                self._carry_between(near, far, left)

    def _carry_between(self, near: socket.socket, far: socket.socket, left: int | None) -> None:
        ends = {near: far, far: near}
        for end in ends:
            end.settimeout(0.02)
        while not self._stopping.is_set():
            for end, other in ends.items():
                try:
                    piece = end.recv(65536 if left is None else max(1, min(65536, left)))
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not piece:
                    return
                other.settimeout(10)
                with contextlib.suppress(OSError):
                    other.sendall(piece)
                other.settimeout(0.02)
                if left is not None:
                    left -= len(piece)
                    if left <= 0:
                        self.cut += 1
                        for cut in ends:
                            cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                        return


@contextmanager
def cutting(port: int, cuts: Iterator[int]) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(("127.0.0.1", port), cuts)
    try:
        yield proxy
    finally:
        proxy.close()
