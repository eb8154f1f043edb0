"""The peak memory of one command, its children included one by one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

MIB = 1 << 20
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Peak:
    """rss_mib: highest resident set of any one process of the tree. tree_mib: highest sum over the tree."""

    seconds: float
    rss_mib: float
    tree_mib: float


def peak_of(command: Sequence[str], environment: dict[str, str] | None = None) -> Peak:
    """Raises CalledProcessError where the command fails."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    rss = tree = 0
    while process.poll() is None:
        sizes = _sizes(process.pid)
        rss, tree = max([rss, *sizes]), max(tree, sum(sizes))
        time.sleep(POLL_S)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Peak(time.perf_counter() - started, rss / MIB, tree / MIB)


def _sizes(pid: int) -> list[int]:
    try:
        root = psutil.Process(pid)
        return [p.memory_info().rss for p in [root, *root.children(recursive=True)]]
    except psutil.NoSuchProcess:
        return []
