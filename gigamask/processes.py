"""Child processes that do not outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PARENT_PID = "GIGAMASK_PARENT_PID"


def die_with_parent(parent_pid: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Called in a child: have the kernel send it `number` when its parent dies (Linux; elsewhere nothing)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(number))
    if os.getppid() != parent_pid:  # it died before the call above
        os.kill(os.getpid(), number)


def die_with_named_parent() -> None:
    """`die_with_parent`, where the environment names the parent (set by `gigamask up`)."""
    if parent_pid := os.environ.get(PARENT_PID):
        die_with_parent(int(parent_pid))
