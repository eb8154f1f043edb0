"""Tiles are cut and pasted so that networks with known answers give them for every pixel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from gigamask.geometry import Box
from gigamask.job import Overlap
from gigamask.manifest import NO_DATA, LabelClass, ModelManifest
from gigamask.plan import Plan, half_steps
from model.predictors.blend import softmax, tile_weights
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


class NoisyScores(RedOfLocal):
    """Scores that depend on the pixel and on its place in the tile, so that blending shows."""

    def scores(self, batch: TileBatch) -> NDArray[np.float32]:
        place = np.random.default_rng(5).normal(size=(3, T, T)).astype(np.float32)
        return batch.local.astype(np.float32) / 64 + place

    def labels(self, batch: TileBatch) -> NDArray[np.uint8]:
        return self.scores(batch).argmax(axis=1).astype(np.uint8)


def noise(shape: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 255, (3, *shape)).astype(np.uint8)


def whole(image: NDArray[np.uint8], overlap: Overlap) -> NDArray[np.float64]:
    """F(p) = sum_i w_i(p) f_i(p) / sum_i w_i(p), on the image at once."""
    shape, weights = image.shape[1:], tile_weights(overlap, T)
    total, count = np.zeros((3, *shape)), np.zeros(shape)
    steps = [half_steps(n, T) if overlap != "none" else range(0, n, T) for n in shape]
    for y in steps[0]:
        for x in steps[1]:
            at = slice(y, y + T), slice(x, x + T)
            scores = NoisyScores().scores(TileBatch(image[None, :, *at], None, None))[0]
            total[:, *at] += scores * weights
            count[at] += weights
    return total / count


@pytest.mark.parametrize("overlap", ["none", "half", "gaussian"])
@pytest.mark.parametrize("region_px", [512, 1024])
def test_labels_and_probabilities_are_those_of_the_weighted_mean_whatever_the_region(
    overlap: Overlap, region_px: int
) -> None:
    image = noise((640, 10 * T))
    predictor, expected = TilePredictor(manifest(1), NoisyScores(), 3), whole(image, overlap)
    for region in Plan((640, 640), T, 1, region_px, overlap=overlap).regions():
        window, at = image[:, *region.window.slices], region.box.slices
        labels, probabilities = predictor.predict_scored(window, region)
        assert np.array_equal(labels, predictor.predict(window, region))
        assert (labels == expected[:, *at].argmax(axis=0)).mean() > 0.99999  # sums in float32
        off = np.abs(probabilities.astype(int) - softmax(expected[:, *at].astype(np.float32)))
        assert off.max() <= 1
        assert (off > 0).mean() < 0.001


def test_gaussian_weights_fall_off_from_the_centre_and_never_to_nothing() -> None:
    weights = tile_weights("gaussian", T)
    assert weights[T // 2, T // 2] == weights.max() > 0.99
    sigma = T / 8
    assert weights[T // 2, T // 2 + 8] == pytest.approx(np.exp(-(8.5**2 + 0.5**2) / (2 * sigma**2)), rel=1e-5)
    assert weights.min() == np.float32(1e-3)


@pytest.mark.parametrize("overlap", ["none", "half", "gaussian"])
def test_where_no_tile_is_run_there_is_no_data_of_no_probability(overlap: Overlap) -> None:
    image = noise((512, 512))
    predictor = TilePredictor(manifest(1), NoisyScores(), 3)
    region = Plan((512, 512), T, 1, 512, overlap=overlap).region(0)
    all_labels, all_probabilities = predictor.predict_scored(image, region)
    kept = Box(2 * T, 3 * T, 3 * T, 4 * T)
    far = Box(6 * T, 0, 7 * T, T)
    tiles = tuple(tile for tile in region.tiles if any(_meet(tile.keep, box) for box in (kept, far)))
    labels, probabilities = predictor.predict_scored(image, replace(region, tiles=tiles))
    for box in (kept, far):
        assert np.array_equal(labels[box.slices], all_labels[box.slices])
        assert np.array_equal(probabilities[:, *box.slices], all_probabilities[:, *box.slices])
    untouched = np.ones(labels.shape, bool)
    for tile in tiles:
        untouched[tile.keep.slices] = False
    assert untouched.any()
    assert (labels[untouched] == NO_DATA).all()
    assert (labels[~untouched] != NO_DATA).all()
    assert not probabilities[:, untouched].any()
    none = predictor.predict(image, replace(region, tiles=()))
    assert (none == NO_DATA).all()


def _meet(a: Box, b: Box) -> bool:
    both = a.intersect(b)
    return both.y0 < both.y1 and both.x0 < both.x1
