"""Files made here: every codec, sample type, orientation and lie of a header."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from gigamask.errors import BadImage, ImageTooLarge, InvalidOption, UnsupportedImage
from gigamask.image_info import ReadOptions
from gigamask.settings import Settings
from gigamask.sources import blocks
from gigamask.sources.colour import cmyk_to_rgb
from gigamask.sources.source import open_source

HEIGHT, WIDTH = 150, 333


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """Smooth, with detail, different in each channel and corner."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    planes = [127 + 90 * np.sin(x / 31 + k) + 37 * np.cos(y / (11 + k)) for k in range(3)]
    return np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)


LOSSLESS = ["none", "zlib", "lzw", "packbits", "zstd", "lzma", "lerc", "jpeg2000", "jpegxl", "webp"]


@pytest.mark.parametrize("layout", ["tiled", "stripped"])
@pytest.mark.parametrize("codec", LOSSLESS)
def test_lossless_codecs_give_the_exact_pixels(tmp_path: Path, picture, pixels, codec: str, layout: str) -> None:
    path = write(tmp_path / "a.tif", picture, codec, layout)
    assert np.array_equal(pixels(path), picture)


@pytest.mark.parametrize("layout", ["tiled", "stripped"])
@pytest.mark.parametrize("photometric", ["ycbcr", "rgb"])
def test_jpeg_tiffs_are_within_two_levels(tmp_path: Path, picture, pixels, photometric: str, layout: str) -> None:
    path = tmp_path / "a.tif"
    if photometric == "rgb":  # as Aperio writes them: no colour transform
        tifffile.imwrite(path, picture, compression="jpeg", photometric="rgb", **shape_of(layout))
    else:
        save_by_vips(picture, path, compression="jpeg", tile=layout == "tiled", tile_width=64, tile_height=64, Q=95)
    right = tifffile.imread(path).astype(np.int16)
    assert np.abs(pixels(path).astype(np.int16) - right).max() <= 2


def write(path: Path, picture: NDArray[Any], codec: str, layout: str) -> Path:
    lossless = {"jpeg2000": {"reversible": True}, "jpegxl": {"lossless": True}, "webp": {"lossless": True}}
    options: dict[str, Any] = {"compressionargs": lossless[codec]} if codec in lossless else {}
    compression = None if codec == "none" else codec
    tifffile.imwrite(path, picture, photometric="rgb", compression=compression, **shape_of(layout), **options)
    return path


def shape_of(layout: str) -> dict[str, Any]:
    return {"tile": (64, 64)} if layout == "tiled" else {"rowsperstrip": 40}


def save_by_vips(picture: NDArray[np.uint8], path: Path, **options: Any) -> None:
    from gigamask.sources.libvips import library

    height, width, bands = picture.shape
    image = library().Image.new_from_memory(picture.tobytes(), width, height, bands, "uchar")
    image.copy(interpretation="srgb").tiffsave(str(path), **options)


@pytest.mark.parametrize("codec", ["none", "zlib", "zstd"])
@pytest.mark.parametrize("layout", ["tiled", "stripped"])
def test_planar_separate_bands_are_put_together(tmp_path: Path, picture, pixels, codec: str, layout: str) -> None:
    path = tmp_path / "a.tif"
    planes = np.moveaxis(picture, -1, 0)
    options: dict[str, Any] = {"photometric": "rgb", "planarconfig": "separate", **shape_of(layout)}
    tifffile.imwrite(path, planes, compression=None if codec == "none" else codec, **options)
    assert np.array_equal(pixels(path), picture)


def test_bigtiff_and_big_endian_are_read(tmp_path: Path, picture, pixels) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, bigtiff=True, byteorder=">", predictor=True, compression="zlib", tile=(64, 64))
    assert np.array_equal(pixels(path), picture)


def test_a_wide_row_of_tiles_goes_through_a_file_and_comes_back(
    tmp_path: Path, picture, pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BAND_BYTES", 1)
    path = write(tmp_path / "a.tif", picture, "zlib", "tiled")
    assert np.array_equal(pixels(path), picture)


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_plain_pictures_are_read_whatever_they_are_called(tmp_path: Path, picture, pixels, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture).save(path, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as image:
        right = np.asarray(image.convert("RGB")).astype(np.int16)
    misnamed = path.rename(tmp_path / "slide.svs")
    assert np.abs(pixels(misnamed).astype(np.int16) - right).max() <= (2 if suffix == "jpg" else 0)


def test_sixteen_bits_go_linearly_to_eight_and_the_range_is_said(tmp_path: Path, settings: Settings, pixels) -> None:
    path = tmp_path / "a.tif"
    stored = np.arange(0, 65536, 7, dtype=np.uint16)[None, :]
    tifffile.imwrite(path, stored, photometric="minisblack", compression="zlib")
    assert np.array_equal(pixels(path)[..., 1], np.rint(stored * (255 / 65535)).astype(np.uint8))
    right = np.clip(np.rint((stored.astype(np.float64) - 1000) * (255 / 3000)), 0, 255).astype(np.uint8)
    assert np.array_equal(pixels(path, sample_range=(1000, 4000))[..., 0], right)
    info = open_source(path, ReadOptions(sample_range=(1000, 4000)), settings).info
    assert info.sample_range == (1000, 4000)


def test_real_numbers_need_a_range_and_nan_is_no_data(tmp_path: Path, settings: Settings, pixels) -> None:
    path = tmp_path / "a.tif"
    stored = np.linspace(-1, 2, 64 * 64, dtype=np.float32).reshape(64, 64)
    stored[3, 5] = np.nan
    tifffile.imwrite(path, stored, tile=(32, 32), compression="zstd")
    with pytest.raises(InvalidOption, match="give sample_range"):
        open_source(path, ReadOptions(), settings)
    image = pixels(path, sample_range=(0.0, 1.0))
    assert (image[3, 5, 3], image[0, 0, 3], image[0, 0, 0], image[-1, -1, 0]) == (0, 255, 0, 255)
    assert np.abs(image[..., 0] / 255 - np.clip(np.nan_to_num(stored), 0, 1)).max() < 0.5 / 255 + 1e-6


def test_a_range_upside_down_is_refused(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint16))
    with pytest.raises(InvalidOption, match="low < high"):
        open_source(path, ReadOptions(sample_range=(5, 5)), settings)


@pytest.mark.parametrize("bits", [1, 8])
@pytest.mark.parametrize("codec", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_palettes_are_looked_up(tmp_path: Path, picture, pixels, codec: str, bits: int) -> None:
    path = tmp_path / "a.tif"
    image = Image.fromarray(picture).quantize(2**bits)
    image.save(path, compression=codec)
    assert np.array_equal(pixels(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("codec", ["group3", "group4", "raw"])
def test_one_bit_becomes_black_and_white(tmp_path: Path, picture, pixels, codec: str) -> None:
    path = tmp_path / "a.tif"
    image = Image.fromarray(picture).convert("1")
    image.save(path, compression=codec)
    assert np.array_equal(pixels(path), np.asarray(image.convert("RGB")))


def test_white_is_zero_is_turned_round(tmp_path: Path, picture, pixels) -> None:
    for codec in ("zlib", "zstd"):
        path = tmp_path / f"{codec}.tif"
        tifffile.imwrite(path, picture[..., 0], photometric="miniswhite", compression=codec, tile=(64, 64))
        assert np.array_equal(pixels(path)[..., 2], 255 - picture[..., 0])


def test_cmyk_is_the_product_of_what_light_is_left(tmp_path: Path, picture, pixels) -> None:
    inks = np.dstack([picture, picture[..., ::-1][..., :1]])
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, inks, photometric="separated", compression="zlib")
    left = 255.0 - inks
    assert np.array_equal(pixels(path), np.rint(left[..., :3] * left[..., 3:] / 255).astype(np.uint8))
    assert np.array_equal(pixels(path), cmyk_to_rgb(inks))


@pytest.mark.parametrize("codec", ["zlib", "zstd"])
def test_lab_is_right_on_the_grey_axis_and_turns_the_right_way(tmp_path: Path, pixels, codec: str) -> None:
    """Grey by the closed form, within one level."""
    a, b = np.mgrid[0:32:2, 0:32:2]
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.dstack([np.full((16, 16), 128), a, b]).astype(np.uint8), photometric="cielab", compression=codec
    )
    image = pixels(path).astype(int)
    assert np.abs(image[0, 0] - srgb_of_lightness(128 * 100 / 255)).max() <= 1
    assert image[15, 0, 0] > image[0, 0, 0] + 10  # more a* is more red
    assert image[0, 15, 2] < image[0, 0, 2] - 10  # more b* is less blue


def srgb_of_lightness(lightness: float) -> float:
    """CIE L* -> 8-bit sRGB grey."""
    linear = ((lightness + 16) / 116) ** 3 if lightness > 8 else lightness / 903.3
    return 255 * (1.055 * linear ** (1 / 2.4) - 0.055)


def test_a_profile_is_turned_into_srgb(tmp_path: Path, picture, pixels) -> None:
    """A made profile: sRGB's own with red and blue primaries exchanged, so that a mistake is large."""
    icc = exchanged_primaries()
    path = tmp_path / "a.tif"
    Image.fromarray(picture).save(path, icc_profile=icc)
    image = pixels(path).astype(np.int16)
    assert np.abs(image - picture[..., ::-1]).max() <= 3
    assert np.abs(image - picture).max() > 50


def exchanged_primaries() -> bytes:
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    entries = {bytes(icc[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(icc[131])}
    red, blue = entries[b"rXYZ"] + 4, entries[b"bXYZ"] + 4
    icc[red : red + 8], icc[blue : blue + 8] = icc[blue : blue + 8], icc[red : red + 8]
    return bytes(icc).replace("sRGB".encode("utf-16-be"), "exch".encode("utf-16-be")).replace(b"sRGB", b"exch")


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("codec", ["zlib", "zstd"])
def test_alpha_is_validity(tmp_path: Path, picture, pixels, kind: str, codec: str) -> None:
    alpha = np.where(np.arange(WIDTH) < 100, 0, 255).astype(np.uint8)
    path = tmp_path / "a.tif"
    rgba = np.dstack([picture, np.broadcast_to(alpha, picture.shape[:2])])
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=[kind], compression=codec, tile=(64, 64))
    image = pixels(path)
    assert np.array_equal(image[..., 3], rgba[..., 3])
    assert np.array_equal(image[:, 100:, :3], picture[:, 100:])


def test_associated_alpha_gives_the_colour_back(tmp_path: Path, pixels) -> None:
    path = tmp_path / "a.tif"
    rgba = np.tile(np.array([100, 50, 0, 128], np.uint8), (16, 16, 1))
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["assocalpha"], compression="zstd")
    assert pixels(path)[0, 0].tolist() == [199, 100, 0, 255]


def test_a_fourth_band_of_unknown_meaning_is_dropped_with_a_note(tmp_path: Path, picture, settings, pixels) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.dstack([picture, picture[..., :1]]), photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(pixels(path), picture)
    assert "not said to be alpha" in open_source(path, ReadOptions(), settings).info.notes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["cells.tif", "vips.jpg"])
def test_all_eight_orientations_come_out_upright(tmp_path: Path, picture, pixels, orientation: int, name: str) -> None:
    stored, path = picture[:60], tmp_path / name
    if name.endswith("tif"):
        tag = (274, "H", 1, orientation, True)
        tifffile.imwrite(path, stored, photometric="rgb", compression="zlib", extratags=[tag])
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(stored).save(path, exif=exif, quality=95)
        with Image.open(path) as image:
            stored = np.asarray(image)
    image = pixels(path).astype(np.int16)
    assert image.shape == expected_upright(stored, orientation).shape
    assert np.abs(image - expected_upright(stored, orientation)).max() <= (2 if name == "vips.jpg" else 0)


def expected_upright(a: NDArray[Any], orientation: int) -> NDArray[Any]:
    """TIFF 6.0, tag 274: which side of the picture the first stored row and column are."""
    t = a.transpose(1, 0, 2)
    return [a, a[:, ::-1], a[::-1, ::-1], a[::-1], t, t[:, ::-1], t[::-1, ::-1], t[::-1]][orientation - 1]


def test_pixel_sizes_come_from_ome_xml_and_centimetres(tmp_path: Path, settings: Settings) -> None:
    ome, centimetres, inches = (tmp_path / f"{name}.tif" for name in ("ome", "cm", "inch"))
    image = np.zeros((8, 8), np.uint8)
    meta = {"axes": "YX", "PhysicalSizeX": 325, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.65}
    tifffile.imwrite(ome, image, ome=True, metadata=meta)
    tifffile.imwrite(centimetres, image, resolution=(40000, 20000), resolutionunit="centimeter")
    tifffile.imwrite(inches, image, resolution=(72, 72), resolutionunit="inch")
    sizes = [open_source(path, ReadOptions(), settings).info.pixel_size for path in (ome, centimetres, inches)]
    assert sizes == [(0.65, 0.325), (0.5, 0.25), None]


APERIO = "Aperio Image Library v12.0.15\r\n333x150 [0,0 333x150] (128x128) J2K/KDU Q=30|AppMag = 40|MPP = 0.2525"


def test_an_aperio_slide_with_jpeg_2000_tiles_goes_through_openslide(
    tmp_path: Path, picture, settings: Settings, pixels
) -> None:
    path = tmp_path / "a.svs"
    options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "metadata": None, "description": APERIO}
    tifffile.imwrite(path, picture, compression=33005, compressionargs={"reversible": True, "mct": False}, **options)
    info = open_source(path, ReadOptions(), settings).info
    assert (info.format, info.compression, info.pixel_size) == ("aperio", "jpeg2000", (0.2525, 0.2525))
    image = pixels(path)
    assert np.array_equal(image[..., :3], picture)
    assert (image[..., 3] == 255).all()


def test_a_slides_profile_is_turned_into_srgb(tmp_path: Path, picture, pixels) -> None:
    """By OpenSlide as by the TIFF reader: one picture, JPEG 2000 and LZW."""
    options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb", "metadata": None, "description": APERIO}
    options["iccprofile"] = exchanged_primaries()
    slide, plain = tmp_path / "jpeg2000.svs", tmp_path / "lzw.svs"
    tifffile.imwrite(slide, picture, compression=33005, compressionargs={"reversible": True, "mct": False}, **options)
    tifffile.imwrite(plain, picture, compression="lzw", **options)
    image = pixels(slide)[..., :3].astype(np.int16)
    assert np.abs(image - picture[..., ::-1]).max() <= 3
    assert np.array_equal(image, pixels(plain))


@pytest.mark.parametrize("codec", ["none", "zlib", "lzw", "zstd", "jpeg", "webp"])
@pytest.mark.parametrize("layout", ["tiled", "stripped"])
def test_half_a_file_is_refused(tmp_path: Path, picture, pixels, codec: str, layout: str) -> None:
    """tifffile writes the directory first, so half of the pixels are missing and the header is whole."""
    path = write(tmp_path / "a.tif", picture, codec, layout)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadImage, match=r"truncated|reaches byte|tags"):
        pixels(path)


@pytest.mark.parametrize(("codec", "sound"), [("zlib", 0.9), ("zstd", 0.9), ("jpeg", 0.9), ("jpeg2000", 0.3)])
def test_a_tile_whose_end_is_overwritten_is_refused(tmp_path: Path, picture, pixels, codec: str, sound: float) -> None:
    """JPEG 2000 is meant to be cut: what misses the last part is only less sharp, and no decoder complains."""
    path = write(tmp_path / "a.tif", picture, codec, "tiled")
    with tifffile.TiffFile(path) as tiff:
        start, size = tiff.pages[0].dataoffsets[4], tiff.pages[0].databytecounts[4]
    raw = bytearray(path.read_bytes())
    tail = slice(start + int(size * sound), start + size)
    raw[tail] = (b"\xff\xd9" * size)[: tail.stop - tail.start]
    path.write_bytes(bytes(raw))
    with pytest.raises(BadImage, match="does not decode"):
        pixels(path)


def test_tiles_that_were_never_written_are_no_data(tmp_path: Path, picture, pixels) -> None:
    path = write(tmp_path / "a.tif", picture, "zlib", "tiled")
    leave_out_first_tile(path)
    image = pixels(path)
    assert not image[:64, :64].any()
    assert (image[64:, :, 3] == 255).all()
    assert np.array_equal(image[64:, :, :3], picture[64:])


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_a_sparse_file_keeps_its_own_alpha(tmp_path: Path, picture, pixels, kind: str) -> None:
    """Transparent pixels stay no-data beside tiles that were never written; associated colours are given back."""
    alpha = np.broadcast_to(np.where(np.arange(WIDTH) < 100, 0, 128), picture.shape[:2]).astype(np.uint8)
    stored = np.rint(picture * (alpha[..., None] / 255)).astype(np.uint8) if kind == "assocalpha" else picture
    path = tmp_path / "a.tif"
    rgba = np.dstack([stored, alpha])
    tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=[kind], compression="zlib", tile=(64, 64))
    leave_out_first_tile(path)
    image = pixels(path)
    assert not image[:, :100, 3].any()
    assert (image[:, 100:, 3] == 255).all()
    assert np.abs(image[:, 100:, :3].astype(int) - picture[:, 100:]).max() <= 2


def leave_out_first_tile(path: Path) -> None:
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags[325].overwrite([0, *tiff.pages[0].databytecounts[1:]])


NODATA = [
    (np.uint8, "-9999", None),
    (np.uint8, "nan", None),
    (np.uint8, "256", None),
    (np.uint8, "0.5", None),
    (np.uint8, "241", 241),
    (np.int16, "-9999", -9999),
    (np.int16, "40000", None),
    (np.float32, "1e300", None),
    (np.float32, "-3.4028234663852886e+38", -3.4028235e38),
    (np.float32, "0.1", 0.1),
]


@pytest.mark.parametrize(("dtype", "text", "value"), NODATA)
def test_a_nodata_value_counts_only_where_a_sample_can_have_it(
    tmp_path: Path, settings: Settings, pixels, dtype: type, text: str, value: float | None
) -> None:
    path = tmp_path / "a.tif"
    stored = np.tile(np.array([0, 1, 241, 3, 7, 9, 11, 13], dtype), (16, 2))
    if value is not None:
        stored[3, 5] = value
    tifffile.imwrite(path, stored, photometric="minisblack", extratags=[(42113, "s", 0, text, True)])
    image = pixels(path, sample_range=(0, 255))
    notes = open_source(path, ReadOptions(sample_range=(0, 255)), settings).info.notes
    if value is None:
        assert image.shape[-1] == 3 or (image[..., 3] == 255).all()
        assert any("no-data value" in note for note in notes)
    else:
        assert np.array_equal(image[..., 3] > 0, stored != dtype(value))
        assert notes == ()


def header_of(width: int, height: int, bands: int, codec: int = 1) -> bytes:
    """A TIFF that is nothing but claims."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, codec), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, bands), (278, 4, height), (279, 4, 88)]
    entries = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + b"\0" * 4


@pytest.mark.parametrize(
    ("size", "error"),
    [
        ((65535, 900, 65535), ImageTooLarge),
        ((4_000_001, 1, 1), ImageTooLarge),
        ((3_000_000, 3_000_000, 1), ImageTooLarge),
        ((65535, 65535, 1), BadImage),
        ((0, 10, 1), BadImage),
        ((10, 0, 1), BadImage),
    ],
)
@pytest.mark.parametrize("codec", [1, 8, 50000])
def test_a_header_that_claims_too_much_is_refused(tmp_path: Path, pixels, size, error, codec: int) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(header_of(*size, codec))
    with pytest.raises(error):
        pixels(path)


def test_too_many_pages_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((9, 8, 8), np.uint8), photometric="minisblack")
    with pytest.raises(ImageTooLarge, match="at most 8 TIFF directories"):
        open_source(path, ReadOptions(), Settings(_env_file=None, max_pages=8))


def test_one_pixel_high_and_one_pixel_wide_images_are_images(tmp_path: Path, picture, pixels) -> None:
    for name, part in (("row.tif", picture[:1]), ("column.tif", picture[:, :1]), ("pixel.png", picture[:1, :1])):
        Image.fromarray(part).save(tmp_path / name)
        assert np.array_equal(pixels(tmp_path / name), part)


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", BadImage), (b"hello", BadImage), (b"<svg xmlns='x'/>", UnsupportedImage), (b"%PDF-1.7", UnsupportedImage)],
)
def test_what_is_no_image_is_refused(tmp_path: Path, pixels, content: bytes, error: type[BadImage]) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(error):
        pixels(path)
