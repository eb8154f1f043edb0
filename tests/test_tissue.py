"""Tissue is told from glass; images that hold neither are left whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from gigamask.image_info import Georeference, ReadOptions
from gigamask.pyramid.image import ImagePyramid
from gigamask.settings import Settings
from gigamask.tissue import LEAST, LONGEST_PX, MOST, Tissue, find_tissue, otsu_threshold
from tests.pictures import write_image
from workers.ingest import ingest

SLIDE = (Path(__file__).parents[1] / "../shared/data/slides/CMU-1-Small-Region.svs").resolve()
GLASS, PINK, PALE = (243, 242, 244), (214, 120, 165), (235, 215, 228)


def painted(shape: tuple[int, int], ground: tuple[int, int, int], noise: int = 3) -> NDArray[np.uint8]:
    """(h, w, 3): one colour and a camera's noise."""
    spread = np.random.default_rng(0).integers(-noise, noise + 1, (*shape, 3))
    return np.clip(np.array(ground) + spread, 0, 255).astype(np.uint8)


def tissue_of(tmp_path: Path, pixels: NDArray[np.uint8], **info: object) -> Tissue:
    return find_tissue(ImagePyramid(write_image(tmp_path / "image.zarr", pixels, **info)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=2, max_size=200))
def test_otsus_threshold_is_that_of_scikit_image(values: list[int]) -> None:
    pixels = np.array(values, np.uint8)
    found = otsu_threshold(np.bincount(pixels, minlength=256))
    if len(set(values)) == 1:
        assert found == 0
    else:
        assert ((pixels > found) == (pixels > threshold_otsu(pixels))).all()


def test_a_stained_square_on_glass_is_found_to_a_few_pixels(tmp_path: Path) -> None:
    pixels = painted((600, 800), GLASS)
    pixels[100:400, 200:500] = painted((300, 300), PINK)
    tissue = tissue_of(tmp_path, pixels)
    assert (tissue.level, tissue.method, tissue.mask.shape) == (0, "otsu-chroma", (600, 800))
    assert LEAST <= tissue.threshold <= MOST
    assert tissue.mask[102:398, 202:498].all()
    assert tissue.mask.sum() == pytest.approx(300 * 300, rel=0.03)
    assert tissue.share == tissue.mask.mean()


def test_a_blank_slide_is_all_background(tmp_path: Path) -> None:
    tissue = tissue_of(tmp_path, painted((300, 300), GLASS))
    assert (tissue.share, tissue.threshold) == (0, LEAST)


def test_a_slide_stained_all_over_is_all_tissue(tmp_path: Path) -> None:
    pixels = painted((300, 300), PINK)
    pixels[:, 150:] = painted((300, 150), (120, 20, 110))
    tissue = tissue_of(tmp_path, pixels)
    assert (tissue.share, tissue.threshold) == (1, MOST)


def test_pale_tissue_on_tinted_glass_is_found(tmp_path: Path) -> None:
    pixels = painted((300, 300), (236, 240, 230))
    pixels[:, 150:] = painted((300, 150), PALE)
    tissue = tissue_of(tmp_path, pixels)
    assert tissue.mask[:, 155:].all()
    assert not tissue.mask[:, :145].any()


def test_pixels_without_data_are_background_and_count_for_nothing(tmp_path: Path) -> None:
    pixels = np.dstack([painted((300, 300), PINK), np.full((300, 300), 255, np.uint8)])
    pixels[:, :150] = 0
    tissue = tissue_of(tmp_path, pixels)
    assert not tissue.mask[:, :150].any()
    assert tissue.mask[:, 150:].all()
    assert tissue.share == 0.5


def test_specks_are_dropped_and_pinholes_closed_but_vessels_stay_open(tmp_path: Path) -> None:
    pixels = painted((400, 400), GLASS)
    pixels[50:53, 50:53] = (150, 20, 120)
    pixels[100:300, 100:300] = painted((200, 200), PINK)
    pixels[150:156, 150:156] = GLASS
    pixels[200:230, 200:230] = GLASS
    mask = tissue_of(tmp_path, pixels).mask
    assert not mask[40:60, 40:60].any()
    assert mask[140:170, 140:170].all()
    assert not mask[205:225, 205:225].any()


@pytest.mark.parametrize(
    "info", [{"georeference": Georeference(epsg=32633)}, {"pixel_size": (1.0, 1.0), "unit": "meter"}]
)
def test_of_an_image_of_the_earth_all_that_has_data_is_kept(tmp_path: Path, info: dict[str, object]) -> None:
    pixels = np.dstack([painted((300, 400), (128, 128, 128)), np.full((300, 400), 255, np.uint8)])
    pixels[:100, :, 3] = 0
    tissue = tissue_of(tmp_path, pixels, **info)
    assert tissue.method == "validity"
    assert np.array_equal(tissue.mask, pixels[..., 3] > 0)


def test_the_level_is_the_finest_that_is_small_enough(tmp_path: Path) -> None:
    tissue = tissue_of(tmp_path, painted((64, 2 * LONGEST_PX + 1), PINK))
    assert tissue.level == 2
    assert tissue.mask.shape == (16, LONGEST_PX // 2 + 1)


@pytest.mark.skipif(not SLIDE.is_file(), reason="needs ../shared/data/slides")
def test_of_a_real_slide_a_third_is_tissue_and_the_glass_is_not(tmp_path: Path) -> None:
    """Places read off the picture: glass left and right, epidermis and dermis between."""
    ingest(SLIDE, tmp_path / "slide.zarr", ReadOptions(), Settings())
    tissue = find_tissue(ImagePyramid(tmp_path / "slide.zarr"))
    assert (tissue.level, tissue.mask.shape) == (1, (1484, 1110))
    assert 20 <= tissue.threshold <= MOST
    assert 0.30 < tissue.share < 0.40
    assert not tissue.mask[600:1400, 20:200].any()
    assert not tissue.mask[720:860, 1000:1100].any()
    assert tissue.mask[380:480, 560:640].mean() > 0.99
    assert tissue.mask[1100:1400, 420:600].mean() > 0.95
