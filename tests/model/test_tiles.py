"""Tiles are cut and pasted so that networks with known answers give them for every pixel."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gigamask.geometry import Box
from gigamask.manifest import LabelClass, ModelManifest
from gigamask.plan import Plan
from model.predictors.tiles import TileBatch, TilePredictor, cut

T = 64


def manifest(alpha: int) -> ModelManifest:
    classes = tuple(LabelClass(id=i, name=f"c{i}", color="#000000") for i in range(3))
    return ModelManifest(
        name="known", version="1", tile_px=T, alpha=alpha, mean=(120, 0, 0), std=(1, 1, 1), classes=classes, files={},
        license="-",
    )  # fmt: skip


class RedOfLocal:
    """Labels are the red of the local patch."""

    def __init__(self, fixed_batch: bool = False) -> None:
        self.fixed_batch = fixed_batch
        self.batches: set[int] = set()

    def labels(self, batch: TileBatch) -> NDArray[np.uint8]:
        self.batches.add(len(batch.local))
        return batch.local[:, 0]

    def scores(self, batch: TileBatch) -> NDArray[np.float32]:
        raise NotImplementedError


class RedOfSurround(RedOfLocal):
    """The same pixels, found through the surround and the offset."""

    def labels(self, batch: TileBatch) -> NDArray[np.uint8]:
        assert batch.surround is not None
        assert batch.offset is not None
        return np.stack([s[0, y : y + T, x : x + T] for s, (y, x) in zip(batch.surround, batch.offset, strict=True)])


def segment(image: NDArray[np.uint8], predictor: TilePredictor, region_px: int) -> NDArray[np.uint8]:
    labels = np.full(image.shape[1:], 255, np.uint8)
    for region in Plan(image.shape[1:], T, predictor.manifest.alpha, region_px).regions():  # type: ignore[arg-type]
        labels[region.box.slices] = predictor.predict(image[:, *region.window.slices], region)
    return labels


@pytest.mark.parametrize("shape", [(1, 1), (40, 700), (130, 64), (521, 1030)])
@pytest.mark.parametrize(
    ("alpha", "network"), [(1, RedOfLocal), (2, RedOfLocal), (2, RedOfSurround), (3, RedOfSurround)]
)
def test_every_pixel_of_the_picture_comes_back_as_its_own_label(
    shape: tuple[int, int], alpha: int, network: type[RedOfLocal]
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (3, *shape)).astype(np.uint8)
    assert np.array_equal(segment(image, TilePredictor(manifest(alpha), network(), 3), 512), image[0])


@pytest.mark.parametrize("fixed_batch", [True, False])
def test_only_an_engine_that_wants_it_has_its_batches_filled_up(fixed_batch: bool) -> None:
    network = RedOfLocal(fixed_batch)
    segment(np.zeros((3, 512, 512 + T), np.uint8), TilePredictor(manifest(2), network, 5), 512)
    tiles = (512 // T) ** 2, 512 // T  # of the two regions
    assert network.batches == ({5} if fixed_batch else {5, *(n % 5 for n in tiles if n % 5)})


def test_beyond_a_small_picture_lies_the_colour_that_normalises_to_zero() -> None:
    window = np.full((3, 10, 12), 9, np.uint8)
    padded = cut(window, Box(0, 0, 16, 16), (124, 116, 104))
    assert np.array_equal(padded[:, :10, :12], window)
    assert (padded[:, 10:] == np.array([124, 116, 104])[:, None, None]).all()
    assert (padded[:, :, 12:] == np.array([124, 116, 104])[:, None, None]).all()


def test_a_window_of_the_wrong_shape_is_refused_with_both_shapes() -> None:
    region = Plan((128, 128), T, 2, 512).region(0)
    with pytest.raises(ValueError, match=r"expected \(3, 128, 128\), got \(3, 64, 128\)"):
        TilePredictor(manifest(2), RedOfLocal(), 1).predict(np.zeros((3, 64, 128), np.uint8), region)
