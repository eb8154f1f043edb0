"""How many pixels of an image make one of the model's: told by both, or an error that says how to tell it."""

from __future__ import annotations

import pytest

from gigamask.errors import InvalidOption
from gigamask.image_info import ImageInfo
from gigamask.job import JobOptions
from gigamask.manifest import ModelManifest, PixelSize
from gigamask.plan import plan_job
from gigamask.resolution import choose_scale
from tests.model.test_tiles import manifest


def model(value: float | None = 0.5, unit: str = "micrometer") -> ModelManifest:
    size = PixelSize(value=value, unit=unit) if value else None  # type: ignore[arg-type]
    return manifest(1).model_copy(update={"pixel_size": size, "name": "cells"})


def image(size: tuple[float, float] | None, unit: str | None = "micrometer") -> ImageInfo:
    return ImageInfo(height=1000, width=900, channels=3, format="test", pixel_size=size, unit=unit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("side", "scale"),
    [(0.5, 1), (0.25, 2), (0.2519, 2), (0.24, 2), (0.125, 4), (1.0, 0.5), (1 / 3, 1.5), (0.49, 1), (0.46, 0.5 / 0.46)],
)
def test_the_scale_is_the_models_pixel_over_the_images_and_near_a_level_it_is_that_level(
    side: float, scale: float
) -> None:
    assert choose_scale(image((side, side)), model(), "model") == pytest.approx(scale)


def test_metres_are_to_metres_as_micrometres_to_micrometres() -> None:
    assert choose_scale(image((0.15, 0.15), "meter"), model(0.3, "meter"), "model") == 2


@pytest.mark.parametrize("size", [None, (0.25, 0.25)])
def test_a_model_without_a_size_and_a_job_that_says_so_take_pixels_as_they_are(
    size: tuple[float, float] | None,
) -> None:
    assert choose_scale(image(size), model(None), "model") == 1
    assert choose_scale(image(size), model(), "native") == 1


@pytest.mark.parametrize(
    ("info", "asked", "message"),
    [
        (image(None), model(), r"cells wants pixels of 0.5 micrometers.*does not say.*--pixel-size-um.*native"),
        (image((1, 1), None), model(), r"does not say.*--pixel-size-um"),
        (image(None), model(0.3, "meter"), r"0.3 meters.*geo-referenced file.*resolution=native"),
        (image((0.3, 0.3), "meter"), model(), r"0.5 micrometers, and the image is measured in meters"),
        (image((0.3, 0.3)), model(0.3, "meter"), r"measured in micrometers"),
        (image((0.25, 0.5)), model(), r"square; the image's are 0.25 x 0.5 micrometers"),
        (image((10, 10)), model(), r"20 times finer than this image: at most 8"),
    ],
)
def test_what_cannot_be_known_is_refused_with_what_to_do(info: ImageInfo, asked: ModelManifest, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        plan_job(info, asked, JobOptions())


def test_regions_are_wide_enough_for_tiles_and_light_enough_for_memory() -> None:
    large = model().model_copy(update={"tile_px": 512})
    assert plan_job(image((0.25, 0.25)), large, JobOptions()).region_px == 2048
    assert plan_job(image((4, 4)), large, JobOptions()).region_px == 512
    slide = image((0.25, 0.25)).model_copy(update={"height": 60_000, "width": 60_000})
    assert plan_job(slide, large, JobOptions()).region_px == 4096
    many = large.model_copy(update={"classes": large.classes * 50})
    assert plan_job(slide, many, JobOptions(probabilities=True)).region_px == 1024
    assert plan_job(slide, many, JobOptions(overlap="half")).region_px == 1024
    assert plan_job(slide, many, JobOptions()).region_px == 4096
    with pytest.raises(InvalidOption, match="at most 8192"):
        plan_job(image((4, 4)), large, JobOptions(region_px=2048))
