"""Small objects take the label around them, the same wherever a window lies."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from skimage.measure import label as label_objects

from gigamask import sieve as module
from gigamask.errors import InvalidOption
from gigamask.geometry import Box
from gigamask.manifest import NO_DATA
from gigamask.sieve import LARGEST_MIN_OBJECT_PX, OBJECT_SIDE_PX, SIEVE_REACH_PX, reach_px, side_px, sieve

Labels = NDArray[np.uint8]


def whole(labels: Labels) -> Box:
    return Box(0, 0, *labels.shape)


def drawn(*rows: str) -> Labels:
    """A digit is a label, a dot no data."""
    return np.array([[NO_DATA if mark == "." else int(mark) for mark in row] for row in rows], np.uint8)


def blobs(shape: tuple[int, int], classes: int, smooth_px: int, seed: int, no_data: float = 0.0) -> Labels:
    random = np.random.default_rng(seed)
    fields = np.stack([uniform_filter(random.random(shape), smooth_px) for _ in range(classes)])
    labels = fields.argmax(axis=0).astype(np.uint8)
    labels[uniform_filter(random.random(shape), 5) < 0.5 * no_data] = NO_DATA
    return labels


def plainly_sieved(labels: Labels, min_object_px: int) -> Labels:
    """The rule, word by word and object by object."""
    side = side_px(min_object_px)
    objects = label_objects(labels.astype(int) + 1, connectivity=1)
    small = np.zeros(labels.shape, bool)
    for k in range(1, objects.max() + 1):
        here = objects == k
        fits = max(np.ptp(np.argwhere(here), axis=0)) < side
        small |= here & bool(here.sum() < min_object_px and fits and labels[here][0] != NO_DATA)
    patches = label_objects(small, connectivity=1)
    found = labels.copy()
    for k in np.unique(objects[small]):
        here = objects == k
        patch = patches == patches[here][0]
        taken = longest_border(labels, here, small)
        if taken is None and max(np.ptp(np.argwhere(patch), axis=0)) < side:
            taken = longest_border(labels, patch, small)
        if taken is not None:
            found[here] = taken
    return found


def longest_border(labels: Labels, here: NDArray[np.bool_], small: NDArray[np.bool_]) -> int | None:
    edges: Counter[int] = Counter()
    for y, x in np.argwhere(here).tolist():
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            inside = 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1]
            if inside and not here[v, u] and not small[v, u] and labels[v, u] != NO_DATA:
                edges[int(labels[v, u])] += 1
    return min(edges, key=lambda label: (-edges[label], label)) if edges else None


def test_a_speck_takes_the_label_around_it_and_a_large_object_stays() -> None:
    labels = drawn("111111", "121133", "111133", "111133")
    assert np.array_equal(sieve(labels, 2, whole(labels)), drawn("111111", "111133", "111133", "111133"))
    assert np.array_equal(sieve(labels, 7, whole(labels)), np.full((4, 6), 1))
    assert np.array_equal(sieve(labels, 1, whole(labels)), labels)


def test_the_longest_border_wins_and_of_equals_the_smallest_label() -> None:
    assert np.array_equal(sieve(drawn("4422", "4922", "4222"), 2, Box(0, 0, 3, 4)), drawn("4422", "4222", "4222"))
    assert np.array_equal(sieve(drawn("44922", "44922"), 3, Box(0, 0, 2, 5)), drawn("44222", "44222"))


def test_objects_that_meet_at_a_corner_are_two() -> None:
    labels = drawn("1111", "1211", "1121", "1111")
    assert (sieve(labels, 2, whole(labels)) == 1).all()


def test_no_data_is_neither_changed_nor_counted_nor_taken() -> None:
    labels = drawn("11111", "1.111", "11111", ".....", "..2..", ".....")
    assert np.array_equal(sieve(labels, 5, whole(labels)), labels)
    beside = drawn("...11", "..211", "...11", "11111")
    assert np.array_equal(sieve(beside, 2, whole(beside)), drawn("...11", "..111", "...11", "11111"))


def test_an_island_in_an_island_goes_with_it() -> None:
    labels = np.ones((20, 20), np.uint8)
    labels[5:10, 5:10] = 2
    labels[7, 7] = 3
    assert (sieve(labels, 30, whole(labels)) == 1).all()
    assert (sieve(labels, 25, whole(labels)) == 1).all()  # 24 and 1 px
    assert np.array_equal(np.unique(sieve(labels, 24, whole(labels))), [1, 2])


def test_a_long_line_of_few_pixels_is_no_small_object() -> None:
    labels = np.zeros((8, OBJECT_SIDE_PX + 8), np.uint8)
    labels[2, 2 : 2 + OBJECT_SIDE_PX] = 1
    labels[5, 2 : 3 + OBJECT_SIDE_PX] = 2
    assert np.array_equal(np.unique(sieve(labels, 1000, whole(labels))), [0, 2])


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 3, 5]),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.95]),
    st.integers(0, 40),
    st.tuples(st.integers(1, 26), st.integers(1, 26)),
)
def test_the_rule_is_followed_word_by_word(
    seed: int, smooth_px: int, classes: int, no_data: float, min_object_px: int, shape: tuple[int, int]
) -> None:
    labels = blobs(shape, classes, smooth_px, seed, no_data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "OBJECT_SIDE_PX", 7)  # so that the square matters in a small picture
        assert np.array_equal(sieve(labels, min_object_px, whole(labels)), plainly_sieved(labels, min_object_px))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 3, 5, 9]),
    st.sampled_from([0.0, 0.95]),
    st.integers(0, 60),
    st.tuples(*[st.integers(0, 79)] * 2),
    st.tuples(*[st.integers(1, 30)] * 2),
)
def test_any_window_with_its_reach_gives_what_the_whole_gives(
    seed: int, smooth_px: int, no_data: float, min_object_px: int, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    labels = blobs((80, 90), 3, smooth_px, seed, no_data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "OBJECT_SIDE_PX", 9)
        core = Box(*corner, corner[0] + size[0], corner[1] + size[1]).clip(labels.shape)
        window = core.grow(reach_px(min_object_px)).clip(labels.shape)
        expected = sieve(labels, min_object_px, whole(labels))[core.slices]
        assert np.array_equal(sieve(labels[window.slices], min_object_px, core.within(window)), expected)


def test_regions_with_the_full_reach_join_to_the_whole() -> None:
    """The real square, on objects about as large as it."""
    labels = blobs((1500, 1700), 3, 41, seed=1)
    expected = sieve(labels, 5000, whole(labels))
    assert (expected != labels).mean() > 0.01
    for y in range(0, 1500, 512):
        for x in range(0, 1700, 512):
            core = Box(y, x, y + 512, x + 512).clip(labels.shape)
            window = core.grow(SIEVE_REACH_PX).clip(labels.shape)
            assert np.array_equal(sieve(labels[window.slices], 5000, core.within(window)), expected[core.slices])


def test_small_objects_need_little_reach_and_none_needs_more_than_the_limit() -> None:
    assert [reach_px(n) for n in (0, 1, 2, 17, 257, 258, LARGEST_MIN_OBJECT_PX)] == [0, 0, 2, 32, 512, 512, 512]
    assert max(reach_px(n) for n in range(0, LARGEST_MIN_OBJECT_PX, 97)) == SIEVE_REACH_PX


@pytest.mark.parametrize("number", [-1, LARGEST_MIN_OBJECT_PX + 1])
def test_a_number_beyond_the_reach_is_refused(number: int) -> None:
    with pytest.raises(InvalidOption, match=rf"\[0, {LARGEST_MIN_OBJECT_PX}\], not {number}"):
        sieve(np.zeros((4, 4), np.uint8), number, Box(0, 0, 4, 4))
