"""Processes that do not outlive their parent, and that give back the memory they are done with."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # mallopt(3)
MMAP_THRESHOLD_BYTES = 1 << 20
TRIM_THRESHOLD_BYTES = 32 << 20  # at 128 KiB, glibc's own, the top of the heap comes and goes with every tile
PARENT_PID = "GIGAMASK_PARENT_PID"


def die_with_parent(parent_pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Called in a child: have the kernel send it `number` when its parent dies (Linux; elsewhere nothing)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent_pid:  # it died before the call above
        os.kill(os.getpid(), number)


def give_back_freed_memory() -> bool:
    """Before any thread starts: one heap, and blocks of pixels outside it. False where the C library is not glibc.

    Else each thread's heap keeps what it freed: a segment worker grew from 408 to 624 MiB over 64 regions.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    wanted = {M_ARENA_MAX: 1, M_MMAP_THRESHOLD: MMAP_THRESHOLD_BYTES, M_TRIM_THRESHOLD: TRIM_THRESHOLD_BYTES}
    return all(mallopt(name, value) for name, value in wanted.items())


def die_with_named_parent() -> None:
    """`die_with_parent`, where the environment names the parent (set by `gigamask up`)."""
    if parent_pid := os.environ.get(PARENT_PID):
        die_with_parent(int(parent_pid))
