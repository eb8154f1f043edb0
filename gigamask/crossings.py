"""How often the edges of polygons cross: what making them valid and joining them costs, told before it is paid.

Ten thousand edges that cross as often as they can have tens of millions of crossings, and the time that GEOS takes for
a ring grows with the square of its crossings. Counting them first takes a second or two at worst.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 64  # edges held against all others at a time

Floats = NDArray[np.float64]
Pairs = NDArray[np.bool_]


def count_crossings(edges: Floats, enough: int) -> int:
    """edges: (n, 4), x0, y0, x1, y1. Pairs that cross within both, or lie on one another for a part of their length.

    Counts no further once there are more than `enough`.
    """
    edges = edges[np.argsort(np.minimum(edges[:, 0], edges[:, 2]), kind="stable")]
    left, right = np.minimum(edges[:, 0], edges[:, 2]), np.maximum(edges[:, 0], edges[:, 2])
    found = 0
    for first in range(0, len(edges), BLOCK):
        block = slice(first, min(first + BLOCK, len(edges)))
        reach = int(np.searchsorted(left, right[block].max(), side="right"))
        pairs = _meeting(edges[block, None, :], edges[None, first:reach, :])
        found += int(np.triu(pairs, 1).sum())  # each pair once, none with itself
        if found > enough:
            break
    return found


def _meeting(a: Floats, b: Floats) -> Pairs:
    """a: (m, 1, 4), b: (1, n, 4). (m, n)"""
    a0, a1 = _sides(b, a[..., 0], a[..., 1]), _sides(b, a[..., 2], a[..., 3])
    b0, b1 = _sides(a, b[..., 0], b[..., 1]), _sides(a, b[..., 2], b[..., 3])
    cross = (a0 * a1 < 0) & (b0 * b1 < 0)
    on_one_line = (b0 == 0) & (b1 == 0) & (_overlap(a, b, 0) | _overlap(a, b, 1))
    found: Pairs = cross | (on_one_line & ~_alike(a, b))
    return found


def _sides(edge: Floats, x: Floats, y: Floats) -> Floats:
    """On which side of the edge's line the points lie: -1, 0 or 1."""
    found: Floats = np.sign(
        (edge[..., 2] - edge[..., 0]) * (y - edge[..., 1]) - (edge[..., 3] - edge[..., 1]) * (x - edge[..., 0])
    )
    return found


def _overlap(a: Floats, b: Floats, axis: int) -> Pairs:
    """By more than a point."""
    (a0, a1), (b0, b1) = ((edges[..., axis], edges[..., axis + 2]) for edges in (a, b))
    found: Pairs = np.maximum(np.minimum(a0, a1), np.minimum(b0, b1)) < np.minimum(
        np.maximum(a0, a1), np.maximum(b0, b1)
    )
    return found


def _alike(a: Floats, b: Floats) -> Pairs:
    """The same edge, in either direction: what neighbours share costs nothing."""
    found: Pairs = (a == b).all(axis=-1) | (a == b[..., [2, 3, 0, 1]]).all(axis=-1)
    return found
