from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import floor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from gigamask.manifest import NO_DATA
from gigamask.pyramid.halve import halve_mean, halve_mode

Pixels = NDArray[np.uint8]

few_labels = st.sampled_from([0, 1, 2, 7, NO_DATA])
label_planes = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=few_labels)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))


def blocks(plane: NDArray[np.uint8]) -> list[list[list[int]]]:
    """[row][col] -> the up to four values of that block that exist."""
    h, w = plane.shape
    return [[[int(v) for v in plane[y : y + 2, x : x + 2].ravel()] for x in range(0, w, 2)] for y in range(0, h, 2)]


def plain_mode(labels: list[int]) -> int:
    counts = Counter(label for label in labels if label != NO_DATA)
    return min(counts, key=lambda label: (-counts[label], label)) if counts else NO_DATA


@given(label_planes)
def test_a_halved_label_is_the_most_frequent_and_of_equals_the_smallest(labels: Pixels) -> None:
    expected = [[plain_mode(block) for block in row] for row in blocks(labels)]
    assert halve_mode(labels).tolist() == expected


@given(label_planes)
def test_halving_invents_no_label_and_loses_no_data_to_no_data(labels: Pixels) -> None:
    halved = halve_mode(labels)
    assert set(halved.ravel()) <= set(labels.ravel())
    if (labels != NO_DATA).all():
        assert (halved != NO_DATA).all()


def round_half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


@given(shapes.flatmap(lambda s: arrays(np.uint8, (3, *s))))
def test_a_halved_pixel_is_the_mean_of_the_pixels_that_exist(pixels: Pixels) -> None:
    expected = [[[round_half_up(Fraction(sum(b), len(b))) for b in row] for row in blocks(plane)] for plane in pixels]
    assert halve_mean(pixels).tolist() == expected


@given(
    shapes.flatmap(
        lambda s: st.tuples(arrays(np.uint8, (1, *s)), arrays(np.uint8, (1, *s), elements=st.sampled_from([0, 255])))
    )
)
def test_colour_is_the_mean_of_the_valid_pixels(pair: tuple[Pixels, Pixels]) -> None:
    plane, validity = pair
    halved = halve_mean(np.concatenate([plane, plane, plane, validity]))
    for y, (colors, valids) in enumerate(zip(blocks(plane[0]), blocks(validity[0]), strict=True)):
        for x, (color, valid) in enumerate(zip(colors, valids, strict=True)):
            chosen = [c for c, v in zip(color, valid, strict=True) if v] or color
            assert halved[0, y, x] == round_half_up(Fraction(sum(chosen), len(chosen)))
            assert halved[3, y, x] == (255 if any(valid) else 0)
