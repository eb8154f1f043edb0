"""What a process does to itself before it works."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = "import sys; from gigamask.processes import give_back_freed_memory as f; sys.exit(0 if f() else 1)"


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_glibc_takes_the_settings() -> None:
    assert subprocess.run([sys.executable, "-c", SCRIPT], check=False).returncode == 0
