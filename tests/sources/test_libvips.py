"""libvips shut down to our loaders, from any number of threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gigamask.sources.libvips import library

ROOT = Path(__file__).resolve().parents[2]
TRIES = 8  # without the lock, every second try fails

SCRIPT = """
import threading
from concurrent.futures import ThreadPoolExecutor
import imagecodecs, numpy, pyvips
from gigamask.sources.libvips import library

jpeg = imagecodecs.jpeg_encode(numpy.zeros((16, 16, 3), numpy.uint8))
start = threading.Barrier(8)

def decode(_):
    start.wait()
    return library().Image.jpegload_buffer(jpeg).width

with ThreadPoolExecutor(8) as pool:
    assert list(pool.map(decode, range(8))) == [16] * 8
"""


@pytest.mark.parametrize("_attempt", range(TRIES))
def test_threads_that_open_the_library_at_once_do_not_block_each_other(_attempt: int) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_other_loaders_are_blocked() -> None:
    pyvips = library()
    with pytest.raises(pyvips.Error, match="blocked"):
        pyvips.Image.svgload_buffer(b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>")
