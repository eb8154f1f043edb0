"""Windows of image files of any kind and size are what was written, and memory does not grow with the picture."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from gigamask.errors import BadImage
from gigamask.geometry import Box
from model.data import rasters, tiff_windows
from model.data.rasters import DECODED_PX, KEPT_BYTES, Kept, open_raster
from tests.pictures import picture

Bytes = NDArray[np.uint8]
MIB = 2**20
BOXES = (Box(0, 0, 201, 301), Box(63, 64, 64, 66), Box(17, 5, 190, 301), Box(200, 300, 201, 301))

TIFFS = {
    "tiled": {"tile": (64, 48)},
    "strips": {"rowsperstrip": 7},
    "one strip": {"rowsperstrip": 201},
    "deflate, predictor": {"tile": (64, 64), "compression": "deflate", "predictor": 2},
    "lzw": {"rowsperstrip": 16, "compression": "lzw"},
    "zstd": {"tile": (64, 64), "compression": "zstd"},
    "bands in planes": {"tile": (64, 64), "planarconfig": "separate"},
    "bigtiff": {"rowsperstrip": 7, "bigtiff": True},
}


@pytest.fixture
def written() -> Bytes:
    return picture((201, 301), 3)


@pytest.mark.parametrize("options", TIFFS.values(), ids=TIFFS.keys())
def test_windows_of_a_tiff_come_from_its_cells(written: Bytes, tmp_path: Path, cache: Path, options: dict) -> None:  # type: ignore[type-arg]
    path = tmp_path / "a.tif"
    planes = options.get("planarconfig") == "separate"
    tifffile.imwrite(path, written.transpose(2, 0, 1) if planes else written, photometric="rgb", **options)
    raster = open_raster(path, bands=3)
    assert raster.in_cells
    for box in BOXES:
        assert np.array_equal(raster.read(box), written[box.slices])
    assert not cache.exists()


def test_a_window_decodes_the_cells_it_touches_and_no_others(
    written: Bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", written, photometric="rgb", tile=(64, 64))
    decoded: list[int] = []
    original = tiff_windows._decoded
    monkeypatch.setattr(tiff_windows, "_decoded", lambda *a: decoded.append(a[2]) or original(*a))  # type: ignore[func-returns-value]
    open_raster(tmp_path / "a.tif", bands=3).read(Box(60, 64, 70, 129))
    assert decoded == [1, 2, 6, 7]  # five cells a row


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
@pytest.mark.usefixtures("nothing_is_small")
def test_a_large_picture_is_converted_once(written: Bytes, tmp_path: Path, cache: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(written).save(path, lossless=True)
    for box in BOXES:
        assert np.array_equal(open_raster(path, bands=3).read(box), written[box.slices])
    (entry,) = cache.iterdir()
    assert entry.name.startswith("a-")


@pytest.mark.usefixtures("nothing_is_small")
def test_a_picture_of_many_chunks_is_converted_whole(tmp_path: Path) -> None:
    large = picture((1100, 1300), 1)[..., 0]
    Image.fromarray(large).save(tmp_path / "a.png")
    raster = open_raster(tmp_path / "a.png", bands=1)
    for box in (Box(0, 0, 1100, 1300), Box(500, 510, 1030, 1290), Box(1099, 1299, 1100, 1300)):
        assert np.array_equal(raster.read(box)[..., 0], large[box.slices])


@pytest.mark.usefixtures("nothing_is_small")
def test_threads_that_want_the_same_picture_at_once_all_get_it(written: Bytes, tmp_path: Path, cache: Path) -> None:
    Image.fromarray(written).save(tmp_path / "a.png")
    raster = open_raster(tmp_path / "a.png", bands=3)
    with ThreadPoolExecutor(4) as pool:
        for window in pool.map(raster.read, [BOXES[0]] * 4):
            assert np.array_equal(window, written)
    assert len(list(cache.iterdir())) == 1


def test_a_window_may_be_changed_without_changing_the_next(tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 3, np.uint8)).save(tmp_path / "a.png")
    raster = open_raster(tmp_path / "a.png", bands=1)
    raster.read(Box(0, 0, 9, 9))[:] = 7
    assert (raster.read(Box(0, 0, 9, 9)) == 3).all()


@pytest.mark.parametrize("small", [True, False], ids=["kept", "converted"])
def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path, small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not small:
        monkeypatch.setattr(rasters, "DECODED_PX", 0)
    path, box = tmp_path / "a.png", Box(0, 0, 9, 9)
    for value in (3, 4):
        Image.fromarray(np.full((9, 9), value, np.uint8)).save(path)
        os.utime(path, ns=(value, value))
        assert (open_raster(path, bands=1).read(box) == value).all()


@pytest.mark.usefixtures("nothing_is_small")
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_half_a_file_is_named_and_leaves_nothing_behind(written: Bytes, tmp_path: Path, cache: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(written).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    raster = open_raster(path, bands=3)
    with pytest.raises(BadImage, match=str(path)):
        raster.read(BOXES[0])
    assert list(cache.iterdir()) == []


def test_a_damaged_cell_is_told_with_its_file_and_number(written: Bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, written, photometric="rgb", tile=(64, 64), compression="deflate")
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[0].dataoffsets[3]
    raw = bytearray(path.read_bytes())
    raw[start : start + 40] = b"\xff" * 40
    path.write_bytes(raw)
    raster = open_raster(path, bands=3)
    assert raster.read(Box(0, 0, 64, 128)).shape == (64, 128, 3)
    with pytest.raises(BadImage, match=r"a\.tif: segment 3 of 20 does not decode"):
        raster.read(Box(0, 0, 64, 301))


def test_what_is_no_picture_of_this_kind_is_told_with_what_was_expected(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((9, 9), np.uint16))
    with pytest.raises(ValueError, match=r"deep\.tif: samples are uint16, expected uint8"):
        open_raster(tmp_path / "deep.tif", bands=1)
    tifffile.imwrite(tmp_path / "three.tif", np.zeros((9, 9, 3), np.uint8), photometric="rgb")
    with pytest.raises(ValueError, match=r"three\.tif: 3 bands, expected 4"):
        open_raster(tmp_path / "three.tif", bands=4)
    (tmp_path / "words.png").write_text("no picture")
    with pytest.raises(BadImage, match=r"words\.png: no known image"):
        open_raster(tmp_path / "words.png", bands=1)
    with pytest.raises(FileNotFoundError, match=r"gone\.png: expected there"):
        open_raster(tmp_path / "gone.png", bands=1)


def test_a_box_beyond_the_picture_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(IndexError, match=r"a\.png: .* is not inside 9 x 9"):
        open_raster(tmp_path / "a.png", bands=1).read(Box(0, 0, 9, 10))


def test_what_was_used_last_is_kept_within_the_budget() -> None:
    kept, made = Kept(budget_bytes=300), []

    def get(key: int) -> None:
        kept.get(key, lambda: made.append(key) or np.zeros(100, np.uint8))  # type: ignore[func-returns-value]
        assert kept.held_bytes <= 300

    for key in (1, 2, 3, 1, 4, 1, 2):
        get(key)
    assert made == [1, 2, 3, 4, 2]


def test_one_picture_that_is_decoded_whole_fits_into_what_is_kept() -> None:
    assert DECODED_PX * 4 <= KEPT_BYTES


_READ = """
import sys, numpy as np
from pathlib import Path
from gigamask.geometry import Box
from model.data.rasters import open_raster
rng = np.random.default_rng(0)
for path in sys.argv[1:]:
    raster = open_raster(Path(path), bands=3)
    for _ in range(20):
        y, x = (int(rng.integers(n - 1024)) for n in raster.shape)
        window = raster.read(Box(y, x, y + 1024, x + 1024))
        rows, columns = np.arange(y, y + 1024), np.arange(x, x + 1024)
        assert (window[..., 0] == rows[:, None] % 256).all() and (window[..., 1] == columns % 256).all()
        assert (window[..., 2] == (rows // 256)[:, None]).all()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_bytes(*paths: Path) -> int:
    """Of a process that reads 20 windows of 1024 x 1024 from each, and checks every pixel."""
    command = [sys.executable, "-c", _READ, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) * 1024


def write_coordinates(path: Path, height: int, width: int) -> Path:
    """(height, width, 3): red is the row mod 256, green the column mod 256, blue the row / 256; written row by row."""
    import pyvips

    at = pyvips.Image.xyz(width, height)
    y, x = at[1], at[0]
    image = (y % 256).bandjoin([x % 256, (y / 256).floor()]).cast("uchar").copy(interpretation="srgb")
    image.write_to_file(str(path), **({"tile": True} if path.suffix == ".tif" else {"compression": 1}))
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its peak memory from Linux's /proc")
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_memory_is_flat_as_the_picture_grows(tmp_path: Path, suffix: str) -> None:
    """9 and 90 megapixels: the larger decodes to 257 MiB, and both peaks differ by less than a quarter of that."""
    small = peak_bytes(write_coordinates(tmp_path / f"small{suffix}", 3000, 3000))
    large = peak_bytes(write_coordinates(tmp_path / f"large{suffix}", 30000, 3000))
    assert large - small < 64 * MIB, f"{small / MIB:.0f} MiB for 9 megapixels, {large / MIB:.0f} MiB for 90"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its peak memory from Linux's /proc")
def test_memory_is_flat_as_the_pictures_become_many(tmp_path: Path) -> None:
    """40 pictures of 4 megapixels decode to 480 MiB; 256 MiB are kept."""
    one = write_coordinates(tmp_path / "0.png", 2048, 2048)
    paths = [one, *(tmp_path / f"{i}.png" for i in range(1, 40))]
    for path in paths[1:]:
        os.link(one, path)
    assert peak_bytes(*paths) - peak_bytes(one) < KEPT_BYTES + 48 * MIB
