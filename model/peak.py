"""The highest memory of this process since a moment, as the system counts it: no sampling, so no moment is missed.

The operating system's mark of the resident set is reset by writing 5 to /proc/self/clear_refs (Linux, proc(5)). Where
that is not possible the mark is of the whole life of the process.
"""

from __future__ import annotations

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_PROC = Path("/proc/self")
_KIB_PER_MIB, MIB = 1 << 10, 1 << 20


class PeakMemory:
    """Counts from when it is made."""

    def __init__(self) -> None:
        with suppress(OSError):
            (_PROC / "clear_refs").write_text("5")
        if cuda := _cuda():
            cuda.reset_peak_memory_stats()

    def rss_mib(self) -> float:
        try:
            found = re.search(r"VmHWM:\s+(\d+) kB", (_PROC / "status").read_text())
        except OSError:
            found = None
        if found:
            return int(found[1]) / _KIB_PER_MIB
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (MIB if sys.platform == "darwin" else _KIB_PER_MIB)  # bytes there, kibibytes elsewhere

    def gpu_mib(self) -> float | None:
        """What torch has allocated on its GPU; None where torch has used none."""
        cuda = _cuda()
        return float(cuda.max_memory_allocated()) / MIB if cuda else None


def _cuda() -> Any:
    """torch.cuda where it is in use already; asking is no reason to load torch."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None
