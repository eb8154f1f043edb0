from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image
from ome_zarr_models.v05.image_label import ImageLabel

from gigamask.geometry import Box
from gigamask.job import JobOptions
from gigamask.manifest import ModelManifest, read_manifest
from gigamask.plan import Plan, plan_regions
from gigamask.pyramid.halve import halve_mode
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskWriter, mask_folder, read_mask
from gigamask.store import partial
from tests.models_for_tests import threshold_model
from tests.pictures import picture, tree, write_image
from workers import assemble as assemble_module
from workers.assemble import assemble

SHAPE = (1100, 1700)
LABELS = (picture(SHAPE)[..., 0] > 127).astype(np.uint8)
AREAS = {0: int((LABELS == 0).sum()), 1: int(LABELS.sum())}


@pytest.fixture
def manifest(tmp_path: Path) -> ModelManifest:
    return read_manifest(threshold_model(tmp_path / "model"))


@pytest.fixture
def image_zarr(tmp_path: Path) -> Path:
    return write_image(tmp_path / "image.zarr", picture(SHAPE))


@pytest.fixture
def plan(manifest: ModelManifest) -> Plan:
    return plan_regions(SHAPE, manifest, 512)


@pytest.fixture
def mask_zarr(tmp_path: Path, manifest: ModelManifest, plan: Plan) -> Path:
    """Not there yet; all its regions are done."""
    mask_zarr = tmp_path / "job" / "mask.zarr"
    writer = MaskWriter(mask_folder(partial(mask_zarr), manifest.name), plan)
    writer.create()
    for region in plan.regions():
        writer.write_region(region, LABELS[region.box.slices])
    return mask_zarr


def test_a_result_holds_the_image_and_all_levels_of_its_mask(
    image_zarr: Path, mask_zarr: Path, plan: Plan, manifest: ModelManifest
) -> None:
    assemble(image_zarr, mask_zarr, plan, manifest, AREAS, JobOptions())
    assert not partial(mask_zarr).exists()
    everything = Box(0, 0, *SHAPE)
    assert np.array_equal(ImagePyramid(mask_zarr).read(everything), ImagePyramid(image_zarr).read(everything))
    expected = LABELS
    for level in range(plan.levels):
        found = read_mask(mask_folder(mask_zarr, manifest.name), Box(0, 0, *expected.shape), level)
        assert np.array_equal(found, expected)
        expected = halve_mode(expected)


def test_a_result_passes_strict_validation(
    image_zarr: Path, mask_zarr: Path, plan: Plan, manifest: ModelManifest
) -> None:
    assemble(image_zarr, mask_zarr, plan, manifest, AREAS, JobOptions())
    Image.from_zarr(zarr.open_group(mask_zarr, mode="r"))
    label = ImageLabel.from_zarr(zarr.open_group(mask_folder(mask_zarr, manifest.name), mode="r"))
    areas = [entry.area_px for entry in label.attributes.ome.image_label.properties]
    assert areas == [AREAS[0], AREAS[1], 0]


def test_the_image_takes_no_second_place_on_the_disk(
    image_zarr: Path, mask_zarr: Path, plan: Plan, manifest: ModelManifest
) -> None:
    assemble(image_zarr, mask_zarr, plan, manifest, AREAS, JobOptions())
    shard = Path("0", "c", "0", "0", "0")
    assert (mask_zarr / shard).samefile(image_zarr / shard)


def test_where_links_are_not_possible_the_image_is_copied(
    image_zarr: Path, mask_zarr: Path, plan: Plan, manifest: ModelManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    assemble(image_zarr, mask_zarr, plan, manifest, AREAS, JobOptions())
    shard = Path("0", "c", "0", "0", "0")
    assert not (mask_zarr / shard).samefile(image_zarr / shard)
    assert (mask_zarr / shard).read_bytes() == (image_zarr / shard).read_bytes()


@pytest.mark.parametrize("step", ["_link_levels", "_write_metadata", "_remove_locks", "publish"])
def test_killed_at_any_step_and_run_again_it_gives_the_same_result(
    image_zarr: Path,
    mask_zarr: Path,
    plan: Plan,
    manifest: ModelManifest,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(assemble_module, step, die)
        assemble(image_zarr, mask_zarr, plan, manifest, AREAS, JobOptions())
    assert not mask_zarr.exists()
    (partial(mask_zarr) / "0.__lock").touch()
    assemble(image_zarr, mask_zarr, plan, manifest, AREAS, JobOptions())
    once = tree(mask_zarr)
    assert not [path for path in once if path.endswith("__lock")]
    assemble(image_zarr, mask_zarr, plan, manifest, AREAS, JobOptions())  # after it was published
    assert tree(mask_zarr) == once
