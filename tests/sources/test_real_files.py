"""Every file of ../shared/data: right pixels, or a clear refusal."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from gigamask.errors import BadImage, ImageTooLarge, UnsupportedImage
from gigamask.image_info import ReadOptions
from gigamask.settings import Settings
from gigamask.sources.source import open_source

Expected = Callable[[Path], NDArray[np.uint8]]


def by_pillow(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def by_tifffile(path: Path) -> NDArray[np.uint8]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].asarray()
    return grey(page) if page.ndim == 2 else page


def grey(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(plane[..., None], 3, axis=2)


def sixteen_bits(path: Path) -> NDArray[np.uint8]:
    stored = by_tifffile(path).astype(np.float64)
    return np.rint(stored * 255 / 65535).astype(np.uint8)


def signed_bytes(path: Path) -> NDArray[np.uint8]:
    return (by_tifffile(path).astype(np.int16) + 128).astype(np.uint8)


def planar(path: Path) -> NDArray[np.uint8]:
    return np.moveaxis(tifffile.imread(path), 0, -1)


def through_its_profile(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        turned = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        return np.asarray(turned)


def turned_upright(turns: int) -> Expected:
    """turns: quarter turns counter-clockwise, as numpy counts them."""
    return lambda path: np.rot90(by_tifffile(path), turns)


TIFFS: list[tuple[str, Expected, int]] = [
    ("16bit.MM.cropped.tif", sixteen_bits, 0),
    ("g4-multi.tiff", by_pillow, 0),
    ("hopper.iccprofile.tif", by_pillow, 0),  # an sRGB profile: pixels stay as they are
    ("hopper_bigtiff.tif", by_tifffile, 0),
    ("hopper_lzw.tif", by_tifffile, 0),
    ("hopper_webp.tif", by_tifffile, 0),
    ("lab.tif", lambda path: np.full((10, 10, 3), 255, np.uint8), 0),  # L = 255, a = b = 0: white
    ("multi-channel-z-series.ome.tif", signed_bytes, 0),
    ("test_orient0.tif", turned_upright(0), 2),
    ("test_orient3.tif", turned_upright(2), 2),
    ("test_orient6.tif", turned_upright(-1), 2),
    ("tiff_16bit_RGB.tiff", sixteen_bits, 0),
    ("tiff_adobe_deflate.tif", by_pillow, 2),
    ("tiff_strip_cmyk_jpeg.tif", by_pillow, 3),
    ("tiff_strip_planar_lzw.tiff", planar, 0),
    ("tiff_tiled_ycbcr_jpeg_2x2_sampling.tif", by_pillow, 2),
    ("yb10kx5k.zstd.tiff", by_tifffile, 0),
]


@pytest.mark.parametrize(("name", "expected", "levels"), TIFFS, ids=[row[0] for row in TIFFS])
def test_odd_tiffs_have_the_pixels_that_pillow_or_tifffile_see(
    samples: Path, pixels, name: str, expected: Expected, levels: int
) -> None:
    path = samples / "tiff" / name
    right = expected(path).astype(np.int16)
    assert np.abs(pixels(path).astype(np.int16) - right).max() <= levels
    assert name == "lab.tif" or right.min() < right.max()


def test_every_odd_tiff_stands_in_the_table(samples: Path) -> None:
    assert {path.name for path in (samples / "tiff").iterdir()} == {row[0] for row in TIFFS}


def test_a_multi_page_tiff_says_which_page_was_read(samples: Path, settings: Settings) -> None:
    info = open_source(samples / "tiff/multi-channel-z-series.ome.tif", ReadOptions(), settings).info
    assert "first of 15 planes" in info.notes
    assert info.sample_range == (-128, 127)


def test_print_resolutions_are_not_pixel_sizes(samples: Path, settings: Settings) -> None:
    for name in ("hopper_lzw.tif", "yb10kx5k.zstd.tiff", "g4-multi.tiff", "lab.tif"):
        assert open_source(samples / "tiff" / name, ReadOptions(), settings).info.pixel_size is None


def test_a_real_slide_has_its_size_and_its_pixels(samples: Path, settings: Settings, pixels) -> None:
    path = samples / "slides/CMU-1-Small-Region.svs"
    info = open_source(path, ReadOptions(), settings).info
    assert (info.format, info.height, info.width) == ("aperio", 2967, 2220)
    assert (info.pixel_size, info.unit) == ((0.499, 0.499), "micrometer")
    assert np.abs(pixels(path).astype(np.int16) - by_tifffile(path)).max() <= 2


def test_the_given_pixel_size_wins(samples: Path, settings: Settings) -> None:
    path = samples / "slides/CMU-1-Small-Region.svs"
    info = open_source(path, ReadOptions(pixel_size_um=0.25), settings).info
    assert (info.pixel_size, info.unit) == ((0.25, 0.25), "micrometer")


PLACES = [
    ("cog.tif", 32621, (100.01126757344893,) * 2, (2667, 2658)),
    ("nocog.tif", 32621, (100.01126757344893,) * 2, (2667, 2658)),
    ("cog_cmap.tif", 3857, (1.1943285669558765,) * 2, (8704, 7168)),
    ("cog_gcps.tif", 4326, None, (837, 1280)),
    ("cog_rgb_mask.tif", 26913, (0.1499978958645129, 0.14981552941953233), (232, 383)),
    ("naip_rgbn_2020.tif", 26914, (5.0, 5.0), (723, 934)),
    ("rgb_geotiff.tiff", 32611, (918.8671875, 901.2890625), (256, 256)),
    ("sentinel2_tci.tif", 32634, (100.0, 100.0), (1098, 1098)),
]


@pytest.mark.parametrize(("name", "epsg", "metres", "shape"), PLACES, ids=[row[0] for row in PLACES])
def test_a_geotiff_keeps_its_place(samples: Path, settings: Settings, name: str, epsg: int, metres, shape) -> None:
    info = open_source(samples / "geotiff" / name, ReadOptions(), settings).info
    assert info.georeference is not None
    assert (info.shape, info.georeference.epsg, info.pixel_size) == (shape, epsg, metres)
    assert info.unit == ("meter" if metres else None)


def test_every_geotiff_stands_in_the_table(samples: Path) -> None:
    assert {path.name for path in (samples / "geotiff").iterdir()} == {row[0] for row in PLACES}


def test_pixel_is_point_moves_the_origin_to_the_outer_corner(samples: Path, settings: Settings) -> None:
    place = open_source(samples / "geotiff/cog.tif", ReadOptions(), settings).info.georeference
    assert place is not None
    assert place.transform is not None
    assert place.transform[0] == pytest.approx(373235.0056337867 - 100.01126757344893 / 2)
    assert place.transform[3] == pytest.approx(8285964.994366214 + 100.01126757344893 / 2)


def test_tiled_and_stripped_copies_of_one_picture_are_equal(samples: Path, pixels) -> None:
    tiled, stripped = (pixels(samples / "geotiff" / name, sample_range=(0, 8000)) for name in ("cog.tif", "nocog.tif"))
    assert np.array_equal(tiled, stripped)
    stored = tifffile.imread(samples / "geotiff/nocog.tif").astype(np.float64)
    assert np.array_equal(tiled[..., 0], np.rint(np.clip(stored * 255 / 8000, 0, 255)))
    assert tiled.std() > 5


def test_a_palette_with_nodata_becomes_colours_and_validity(samples: Path, pixels) -> None:
    path = samples / "geotiff/cog_cmap.tif"
    with tifffile.TiffFile(path) as tiff:
        index, table = tiff.pages[0].asarray(), tiff.pages[0].colormap
    image = pixels(path)
    assert np.array_equal(image[..., :3], (table.T >> 8).astype(np.uint8)[index])
    assert np.array_equal(image[..., 3] > 0, index != 0)


def test_an_internal_mask_becomes_validity(samples: Path, pixels) -> None:
    path = samples / "geotiff/cog_rgb_mask.tif"
    with tifffile.TiffFile(path) as tiff:
        colours, mask = tiff.pages[0].asarray(), tiff.pages[1].asarray()
    image = pixels(path)
    assert np.array_equal(image[..., :3], colours)
    assert np.array_equal(image[..., 3] > 0, mask > 0)
    assert 0 < mask.mean() < 1


def test_the_nodata_value_becomes_validity(samples: Path, pixels) -> None:
    stored = tifffile.imread(samples / "geotiff/sentinel2_tci.tif", key=0)
    image = pixels(samples / "geotiff/sentinel2_tci.tif")
    assert np.array_equal(image[..., :3], stored)
    assert np.array_equal(image[..., 3] > 0, stored.any(axis=2))


def test_a_fourth_band_that_is_infrared_is_not_alpha(samples: Path, settings: Settings, pixels) -> None:
    path = samples / "geotiff/naip_rgbn_2020.tif"
    assert np.array_equal(pixels(path)[..., :3], tifffile.imread(path, key=0)[..., :3])
    assert any("not said to be alpha" in note for note in open_source(path, ReadOptions(), settings).info.notes)


FATES: dict[str, type[BadImage] | None] = {
    "broken.png": BadImage,
    "crash-0da013a13571cc8eb457a39fee8db18f8a3c7127.tif": BadImage,
    "crash-1152ec2d1a1a71395b6f2ce6721c38924d025bf3.tif": BadImage,
    "crash-2020-10-test.tif": BadImage,
    "crash-4f085cc12ece8cde18758d42608bed6a2a2cfb1c.tif": BadImage,
    "crash-63b1dffefc8c075ddc606c0a2f5fdc15ece78863.tif": BadImage,
    "crash-7d4c83eb92150fb8f1653a697703ae06ae7c4998.j2k": UnsupportedImage,
    "crash-ccca68ff40171fdae983d924e127a721cab2bd50.j2k": UnsupportedImage,
    "crash-f46f5b2f43c370fe65706c11449f567ecc345e74.tif": BadImage,
    "decompression_bomb.gif": UnsupportedImage,
    "libtiff_segfault.tif": ImageTooLarge,
    "looks-like-svg.webp": None,  # a sound file: its pixels are compared
    "multipage_single_frame_loop.tiff": BadImage,
    "oom-225817ca0f8c663be7ab4b9e717b02c661e66834.tif": BadImage,
    "seek_too_large.tif": BadImage,
    "tiff_wrong_bits_per_sample.tiff": BadImage,
    "truncated.jpg": BadImage,
    "truncated_jpeg.jpg": BadImage,
    "unopenable.tiff": UnsupportedImage,
    "unreadable.svs": BadImage,
    "zero_gi.tif": BadImage,
}


@pytest.mark.timeout(20)  # a loop of directories would otherwise be waited for
@pytest.mark.parametrize(("name", "fate"), FATES.items(), ids=FATES.keys())
def test_malformed_files_meet_their_stated_fate_soon(samples: Path, pixels, name: str, fate) -> None:
    started, path = time.monotonic(), samples / "malformed" / name
    if fate is None:
        with Image.open(path) as image:
            right = np.asarray(image.convert("RGBA"))
        assert np.array_equal(pixels(path)[..., 3] > 0, right[..., 3] > 0)
        assert np.array_equal(pixels(path)[..., :3], right[..., :3])
    else:
        with pytest.raises(BadImage) as caught:
            pixels(path)
        assert type(caught.value) is fate
        assert str(path.parent) not in caught.value.message
    assert time.monotonic() - started < 5


def test_every_malformed_file_has_a_stated_fate(samples: Path) -> None:
    assert {path.name for path in (samples / "malformed").iterdir()} == set(FATES)
