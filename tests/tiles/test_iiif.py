"""IIIF Image 3.0, level 1: what is asked for is what is read, whatever its size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigamask.errors import BadPicture
from gigamask.geometry import Box, level_shape
from gigamask.pyramid.halve import halve_mode
from gigamask.tiles import iiif
from gigamask.tiles.iiif import information, parse_region, parse_size, window_of
from gigamask.tiles.layers import read_labels, read_pixels

SHAPE = (1300, 1800)


class Ramp:
    """A layer whose labels and pixels are known in closed form."""

    def __init__(self, whole: np.ndarray) -> None:
        self._whole, self.shape = whole, whole.shape[-2:]

    def read(self, box: Box, level: int) -> np.ndarray:
        whole = self._whole
        for _ in range(level):
            whole = halve_mode(whole) if whole.ndim == 2 else whole[:, ::2, ::2]
        return whole[..., *box.slices]


def test_information_says_what_level_1_needs() -> None:
    told = information("http://here/iiif/image", SHAPE)
    assert told["@context"] == "http://iiif.io/api/image/3/context.json"
    assert (told["type"], told["protocol"], told["profile"]) == (
        "ImageService3", "http://iiif.io/api/image", "level1",
    )  # fmt: skip
    assert (told["id"], told["width"], told["height"]) == ("http://here/iiif/image", 1800, 1300)
    assert told["sizes"] == [
        {"width": 450, "height": 325}, {"width": 900, "height": 650}, {"width": 1800, "height": 1300},
    ]  # fmt: skip
    assert told["tiles"] == [{"width": 512, "height": 512, "scaleFactors": [1, 2, 4]}]


@given(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)))
def test_every_size_that_is_told_can_be_had(shape: tuple[int, int]) -> None:
    for size in information("http://here", shape)["sizes"]:
        window = window_of(shape, "full", f"{size['width']},{size['height']}", "0")
        assert window.size == (size["height"], size["width"])
        assert window.part is None


@given(st.tuples(st.integers(1, 9000), st.integers(1, 9000)), st.data())
def test_every_tile_that_is_told_is_read_as_it_is(shape: tuple[int, int], data: st.DataObject) -> None:
    """As clients ask for them: the region cut off at the image, the size rounded up."""
    factor = data.draw(st.sampled_from(information("http://here", shape)["tiles"][0]["scaleFactors"]))
    side = 512 * factor
    x = data.draw(st.integers(0, (shape[1] - 1) // side)) * side
    y = data.draw(st.integers(0, (shape[0] - 1) // side)) * side
    w, h = min(side, shape[1] - x), min(side, shape[0] - y)
    window = window_of(shape, f"{x},{y},{w},{h}", f"{-(-w // factor)},{-(-h // factor)}", "0")
    assert window.part is None
    assert 1 << window.level == factor or max(w, h) < factor
    assert window.box.clip(level_shape(shape, window.level)) == window.box


@given(
    st.tuples(st.integers(1, 4_000_000), st.integers(1, 4_000_000)),
    st.sampled_from(["max", "1,", ",1", "1,1", "2048,1", "1,2048", "777,", ",900", "300,1000"]),
)
def test_no_request_reads_more_than_the_bound(shape: tuple[int, int], size: str) -> None:
    try:
        window = window_of(shape, "full", size, "0")
    except BadPicture:
        return
    assert window.box.height * window.box.width <= iiif.SOURCE_PX + sum(level_shape(shape, window.level)) + 1
    assert max(window.size) <= iiif.MOST_PX


@pytest.mark.parametrize(
    ("region", "size", "level"),
    [("7,5,1,1", "1,1", 0), ("1799,1299,1,1", "1,1", 0), ("100,100,3,1000", "1,1", 1), ("0,0,512,512", "256,256", 1),
     ("0,0,512,512", "255,", 1), ("0,0,512,512", "257,", 0), ("full", "1,1", 10), ("3,3,600,600", "100,100", 2)],
)  # fmt: skip
def test_a_picture_is_read_from_the_finest_level_that_it_needs(region: str, size: str, level: int) -> None:
    assert window_of(SHAPE, region, size, "0").level == level


def test_regions() -> None:
    assert parse_region("full", SHAPE) == Box(0, 0, 1300, 1800)
    assert parse_region("square", SHAPE) == Box(0, 250, 1300, 1550)
    assert parse_region("10,20,30,40", SHAPE) == Box(20, 10, 60, 40)
    assert parse_region("1700,1200,999,999", SHAPE) == Box(1200, 1700, 1300, 1800)


def test_sizes() -> None:
    region = Box(0, 0, 300, 600)
    assert [parse_size(text, region) for text in ("max", "60,", ",60", "10,300")] == [
        (300, 600), (30, 60), (60, 120), (300, 10),
    ]  # fmt: skip
    assert parse_size("max", Box(0, 0, 5000, 10_000)) == (1024, 2048)


BAD = [
    ("0,0,0,10", "max", "0"), ("1800,0,10,10", "max", "0"), ("-1,0,10,10", "max", "0"), ("pct:0,0,10,10", "max", "0"),
    ("1,2,3", "max", "0"), ("1.5,0,10,10", "max", "0"), ("everything", "max", "0"), ("", "max", "0"),
    ("9999999999,0,1,1", "max", "0"), ("full", "1801,", "0"), ("full", ",1301", "0"), ("full", "1801,1", "0"),
    ("full", "0,", "0"), ("full", ",0", "0"), ("full", ",", "0"), ("full", "^max", "0"), ("full", "pct:50", "0"),
    ("full", "!100,100", "0"), ("full", "full", "0"), ("full", "-5,", "0"), ("full", "max", "90"),
    ("full", "max", "!0"), ("full", "max", "0.0"), ("full", "max", ""), ("../..", "max", "0"),
    ("full", "9" * 5000, "0"), ("٣,0,1,1", "max", "0"),
]  # fmt: skip


@pytest.mark.parametrize(("region", "size", "rotation"), BAD)
def test_what_level_1_does_not_know_is_refused_in_few_words(region: str, size: str, rotation: str) -> None:
    with pytest.raises(BadPicture) as caught:
        window_of(SHAPE, region, size, rotation)
    assert caught.value.status == 400
    assert len(caught.value.message) < 300


def test_a_picture_over_the_limit_is_refused() -> None:
    with pytest.raises(BadPicture, match="2048"):
        window_of((9000, 9000), "full", "2049,", "0")


def test_labels_are_resampled_to_the_nearest_and_never_blended() -> None:
    labels = np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.uint8) * 7
    shown = read_labels(Ramp(labels), window_of(SHAPE, "100,100,300,300", "200,", "0"))
    assert shown.shape == (200, 200)
    assert set(np.unique(shown)) == {0, 7}
    place = 100 + ((np.arange(200) + 0.5) * 300 / 200).astype(int)
    np.testing.assert_array_equal(shown, labels[np.ix_(place, place)])


@pytest.mark.parametrize("size", ["900,", "700,", "333,333", "1799,"])
def test_a_resampled_picture_lies_where_it_should(size: str) -> None:
    """A ramp stays the same ramp: a shift of a tenth of a pixel of the picture would show."""
    x = np.broadcast_to(np.linspace(0, 255, 1800), SHAPE)
    y = np.broadcast_to(np.linspace(0, 255, 1300)[:, None], SHAPE)
    pixels = np.stack([x, y, x]).round().astype(np.uint8)
    shown = read_pixels(Ramp(pixels), window_of(SHAPE, "full", size, "0")).astype(float)
    h, w = shown.shape[1:]
    expected_x = (np.arange(w) + 0.5) * 255 / w
    expected_y = (np.arange(h) + 0.5) * 255 / h
    inner = slice(4, -4)
    assert np.abs(shown[0].mean(0) - expected_x)[inner].max() < 0.9
    assert np.abs(shown[1].mean(1) - expected_y)[inner].max() < 0.9
