"""The seam measures, on labels whose answer can be counted by hand or by going over every pair."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from gigamask.geometry import Box
from gigamask.plan import Plan
from model.predictors.tiles import TilePredictor
from model.seams import LabelChanges, LabelRows, SeamCounts, band, excess, regions_from
from tests.model.test_tiles import RedOfLocal, RedOfSurround, T, manifest

Bytes = NDArray[np.uint8]


def changes(labels: Bytes, tile_px: int, cuts: tuple[int, ...] = ()) -> list[list[int]]:
    counter, edges = LabelChanges(tile_px), (0, *cuts, len(labels))
    for start, stop in pairwise(edges):
        counter.add(start, labels[start:stop])
    return counter.counts.tolist()  # type: ignore[no-any-return]


def counted_pair_by_pair(labels: Bytes, tile_px: int) -> list[list[int]]:
    counts = [[0, 0], [0, 0]]
    height, width = labels.shape
    pairs = [((y - 1, x), (y, x), y) for y in range(1, height) for x in range(width)]
    pairs += [((y, x - 1), (y, x), x) for y in range(height) for x in range(1, width)]
    for before, after, line in pairs:
        if 255 not in (labels[before], labels[after]):
            row = counts[int(line % tile_px == 0)]
            row[0] += 1
            row[1] += int(labels[before] != labels[after])
    return counts


def test_changes_of_a_case_worked_by_hand() -> None:
    # one row of six pixels, tiles of 2: borders between 1|2 and 3|4
    labels = np.array([[0, 1, 2, 2, 3, 255]], np.uint8)
    assert changes(labels, 2) == [[2, 1], [2, 2]]
    assert excess(np.array(changes(labels, 2))) == pytest.approx((2 / 2) / (1 / 2) - 1)


def test_every_pair_of_neighbours_counts_once_however_the_picture_is_cut_into_strips() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, (23, 17)).astype(np.uint8)
    labels[rng.random(labels.shape) < 0.15] = 255
    expected = counted_pair_by_pair(labels, 4)
    for cuts in ((), (1,), (8, 16), (5, 8, 22)):
        assert changes(labels, 4, cuts) == expected


def test_a_picture_that_knows_no_tiles_has_an_excess_near_zero_and_tiles_that_disagree_a_large_one() -> None:
    rng = np.random.default_rng(2)
    noise = rng.integers(0, 2, (640, 640)).astype(np.uint8)
    assert excess(np.array(changes(noise, 64))) == pytest.approx(0, abs=0.03)
    rare = (rng.random((640, 640)) < 0.01).astype(np.uint8)
    tiles = ((np.arange(640)[:, None] // 64 + np.arange(640) // 64) % 2).astype(np.uint8)  # a chessboard
    assert excess(np.array(changes(rare ^ tiles, 64))) > 40


def test_without_changes_or_borders_there_is_no_excess() -> None:
    assert np.isnan(excess(np.array(changes(np.zeros((8, 8), np.uint8), 4))))
    assert np.isnan(excess(np.array(changes(np.eye(8, dtype=np.uint8), 8))))


def test_the_band_is_a_sixteenth_of_a_tile_centred_on_borders_and_not_on_the_pictures_edges() -> None:
    near = band(Box(0, 0, 1024, 1100), (1024, 1100), 512)
    rows, columns = near.any(axis=1) & near[:, 300], near[300]
    assert np.flatnonzero(rows).tolist() == [*range(496, 528)]
    assert np.flatnonzero(columns).tolist() == [*range(496, 528), *range(1008, 1040)]
    assert near.sum() == 32 * 1100 + 64 * 1024 - 32 * 64


def test_the_bands_of_boxes_are_the_band_of_the_whole() -> None:
    shape = (200, 260)
    whole = band(Box(0, 0, *shape), shape, 64)
    for box in (Box(0, 0, 100, 130), Box(100, 130, 200, 260), Box(63, 127, 65, 129)):
        assert np.array_equal(band(box, shape, 64), whole[box.slices])


def test_disagreement_counts_only_where_the_truth_is_known() -> None:
    counts = SeamCounts(3)
    counts.compare(np.array([[0, 1, 255, 2]], np.uint8), np.array([[0, 2, 1, 2]], np.uint8))
    assert (counts.compared, counts.differing) == (3, 1)
    assert counts.scores().disagreement == pytest.approx(1 / 3)


def test_rows_are_read_until_they_are_dropped() -> None:
    whole = np.arange(60, dtype=np.uint8).reshape(10, 6)
    rows = LabelRows(6)
    rows.append(whole[:4])
    rows.append(whole[4:9])
    assert np.array_equal(rows.read(Box(2, 1, 7, 5)), whole[2:7, 1:5])
    rows.drop_above(3)
    rows.append(whole[9:])
    assert np.array_equal(rows.read(Box(3, 0, 10, 6)), whole[3:])
    with pytest.raises(IndexError, match="rows 3 to 10 are here, not 2 to 4"):
        rows.read(Box(2, 0, 4, 6))


@pytest.mark.parametrize("alpha", [1, 2, 3])
@pytest.mark.parametrize("shape", [(700, 1100), (40, 700), (512, 512)])
def test_a_grid_that_is_not_moved_is_the_plans(shape: tuple[int, int], alpha: int) -> None:
    plan = Plan(shape, T, alpha, 512)
    assert list(regions_from(plan, 0)) == list(plan.regions())


def test_a_moved_grid_covers_once_all_that_lies_right_and_below_its_origin() -> None:
    plan = Plan((700, 1100), T, 2, 512)
    covered = np.zeros(plan.shape, int)
    for region in regions_from(plan, T // 2):
        for tile in region.tiles:
            covered[tile.keep.slices] += 1
            assert {tile.keep.y0 % T, tile.keep.x0 % T} == {T // 2}
    assert not covered[: T // 2].any()
    assert not covered[:, : T // 2].any()
    assert (covered[T // 2 :, T // 2 :] == 1).all()


def test_tiles_of_a_moved_grid_see_the_pixels_beyond_its_origin() -> None:
    first = next(regions_from(Plan((700, 1100), T, 2, 512), T // 2)).tiles[0]
    assert first.local == Box(T // 2, T // 2, T // 2 + T, T // 2 + T)
    assert first.surround == Box(0, 0, 2 * T, 2 * T)  # the same centre


@pytest.mark.parametrize(("network", "alpha"), [(RedOfLocal(), 1), (RedOfSurround(), 2), (RedOfSurround(), 3)])
@pytest.mark.parametrize("shape", [(700, 620), (100, 250)])
def test_a_network_that_labels_each_pixel_alone_agrees_under_both_grids(
    network: RedOfLocal, alpha: int, shape: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 250, (3, *shape)).astype(np.uint8)
    predictor = TilePredictor(manifest(alpha), network, batch=3)
    for region in regions_from(Plan(shape, T, alpha, 512), T // 2):
        labels = predictor.predict(image[:, *region.window.slices], region)
        assert np.array_equal(labels, image[0][region.box.slices])


def test_a_picture_smaller_than_half_a_tile_has_no_moved_grid() -> None:
    assert list(regions_from(Plan((T // 2, 700), T, 2, 512), T // 2)) == []
