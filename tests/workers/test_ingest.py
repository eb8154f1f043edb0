"""Ingest in its guarded child: what it publishes, what it reports, and what it leaves when it fails (nothing)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image

from gigamask.errors import BadImage, DecodeTimeout, InvalidOption
from gigamask.geometry import Box
from gigamask.image_info import ReadOptions
from gigamask.pyramid.image import ImagePyramid
from gigamask.settings import Settings
from workers.ingest import IngestStopped, ingest, inspect

SAMPLES = (Path(__file__).parents[2] / "../shared/data").resolve()
READ = ReadOptions()


@pytest.fixture
def settings() -> Settings:
    return Settings(_env_file=None)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.tif"
    pixels = np.random.default_rng(1).integers(0, 255, (700, 900, 3), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256), compression="zstd")
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """Takes many seconds to ingest: 400 megapixels behind a few kilobytes."""
    path = tmp_path / "endless.tif"
    band = np.zeros((1024, 1024, 3), np.uint8)
    tifffile.imwrite(
        path,
        (band for _ in range(400)),
        shape=(20480, 20480, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(1024, 1024),
        compression="zlib",
    )
    return path


def children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "workers.ingest_child" in " ".join(p.cmdline())]


def test_the_pyramid_holds_the_files_pixels(tmp_path: Path, picture: Path, settings: Settings) -> None:
    heard: list[float] = []
    root = tmp_path / "image.zarr"
    info = ingest(picture, root, READ, settings, heard.append)
    image = ImagePyramid(root)
    assert image.info == info
    stored = np.moveaxis(image.read(Box(0, 0, 700, 900)), 0, -1)
    assert np.array_equal(stored, tifffile.imread(picture))
    assert heard == sorted(heard)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.zarr", "picture.tif"]


def test_no_scratch_file_stays_in_the_pyramid(tmp_path: Path, settings: Settings) -> None:
    """Orientation 6 goes through a temporary file inside the unfinished pyramid."""
    path, root = tmp_path / "a.jpg", tmp_path / "image.zarr"
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (300, 200), "red").save(path, exif=exif)
    assert ingest(path, root, READ, settings).shape == (300, 200)
    assert {p.name for p in root.iterdir()} <= {"zarr.json", *map(str, range(10))}


def test_inspect_tells_what_ingest_would_make(settings: Settings, picture: Path) -> None:
    info = inspect(picture, READ, settings)
    assert (info.shape, info.channels, info.compression) == ((700, 900), 3, "zstd")


def test_a_bad_file_raises_its_own_error_and_leaves_nothing(tmp_path: Path, picture: Path, settings: Settings) -> None:
    picture.write_bytes(picture.read_bytes()[:-1000])
    with pytest.raises(BadImage, match="truncated"):
        ingest(picture, tmp_path / "image.zarr", READ, settings)
    assert [p.name for p in tmp_path.iterdir()] == ["picture.tif"]


def test_an_option_that_is_needed_is_asked_for(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.float32))
    with pytest.raises(InvalidOption, match="sample_range"):
        ingest(path, tmp_path / "image.zarr", READ, settings)


def test_every_malformed_file_is_survived(tmp_path: Path, settings: Settings) -> None:
    if not SAMPLES.is_dir():
        pytest.skip("../shared/data is absent")
    for path in sorted((SAMPLES / "malformed").glob("crash*"))[:4]:
        with pytest.raises(BadImage):
            ingest(path, tmp_path / "image.zarr", READ, settings)
        assert list(tmp_path.iterdir()) == []


def test_a_child_that_is_stopped_dead_is_killed(tmp_path: Path, endless: Path) -> None:
    settings = Settings(_env_file=None, ingest_stall_s=3)
    freezer = threading.Timer(1.5, lambda: [child.send_signal(signal.SIGSTOP) for child in children()])
    freezer.start()
    started = time.monotonic()
    with pytest.raises(DecodeTimeout, match="no row was decoded for 3 s"):
        ingest(endless, tmp_path / "image.zarr", READ, settings)
    assert time.monotonic() - started < 10
    assert children() == []
    assert [p.name for p in tmp_path.iterdir()] == ["endless.tif"]


def test_the_total_time_is_limited(tmp_path: Path, endless: Path) -> None:
    with pytest.raises(DecodeTimeout, match="more than 1 s"):
        ingest(endless, tmp_path / "image.zarr", READ, Settings(_env_file=None, ingest_timeout_s=1))
    assert children() == []


def test_too_little_memory_is_said_and_survived(tmp_path: Path, endless: Path) -> None:
    settings = Settings(_env_file=None, ingest_memory_bytes=60 * 1024**2)
    with pytest.raises(BadImage, match=r"memory|bytes"):
        ingest(endless, tmp_path / "image.zarr", READ, settings)
    assert [p.name for p in tmp_path.iterdir()] == ["endless.tif"]


def test_a_child_killed_by_a_signal_is_a_bad_image(tmp_path: Path, endless: Path, settings: Settings) -> None:
    killer = threading.Timer(1.5, lambda: [child.send_signal(signal.SIGSEGV) for child in children()])
    killer.start()
    with pytest.raises(BadImage, match="SIGSEGV"):
        ingest(endless, tmp_path / "image.zarr", READ, settings)
    assert [p.name for p in tmp_path.iterdir()] == ["endless.tif"]


def test_a_cancelled_ingest_stops_soon(tmp_path: Path, endless: Path, settings: Settings) -> None:
    started = time.monotonic()
    with pytest.raises(IngestStopped):
        ingest(endless, tmp_path / "image.zarr", READ, settings, stop=lambda: time.monotonic() - started > 1)
    assert time.monotonic() - started < 4
    assert children() == []
    assert [p.name for p in tmp_path.iterdir()] == ["endless.tif"]


def test_no_orphan_is_left_by_a_parent_that_is_killed(tmp_path: Path, endless: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from workers.ingest import ingest;"
        "from gigamask.image_info import ReadOptions; from gigamask.settings import Settings;"
        "ingest(Path(sys.argv[1]), Path(sys.argv[2]), ReadOptions(), Settings(_env_file=None))"
    )
    home = Path(__file__).parents[2]
    parent = subprocess.Popen([sys.executable, "-c", script, str(endless), str(tmp_path / "i.zarr")], cwd=home)
    child = wait_for_child(parent.pid)
    child.suspend()  # so that it cannot notice the closed pipe by itself
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    gone, alive = psutil.wait_procs([child], timeout=5)
    for orphan in alive:
        orphan.kill()
    assert gone == [child]


def wait_for_child(pid: int) -> psutil.Process:
    for _ in range(100):
        found = psutil.Process(pid).children()
        if found and "workers.ingest_child" in " ".join(found[0].cmdline()):
            time.sleep(1.0)  # past its first instructions
            return found[0]
        time.sleep(0.05)
    raise AssertionError("the child never started")
