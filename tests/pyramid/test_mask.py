from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from gigamask.geometry import Box
from gigamask.manifest import NO_DATA
from gigamask.plan import Plan
from gigamask.pyramid.halve import halve_mode
from gigamask.pyramid.mask import MaskWriter, read_mask
from tests.pictures import tree

SHAPE = (2501, 3301)


def label_plane(shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    small = np.random.default_rng(seed).integers(0, 4, (-(-shape[0] // 16), -(-shape[1] // 16)), dtype=np.uint8)
    return np.ascontiguousarray(np.kron(small, np.ones((16, 16), np.uint8))[: shape[0], : shape[1]])


def write_mask(root: Path, plan: Plan, labels: NDArray[np.uint8]) -> MaskWriter:
    writer = MaskWriter(root, plan)
    writer.create()
    for region in plan.regions():
        writer.write_region(region, labels[region.box.slices])
    writer.build_upper_levels()
    return writer


@pytest.mark.parametrize("shape", [SHAPE, (9001, 530), (1, 1)])
@pytest.mark.parametrize("region_px", [512, 1024, 4096])
def test_every_level_is_the_halving_of_the_one_below_for_any_region_size(
    tmp_path: Path, shape: tuple[int, int], region_px: int
) -> None:
    plan = Plan(shape, 512, 2, region_px)
    expected = label_plane(shape)
    write_mask(tmp_path, plan, expected)
    for level in range(plan.levels):
        assert np.array_equal(read_mask(tmp_path, Box(0, 0, *expected.shape), level), expected)
        expected = halve_mode(expected)


def test_zarr_python_reads_the_labels(tmp_path: Path) -> None:
    labels = label_plane(SHAPE)
    write_mask(tmp_path, Plan(SHAPE, 512, 2, 1024), labels)
    array = zarr.open_array(tmp_path / "0", mode="r")
    assert np.array_equal(array[...], labels)
    assert (array.chunks, array.shards, array.fill_value) == ((512, 512), (1024, 1024), NO_DATA)


def test_a_region_never_written_is_an_absent_shard_and_reads_as_no_data(tmp_path: Path) -> None:
    plan = Plan((1000, 2000), 512, 2, 1024)
    writer = MaskWriter(tmp_path, plan)
    writer.create()
    writer.write_region(plan.region(1), np.zeros(plan.region(1).box.shape, np.uint8))
    assert not (tmp_path / "0" / "c" / "0" / "0").exists()
    assert (read_mask(tmp_path, plan.region(0).box) == NO_DATA).all()
    assert (read_mask(tmp_path, plan.region(1).box) == 0).all()


def test_writing_a_region_again_rewrites_the_same_bytes_even_over_torn_shards(tmp_path: Path) -> None:
    """At the image's end, too: a shard that overruns the array must not be read back before it is written."""
    plan, labels = Plan(SHAPE, 512, 2, 1024), label_plane(SHAPE)
    writer = write_mask(tmp_path, plan, labels)
    before = tree(tmp_path)
    for path in tmp_path.glob("*/c/*/*"):
        path.write_bytes(b"torn" * 100)
    for region in plan.regions():
        writer.write_region(region, labels[region.box.slices])
    writer.build_upper_levels()
    assert tree(tmp_path) == before


def test_a_region_writes_only_its_own_shards(tmp_path: Path) -> None:
    plan, labels = Plan(SHAPE, 512, 2, 1024), label_plane(SHAPE)
    writer = MaskWriter(tmp_path, plan)
    writer.create()
    seen: set[str] = set(tree(tmp_path))
    for region in plan.regions():
        before = tree(tmp_path)
        writer.write_region(region, labels[region.box.slices])
        fresh = {path for path, content in tree(tmp_path).items() if before.get(path) != content}
        assert len(fresh) == plan.region_levels
        assert not fresh & seen
        seen |= fresh


def test_labels_of_the_wrong_size_are_refused(tmp_path: Path) -> None:
    plan = Plan(SHAPE, 512, 2, 1024)
    writer = MaskWriter(tmp_path, plan)
    writer.create()
    edge = plan.region(plan.region_count - 1)
    with pytest.raises(ValueError, match="shape"):
        writer.write_region(edge, np.zeros((1024, 1024), np.uint8))


def test_create_is_idempotent_and_refuses_another_plan(tmp_path: Path) -> None:
    MaskWriter(tmp_path, Plan(SHAPE, 512, 2, 1024)).create()
    MaskWriter(tmp_path, Plan(SHAPE, 512, 2, 1024)).create()
    with pytest.raises(ValueError, match="shape"):
        MaskWriter(tmp_path, Plan(SHAPE, 512, 2, 2048)).create()


def test_progress_ends_at_one(tmp_path: Path) -> None:
    seen: list[float] = []
    writer = MaskWriter(tmp_path, Plan(SHAPE, 512, 2, 512))
    writer.create()
    writer.build_upper_levels(seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
