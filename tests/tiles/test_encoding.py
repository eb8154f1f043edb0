"""Labels and pixels as files: read back by Pillow, they are what they were."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from gigamask.errors import NotFound
from gigamask.legend import Legend
from gigamask.manifest import LabelClass
from gigamask.tiles.encoding import encode_labels, encode_pixels, media_type, palette_of

NAMES = [f"class {i}" for i in range(40)]


def legend_of(count: int) -> Legend:
    return Legend(tuple(LabelClass(id=i, name=NAMES[i], color=f"#{i:02x}{255 - i:02x}30") for i in range(count)))


def read(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def every_label() -> np.ndarray:
    return np.arange(256, dtype=np.uint8).repeat(8).reshape(32, 64)


@pytest.mark.parametrize("extension", ["png", "webp"])
@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 40])
def test_a_mask_read_back_is_its_table_of_colours(count: int, extension: str) -> None:
    legend = legend_of(count)
    colors = read(encode_labels(every_label(), palette_of(legend), extension))
    np.testing.assert_array_equal(colors, legend.palette()[every_label()])


def test_hidden_classes_are_as_transparent_as_no_data() -> None:
    labels = np.array([[0, 1, 2, 255]], np.uint8)
    colors = read(encode_labels(labels, palette_of(legend_of(3), frozenset({0, 2})), "png"))
    assert colors[0, :, 3].tolist() == [0, 255, 0, 0]


def test_few_colours_take_few_bits_a_pixel() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (256, 256)).astype(np.uint8)
    content = encode_labels(labels, palette_of(legend_of(3)), "png")
    bits, kind = content[24:26]  # of IHDR
    assert kind == 3  # indexed
    assert bits in (2, 4)
    assert len(content) < 256 * 256 * bits / 8 + 1000


def test_a_jpeg_mask_is_over_white() -> None:
    labels = np.full((64, 64), 255, np.uint8)
    assert (read(encode_labels(labels, palette_of(legend_of(2)), "jpg"))[..., :3] > 250).all()


@pytest.mark.parametrize("channels", [3, 4])
def test_an_image_is_lossless_as_png_and_transparent_where_it_has_no_data(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (channels, 40, 60)).astype(np.uint8)
    if channels == 4:
        pixels[3] = np.where(pixels[3] > 128, 255, 0)
    shown = read(encode_pixels(pixels, "png"))
    np.testing.assert_array_equal(shown[..., :3], pixels[:3].transpose(1, 2, 0))
    np.testing.assert_array_equal(shown[..., 3], pixels[3] if channels == 4 else np.full((40, 60), 255))


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "webp"])
def test_an_image_is_near_what_it_was(extension: str) -> None:
    y, x = np.mgrid[:64, :80]
    pixels = np.stack([x * 3, y * 3, x + y]).astype(np.uint8)
    shown = read(encode_pixels(pixels, extension))[..., :3].astype(int)
    assert np.abs(shown - pixels.transpose(1, 2, 0)).mean() < 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_the_smallest_pictures_have_every_format(shape: tuple[int, int]) -> None:
    for channels in (3, 4):
        for pixels in (np.full((channels, *shape), 200, np.uint8), np.full((*shape, channels), 200, np.uint8)):
            turned = pixels if pixels.shape[0] == channels else pixels.transpose(2, 0, 1)
            for extension in ("jpg", "png", "webp"):
                assert read(encode_pixels(turned, extension)).shape == (*shape, 4)


def test_a_jpeg_is_white_where_the_image_has_no_data() -> None:
    pixels = np.zeros((4, 32, 32), np.uint8)
    assert (read(encode_pixels(pixels, "jpg"))[..., :3] > 250).all()


@pytest.mark.parametrize("extension", ["", "gif", "PNG", "php", "../png", "jpg\0"])
def test_other_formats_are_not_there(extension: str) -> None:
    with pytest.raises(NotFound):
        media_type(extension)
