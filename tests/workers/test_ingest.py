"""Ingest in its guarded child: what it publishes, what it reports, and what it leaves when it fails (nothing)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image

from gigamask.errors import BadImage, DecodeTimeout, InsufficientStorage, InvalidOption
from gigamask.geometry import Box
from gigamask.image_info import ReadOptions
from gigamask.pyramid.image import ImagePyramid
from gigamask.settings import Settings
from gigamask.store import attempt, sweep_attempts
from workers.ingest import IngestStopped, ingest, inspect

SAMPLES = (Path(__file__).parents[2] / "../shared/data").resolve()
HOME = Path(__file__).parents[2]
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


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes many seconds to ingest: 400 megapixels behind a few kilobytes."""
    path = tmp_path_factory.mktemp("endless") / "endless.tif"
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


def test_two_attempts_at_one_image_do_not_meet(tmp_path: Path, settings: Settings) -> None:
    """The first is held up for a while, as by a lost lease; the second begins and ends; the first gives way."""
    source, root = noise(tmp_path / "a.tif", 3000), tmp_path / "image.zarr"
    held, second_is_over = threading.Event(), threading.Event()
    opened: list[str] = []

    def hold() -> bool:
        opened.extend(Path(file.path).suffix for child in children() for file in child.open_files())
        held.set()
        return not second_is_over.wait(30)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ingest, source, root, READ, settings, stop=hold)
        assert held.wait(30)
        second = ingest(source, root, READ, settings)
        published = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        second_is_over.set()
        assert first.result(30) == second == ImagePyramid(root).info
    assert ".lock" in opened, "the child does not hold its attempt's lock"
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == published
    stored = np.moveaxis(ImagePyramid(root).read(Box(0, 0, 3000, 3000)), 0, -1)
    assert np.array_equal(stored, tifffile.imread(source))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "image.zarr"]


def noise(path: Path, side: int, orientation: int = 1) -> Path:
    pixels = np.random.default_rng(2).integers(0, 255, (side, side, 3), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", rowsperstrip=64, extratags=[(274, "H", 1, orientation, True)])
    return path


def test_what_a_killed_attempt_left_is_swept_and_what_a_living_one_writes_is_not(
    tmp_path: Path, picture: Path, settings: Settings
) -> None:
    root, left = tmp_path / "image.zarr", tmp_path / f"image.zarr.{'0' * 32}.partial"
    left.mkdir()
    left.with_suffix(".lock").touch()
    other = tmp_path / f"image.zarr2.{'0' * 32}.lock"  # of another image
    other.touch()
    with attempt(root) as living:
        ingest(picture, root, READ, settings)
        assert living.folder.is_dir()
        assert not left.exists()
        assert other.exists()
        assert not living.publish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.zarr", other.name, "picture.tif"]


def test_an_attempt_is_not_swept_before_its_child_is_gone(tmp_path: Path) -> None:
    root = tmp_path / "image.zarr"
    script = (
        "import sys, subprocess, pathlib; from gigamask.store import attempt; a = attempt(pathlib.Path(sys.argv[1]));"
        "lock = a.__enter__().lock; p = subprocess.Popen(['sleep', '60'], pass_fds=[lock], stdout=2);"
        "print(p.pid, flush=True); import os; os.kill(os.getpid(), 9)"
    )
    told = subprocess.run([sys.executable, "-c", script, str(root)], cwd=HOME, stdout=subprocess.PIPE, check=False)
    child = psutil.Process(int(told.stdout))
    sweep_attempts(root)
    assert len(list(tmp_path.iterdir())) == 2
    child.kill()
    psutil.wait_procs([child], timeout=5)
    sweep_attempts(root)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(("orientation", "mebibytes"), [(6, 16), (1, 16), (1, 24)])
def test_a_full_disk_is_said_and_what_was_written_is_given_back(
    tmp_path: Path, orientation: int, mebibytes: int
) -> None:
    """By rows on their way to be turned, by rows that wait to become shards, and by shards."""
    source = noise(tmp_path / "a.tif", 3000, orientation)
    with small_disk(tmp_path / "disk", mebibytes) as disk:
        with pytest.raises(InsufficientStorage, match="disk was full"):
            ingest(source, disk / "image.zarr", READ, Settings(_env_file=None, min_free_bytes=0))
        assert list(disk.iterdir()) == []


def test_too_little_space_is_said_before_a_child_is_started(tmp_path: Path, picture: Path) -> None:
    settings = Settings(_env_file=None, min_free_bytes=10**18)
    with pytest.raises(InsufficientStorage, match="spare"):
        ingest(picture, tmp_path / "image.zarr", READ, settings)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.tif"]


def test_the_space_to_leave_free_is_watched_on_the_way(tmp_path: Path, endless: Path) -> None:
    settings = Settings(_env_file=None, min_free_bytes=100 * 1024**2)
    with small_disk(tmp_path / "disk", 160) as disk:
        with pytest.raises(InsufficientStorage, match="spare"):
            ingest(endless, disk / "image.zarr", READ, settings)
        assert list(disk.iterdir()) == []


def test_every_malformed_file_is_survived(tmp_path: Path, settings: Settings) -> None:
    if not SAMPLES.is_dir():
        pytest.skip("../shared/data is absent")
    for path in sorted((SAMPLES / "malformed").iterdir()):
        root = tmp_path / path.name
        try:
            ingest(path, root, READ, settings)
        except BadImage as exc:
            assert "died" not in exc.message, path.name
        else:
            assert path.name == "looks-like-svg.webp"
            shutil.rmtree(root)
        assert list(tmp_path.iterdir()) == [], path.name


def test_a_child_that_is_stopped_dead_is_killed(tmp_path: Path, endless: Path) -> None:
    settings = Settings(_env_file=None, ingest_stall_s=3)
    freezer = threading.Timer(1.5, lambda: [child.send_signal(signal.SIGSTOP) for child in children()])
    freezer.start()
    started = time.monotonic()
    with pytest.raises(DecodeTimeout, match="no row was decoded for 3 s"):
        ingest(endless, tmp_path / "image.zarr", READ, settings)
    assert time.monotonic() - started < 10
    assert children() == []
    assert list(tmp_path.iterdir()) == []


def test_the_total_time_is_limited(tmp_path: Path, endless: Path) -> None:
    with pytest.raises(DecodeTimeout, match="more than 1 s"):
        ingest(endless, tmp_path / "image.zarr", READ, Settings(_env_file=None, ingest_timeout_s=1))
    assert children() == []


def test_too_little_memory_is_said_and_survived(tmp_path: Path, endless: Path) -> None:
    settings = Settings(_env_file=None, ingest_memory_bytes=60 * 1024**2)
    with pytest.raises(BadImage, match=r"memory|bytes"):
        ingest(endless, tmp_path / "image.zarr", READ, settings)
    assert list(tmp_path.iterdir()) == []


def test_a_child_killed_by_a_signal_is_a_bad_image(tmp_path: Path, endless: Path, settings: Settings) -> None:
    killer = threading.Timer(1.5, lambda: [child.send_signal(signal.SIGSEGV) for child in children()])
    killer.start()
    with pytest.raises(BadImage, match="SIGSEGV"):
        ingest(endless, tmp_path / "image.zarr", READ, settings)
    assert list(tmp_path.iterdir()) == []


def test_a_cancelled_ingest_stops_soon(tmp_path: Path, endless: Path, settings: Settings) -> None:
    started = time.monotonic()
    with pytest.raises(IngestStopped):
        ingest(endless, tmp_path / "image.zarr", READ, settings, stop=lambda: time.monotonic() - started > 1)
    assert time.monotonic() - started < 4
    assert children() == []
    assert list(tmp_path.iterdir()) == []


def test_no_orphan_is_left_by_a_parent_that_is_killed(tmp_path: Path, endless: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from workers.ingest import ingest;"
        "from gigamask.image_info import ReadOptions; from gigamask.settings import Settings;"
        "ingest(Path(sys.argv[1]), Path(sys.argv[2]), ReadOptions(), Settings(_env_file=None))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(endless), str(tmp_path / "i.zarr")], cwd=HOME)
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
