"""The polygons of one block of labels, with every vertex that a neighbour has there.

GDAL's polygonizer gives a ring its own corners only, so that three polygons may meet where one of them has no vertex.
Simplifying needs edges that match (a *coverage*). So rings are walked pixel by pixel and keep, beside their corners,
each point of the grid around which the four labels make no straight line. Labels are read one pixel beyond the block,
so that the blocks around it keep the same points on their common border.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import rasterio.features
import shapely
from numpy.typing import NDArray

OUTSIDE = -1  # the label beyond the image

Labels = NDArray[np.int16]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Polygons = NDArray[np.object_]
Place = Callable[[Ints], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """labels, polygons: (n,). top, bottom: (w,); left, right: (h,): the piece that each pixel of the border is of."""

    labels: Ints
    polygons: Polygons
    top: Ints
    bottom: Ints
    left: Ints
    right: Ints


@dataclass(frozen=True, slots=True, eq=False)
class _Rings:
    """points: (m, 2) of (x, y), ring after ring. lengths: points of each ring. counts: rings of each polygon."""

    points: Ints
    lengths: Ints
    counts: Ints


def trace_block(framed: Labels, place: Place, simplify_px: float = 0.0) -> Pieces:
    """framed: (h + 2, w + 2), the block with one pixel around it, OUTSIDE where the image ends.

    Pieces are connected by edges, not corners, and cover the block exactly. place: (m, 2) grid points of the block,
    (x, y), to coordinates. simplify_px: in those coordinates; moves no point of the block's border.
    """
    labels, rings = _polygonize(np.ascontiguousarray(framed[1:-1, 1:-1]))
    steps = _walk(rings)
    owners = np.repeat(np.arange(len(labels)), rings.counts)[steps.ring]
    kept = _keep_vertices(steps, _nodes(framed), len(rings.lengths))
    polygons = _build(kept, rings.counts, place)
    if simplify_px:
        polygons = shapely.coverage_simplify(polygons, simplify_px, simplify_boundary=False)
    return Pieces(labels, polygons, *_border_owners(steps, owners, framed.shape[0] - 2, framed.shape[1] - 2))


def _polygonize(labels: Labels) -> tuple[Ints, _Rings]:
    """(n,) labels and the closed rings of their polygons."""
    found: list[int] = []
    rings: list[list[tuple[float, float]]] = []
    counts: list[int] = []
    for geometry, label in rasterio.features.shapes(labels, connectivity=4):
        found.append(int(label))
        rings += geometry["coordinates"]
        counts.append(len(geometry["coordinates"]))
    lengths = np.fromiter(map(len, rings), np.int64, len(rings))
    flat = np.fromiter(chain.from_iterable(chain.from_iterable(rings)), np.float64, 2 * int(lengths.sum()))
    return np.array(found, np.int64), _Rings(flat.astype(np.int64).reshape(-1, 2), lengths, np.array(counts, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class _Steps:
    """at: (k, 2), where a step of one pixel begins; direction: (k, 2); ring: (k,); before: (k,), the step before it."""

    at: Ints
    direction: Ints
    ring: Ints
    before: Ints


def _walk(rings: _Rings) -> _Steps:
    ends = np.cumsum(rings.lengths)
    starts = np.delete(np.arange(len(rings.points)), ends - 1)
    delta = rings.points[starts + 1] - rings.points[starts]
    lengths = np.abs(delta).sum(axis=1)
    direction = np.repeat(np.sign(delta), lengths, axis=0)
    within = np.arange(len(direction)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    at = np.repeat(rings.points[starts], lengths, axis=0) + direction * within[:, None]
    ring = np.repeat(np.repeat(np.arange(len(rings.lengths)), rings.lengths - 1), lengths)
    before = np.arange(len(ring)) - 1
    last = np.cumsum(np.bincount(ring)) - 1
    before[np.append(0, last[:-1] + 1)] = last
    return _Steps(at, direction, ring, before)


def _nodes(framed: Labels) -> Flags:
    """(h + 1, w + 1): grid points that are no inner point of a straight border, nor of an area."""
    a, b, c, d = framed[:-1, :-1], framed[:-1, 1:], framed[1:, :-1], framed[1:, 1:]
    straight: Flags = ((a == b) & (c == d)) | ((a == c) & (b == d))
    return ~straight


def _keep_vertices(steps: _Steps, nodes: Flags, ring_count: int) -> _Rings:
    """The rings, not closed, without the points on straight edges. `counts` is the caller's."""
    turns = (steps.direction != steps.direction[steps.before]).any(axis=1)
    keep = turns | nodes[steps.at[:, 1], steps.at[:, 0]]
    lengths = np.bincount(steps.ring[keep], minlength=ring_count)
    return _Rings(steps.at[keep], lengths, np.empty(0, np.int64))


def _build(rings: _Rings, counts: Ints, place: Place) -> Polygons:
    ends = np.cumsum(rings.lengths)
    closed = np.insert(rings.points, ends, rings.points[ends - rings.lengths], axis=0)
    ring_offsets = np.append(0, np.cumsum(rings.lengths + 1))
    polygon_offsets = np.append(0, np.cumsum(counts))
    made: Polygons = shapely.from_ragged_array(
        shapely.GeometryType.POLYGON, place(closed), (ring_offsets, polygon_offsets)
    )
    return made


def _border_owners(steps: _Steps, owners: Ints, height: int, width: int) -> tuple[Ints, Ints, Ints, Ints]:
    """top, bottom, left, right"""
    pixel = steps.at + np.minimum(steps.direction, 0)
    upright = steps.direction[:, 0] == 0

    def along(axis: int, line: int, length: int, edges: Any) -> Ints:
        chosen = edges & (steps.at[:, axis] == line)
        found = np.full(length, -1, np.int64)
        found[pixel[chosen, 1 - axis]] = owners[chosen]
        return found

    return (
        along(1, 0, width, ~upright),
        along(1, height, width, ~upright),
        along(0, 0, height, upright),
        along(0, width, height, upright),
    )
