"""A model sees an image at the resolution it was trained at, and its labels come back to the pixels they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from gigamask.geometry import Box
from gigamask.image_info import ImageInfo
from gigamask.job import JobOptions
from gigamask.manifest import NO_DATA, PixelSize
from gigamask.plan import Plan, plan_job
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskWriter, read_mask
from model.predictors import RegionPredictor, load_predictor
from tests.models_for_tests import THRESHOLD, context_model, threshold_model
from tests.pictures import picture, write_image
from tests.workers.test_segment import context_labels, refuse
from workers.segment import RegionWork, segment

Pixels = NDArray[np.uint8]

T = 64


def halved(image: ImagePyramid, level: int) -> Pixels:
    """(h, w, 3)"""
    shape = (-(-n >> level) for n in image.info.shape)
    return image.read(Box(0, 0, *shape), level).transpose(1, 2, 0)


def labelled(folder: Path, image: ImagePyramid, predictor: RegionPredictor, scale: float, region_px: int) -> Pixels:
    size = PixelSize(value=0.25 * scale, unit="micrometer")
    manifest = predictor.manifest.model_copy(update={"pixel_size": size})
    info = ImageInfo.model_validate(image.info.model_dump() | {"pixel_size": (0.25, 0.25), "unit": "micrometer"})
    plan = plan_job(info, manifest, JobOptions(region_px=region_px))
    assert plan.scale == pytest.approx(scale)
    mask = MaskWriter(folder / f"mask-{scale}-{region_px}", plan)
    mask.create()
    segment((RegionWork(region, image, mask, predictor) for region in plan.regions()), lambda *_: None, refuse)
    return read_mask(mask.root, Box(0, 0, *plan.shape))


def written(folder: Path, pixels: Pixels) -> ImagePyramid:
    return ImagePyramid(write_image(folder / "image.zarr", pixels))


def at(total: int, scale: float) -> NDArray[np.int64]:
    return ((np.arange(total) + 0.5) // scale).astype(np.int64)


def test_known_shapes_on_a_slide_of_a_quarter_micrometre_for_a_model_of_half_a_micrometre(tmp_path: Path) -> None:
    """Every shape is made of 2 x 2 pixels, so that the mask is the shapes exactly."""
    y, x = np.mgrid[:700, :900]
    disc = (y - 300) ** 2 + (x - 400) ** 2 < 180**2
    frame = (abs(y - 350) > 320) | ((x > 600) & (x < 603))
    shapes = np.kron(disc | frame, np.ones((2, 2), bool))
    pixels = np.where(shapes, 220, 30).astype(np.uint8)[..., None].repeat(3, axis=-1)
    model = load_predictor(threshold_model(tmp_path / "model", tile_px=T))
    assert np.array_equal(labelled(tmp_path, written(tmp_path, pixels), model, 2, 512), shapes)


@pytest.mark.parametrize("scale", [1.5, 0.5, 3.0])
def test_between_levels_a_pixel_takes_the_label_of_the_interpolated_pixel_it_lies_in(
    tmp_path: Path, scale: float
) -> None:
    pixels = picture((500, 1100))
    model = load_predictor(threshold_model(tmp_path / "model", tile_px=T))
    image = written(tmp_path, pixels)
    level = 1 if scale > 2 else 0
    places = [((at(n, scale) + 0.5) * scale / 2**level - 0.5) for n in (500, 1100)]
    red = map_coordinates(
        halved(image, level)[..., 0].astype(float), np.meshgrid(*places, indexing="ij"), order=1, mode="nearest"
    )
    found = labelled(tmp_path, image, model, scale, 512)
    sure = np.abs(red - THRESHOLD - 0.5) > 1.5  # 8-bit weights and rounding
    assert sure.mean() > 0.9
    assert np.array_equal(found[sure], (red > THRESHOLD)[sure])


@pytest.mark.parametrize("scale", [1.0, 2.0, 1.5, 0.5])
def test_no_label_depends_on_the_side_of_regions(tmp_path: Path, scale: float) -> None:
    """One wrong pixel in a tile's surround would change all of its labels."""
    image = written(tmp_path, picture((1101, 1203)))
    model = load_predictor(context_model(tmp_path / "model", tile_px=T, alpha=2))
    first, *others = [labelled(tmp_path, image, model, scale, side) for side in (512, 1024, 2048)]
    assert len(np.unique(first)) > 20
    for other in others:
        assert np.array_equal(first, other)


def test_tiles_and_their_surrounds_lie_on_the_level_that_is_read(tmp_path: Path) -> None:
    image = written(tmp_path, picture((1101, 1203)))
    model = load_predictor(context_model(tmp_path / "model", tile_px=T, alpha=2))
    expected = context_labels(halved(image, 1))[np.ix_(at(1101, 2), at(1203, 2))]
    assert np.array_equal(labelled(tmp_path, image, model, 2, 512), expected)


@pytest.mark.parametrize("scale", [4, 1.5, 0.5])
def test_pixels_without_data_are_those_of_level_0_at_any_resolution(tmp_path: Path, scale: float) -> None:
    pixels = picture((700, 900), 4)
    pixels[100:101, 300:501, 3] = 0
    model = load_predictor(threshold_model(tmp_path / "model", tile_px=T))
    found = labelled(tmp_path, written(tmp_path, pixels), model, scale, 512)
    assert np.array_equal(found == NO_DATA, pixels[..., 3] == 0)


def test_a_plan_at_another_scale_still_covers_every_working_pixel_once() -> None:
    for scale in (0.5, 1.5, 2.0, 3.7):
        for region in Plan((1301, 2203), T, 2, 512, scale=scale).regions():
            kept = np.zeros(region.work.shape, np.uint8)
            for tile in region.tiles:
                kept[tile.keep.within(region.work).slices] += 1
            assert (kept == 1).all()
