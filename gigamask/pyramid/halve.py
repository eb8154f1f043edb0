"""One level to the next: 2 x 2 pixels become one. Sizes round up; at an odd end the average is over what exists.

Every function works on blocks that start at even coordinates, so that halving block by block equals halving the whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gigamask.manifest import NO_DATA

Pixels = NDArray[np.uint8]


def halve_mean(pixels: Pixels) -> Pixels:
    """(C, h, w) -> (C, ceil(h / 2), ceil(w / 2)), rounded half up.

    A 4th channel is validity (255 or 0): the colours are then the mean of the valid pixels alone (of all, where none
    is), and the result is valid if any of its pixels is.
    """
    even = _even(pixels)
    if pixels.shape[0] == 4:
        return _halve_valid(even)
    return ((_sum_2x2(even) + 2) >> 2).astype(np.uint8)


def _halve_valid(even: Pixels) -> Pixels:
    if even[3].all():
        return ((_sum_2x2(even) + 2) >> 2).astype(np.uint8)
    valid = (even[3] > 0).astype(np.uint8)
    count = _sum_2x2(valid)
    plain = (_sum_2x2(even[:3]) + 2) >> 2
    weighted = (_sum_2x2(even[:3] * valid) + count // 2) // np.maximum(count, 1)
    colors = np.where(count > 0, weighted, plain)
    validity = np.where(count > 0, 255, 0)
    return np.concatenate([colors, validity[None]]).astype(np.uint8)


def halve_mode(labels: Pixels) -> Pixels:
    """(h, w) -> (ceil(h / 2), ceil(w / 2)): the most frequent label, the smallest of equals.

    NO_DATA counts only where all four are. Sorted, equal labels are neighbours and NO_DATA (255) comes last.
    """
    even = _even(labels)
    a, b, c, d = even[0::2, 0::2], even[0::2, 1::2], even[1::2, 0::2], even[1::2, 1::2]
    low, high = np.minimum(a, b), np.maximum(a, b)
    low2, high2 = np.minimum(c, d), np.maximum(c, d)
    first, last = np.minimum(low, low2), np.maximum(high, high2)
    low, high = np.maximum(low, low2), np.minimum(high, high2)
    second, third = np.minimum(low, high), np.maximum(low, high)
    mode = np.where((third == last) & (third != NO_DATA), third, first)
    mode = np.where((second == third) & (second != NO_DATA), second, mode)
    return np.where(first == second, first, mode).astype(np.uint8, copy=False)


def _even(pixels: Pixels) -> Pixels:
    """Repeat the last row and column of an odd size: a pixel taken twice weighs as if it stood alone."""
    h, w = pixels.shape[-2:]
    if h % 2 == 0 and w % 2 == 0:
        return pixels
    pad = [(0, 0)] * (pixels.ndim - 2) + [(0, h % 2), (0, w % 2)]
    return np.pad(pixels, pad, mode="edge")


def _sum_2x2(even: Pixels) -> NDArray[np.uint16]:
    rows = even[..., 0::2, :].astype(np.uint16) + even[..., 1::2, :]
    total: NDArray[np.uint16] = rows[..., 0::2] + rows[..., 1::2]
    return total
