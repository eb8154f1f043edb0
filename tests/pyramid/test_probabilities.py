"""Probabilities: an image of one channel a class, written by regions, read by others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.common.omero import Omero
from ome_zarr_models.v05 import Image

from gigamask.geometry import Box, level_shape
from gigamask.image_info import ImageInfo
from gigamask.manifest import LabelClass
from gigamask.plan import Plan
from gigamask.pyramid import ngff
from gigamask.pyramid.probabilities import ProbabilityPyramid, ProbabilityWriter, probability_folder
from tests.pictures import tree

SHAPE = (1300, 2701)
CLASSES = tuple(LabelClass(id=k, name=f"class {k}", color=f"#{k:02x}8040") for k in range(4))
INFO = ImageInfo(height=SHAPE[0], width=SHAPE[1], channels=3, format="test", pixel_size=(0.5, 0.25), unit="micrometer")


def some_probabilities(count: int = 4, shape: tuple[int, int] = SHAPE) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def write(root: Path, plan: Plan, values: NDArray[np.uint8]) -> ProbabilityWriter:
    writer = ProbabilityWriter(root, plan, CLASSES[: len(values)])
    writer.create()
    for region in plan.regions():
        writer.write_region(region, values[:, *region.box.slices])
    writer.build_upper_levels()
    ngff.write_group(root, writer.attributes(INFO, {"options": {"region_px": plan.region_px}}))
    return writer


def halved(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean over what exists of 2 x 2 pixels, rounded half up."""
    height, width = values.shape[1:]
    padded = np.full((len(values), height + height % 2, width + width % 2), np.nan)
    padded[:, :height, :width] = values
    cells = padded.reshape(len(values), padded.shape[1] // 2, 2, padded.shape[2] // 2, 2)
    return np.floor(np.nanmean(cells, axis=(2, 4)) + 0.5).astype(np.uint8)


@pytest.mark.parametrize("count", [1, 3, 4])
@pytest.mark.parametrize("region_px", [512, 2048])
def test_zarr_python_reads_every_level_as_the_mean_of_the_one_below(tmp_path: Path, count: int, region_px: int) -> None:
    """Of four classes, too: the fourth is no validity, as an image's is."""
    root, plan, expected = probability_folder(tmp_path), Plan(SHAPE, 512, 1, region_px), some_probabilities(count)
    write(root, plan, expected)
    for level in range(plan.levels):
        array = zarr.open_array(root / str(level), mode="r")
        assert array.shape == (count, *level_shape(SHAPE, level))
        assert np.array_equal(array[...], expected)
        expected = halved(expected)


def test_a_strict_reader_takes_it_for_an_image_with_a_channel_for_each_class(tmp_path: Path) -> None:
    write(tmp_path, Plan(SHAPE, 512, 1, 1024), some_probabilities())
    image = Image.from_zarr(zarr.open_group(tmp_path, mode="r"))
    axes = image.attributes.ome.multiscales[0].axes
    assert [(axis.name, axis.unit) for axis in axes] == [("c", None), ("y", "micrometer"), ("x", "micrometer")]
    omero = Omero.model_validate(ngff.read_attributes(tmp_path)["ome"]["omero"])
    assert [(c.label, c.color, c.active, c.window.end) for c in omero.channels] == [
        (f"class {k}", f"{k:02x}8040".upper(), True, 255) for k in range(4)
    ]
    assert "image" not in ngff.read_attributes(tmp_path)["gigamask"]


@pytest.mark.filterwarnings("ignore")
def test_ome_zarr_py_reads_it(tmp_path: Path) -> None:
    values = some_probabilities()
    write(tmp_path, Plan(SHAPE, 512, 1, 1024), values)
    location = parse_url(tmp_path)
    assert location is not None
    (node,) = Reader(location)()
    assert len(node.data) == 5
    assert np.array_equal(np.asarray(node.data[0][2, :100, :100]), values[2, :100, :100])


def test_it_is_read_by_windows_and_classes(tmp_path: Path) -> None:
    values = some_probabilities()
    write(tmp_path, Plan(SHAPE, 512, 1, 1024), values)
    pyramid, box = ProbabilityPyramid(tmp_path), Box(500, 1000, 700, 1100)
    assert (pyramid.levels, pyramid.names) == (5, ("class 0", "class 1", "class 2", "class 3"))
    assert np.array_equal(pyramid.read(box), values[:, 500:700, 1000:1100])
    assert np.array_equal(pyramid.read(box, first=2, stop=3), values[2:3, 500:700, 1000:1100])
    with pytest.raises(IndexError, match="window"):
        pyramid.read(Box(0, 0, SHAPE[0] + 1, 10))


def test_a_region_is_one_shard_a_level_and_one_that_was_never_written_is_zero(tmp_path: Path) -> None:
    plan, values = Plan(SHAPE, 512, 1, 1024), some_probabilities()
    writer = ProbabilityWriter(tmp_path, plan, CLASSES)
    writer.create()
    before = set(tree(tmp_path))
    writer.write_region(plan.region(1), values[:, *plan.region(1).box.slices])
    assert set(tree(tmp_path)) - before == {"0/c/0/0/1", "1/c/0/0/1"}
    writer.build_upper_levels()
    assert not zarr.open_array(tmp_path / "0", mode="r")[:, :1024, :1024].any()
    assert zarr.open_array(tmp_path / "4", mode="r")[:, :, 70:120].any()


def test_writing_again_gives_the_same_bytes_even_over_torn_shards(tmp_path: Path) -> None:
    plan, values = Plan(SHAPE, 512, 1, 1024), some_probabilities()
    write(tmp_path, plan, values)
    before = tree(tmp_path)
    for path in tmp_path.glob("*/c/*/*/*"):
        path.write_bytes(b"torn" * 100)
    write(tmp_path, plan, values)
    assert tree(tmp_path) == before


def test_upper_shards_are_small_enough_to_hold_every_class_in_memory(tmp_path: Path) -> None:
    plan = Plan((4501, 600), 512, 1, 512)
    assert plan.shard_px(1) == 4096
    values = np.zeros((2, 4501, 600), np.uint8)
    values[1] = np.arange(4501, dtype=np.uint16)[:, None] // 18
    seen: list[float] = []
    writer = ProbabilityWriter(tmp_path, plan, CLASSES[:2])
    writer.create()
    for region in plan.regions():
        writer.write_region(region, values[:, *region.box.slices])
    writer.build_upper_levels(seen.append)
    array = zarr.open_array(tmp_path / "1", mode="r")
    assert array.shards == (2, 1024, 1024)
    assert array.chunks == (1, 512, 512)
    assert np.array_equal(array[...], halved(values))
    assert seen == sorted(seen)
    assert seen[-1] == 1
