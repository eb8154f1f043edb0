"""A mask as polygons: a stream of outlines in level-0 pixels, in memory that does not grow with the image.

The mask is traced block by block (gigamask.exports.pieces). Pieces that touch a block's border are held until no later
block can touch them, and then joined. What is held: the pieces of one row of blocks that touch a border, and what hangs
on them from above, at most MAX_VERTICES a polygon. Larger polygons come in parts, cut along borders of blocks
(docs/decisions/0011-polygons.md).

Neighbours share every vertex: there is no gap and no overlap between them, simplified or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gigamask.errors import InvalidOption
from gigamask.exports.catalog import DEFAULTS, ExportOptions, Progress
from gigamask.exports.pieces import OUTSIDE, Ints, Labels, Pieces, Place, trace_block
from gigamask.geometry import Box, level_shape
from gigamask.manifest import NO_DATA
from gigamask.pyramid.result import Result
from gigamask.roi import inside, roi_in_pixels

BLOCK_PX = 1024
MAX_VERTICES = 100_000  # of one polygon: 1.6 MB of coordinates, and what viewers still draw at once

Read = Callable[[Box], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """polygon: a Polygon or MultiPolygon of (x, y). part: it is one of the parts of a polygon that was cut."""

    label: int
    polygon: shapely.Geometry
    part: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """Where labels come from. shape: (height, width) of what is read; scale: side of its pixel in pixels of `full`."""

    read: Read
    shape: tuple[int, int]
    full: tuple[int, int]
    scale: int = 1


def trace_result(
    result: Result, options: ExportOptions = DEFAULTS, progress: Progress = lambda fraction: None
) -> Iterator[Outline]:
    """The outlines of all labels but NO_DATA, in level-0 pixels from the pyramid's corner.

    Of the options: level, roi (pixels outside are no data), simplify_px and min_area_px (in level-0 pixels; parts of
    larger polygons stay). Raises InvalidOption.
    """
    level, scale = options.level, 2**options.level
    if not 0 <= level < result.mask.levels:
        raise InvalidOption(f"the mask has levels 0 to {result.mask.levels - 1}, not {level}")
    tolerance = options.simplify_px or 0.0
    if not 0 <= tolerance < math.inf:
        raise InvalidOption(f"outlines are simplified by 0 pixels or more, not {tolerance}")
    grid = Grid(_reader(result, options), level_shape(result.shape, level), result.shape, scale)
    for outline in trace_polygons(grid, tolerance * scale, progress=progress):
        if outline.part or outline.polygon.area >= options.min_area_px:
            yield outline


def _reader(result: Result, options: ExportOptions) -> Read:
    if options.roi is None:
        return lambda box: result.labels(box, options.level)
    roi = roi_in_pixels(options.roi, result.info)
    return lambda box: np.where(inside(roi, box, options.level), result.labels(box, options.level), NO_DATA)


def trace_polygons(
    grid: Grid,
    simplify_px: float = 0.0,
    *,
    block_px: int = BLOCK_PX,
    max_vertices: int = MAX_VERTICES,
    progress: Progress = lambda fraction: None,
) -> Iterator[Outline]:
    """simplify_px: in pixels of `full`, the side of a square as large as the triangles that are taken away (Visvalingam
    and Whyatt 1993). Each polygon comes once no later block can touch it; the order is the same every time.
    """
    above = _Seam([], np.full(grid.shape[1], -1, np.int64))
    rows = range(0, grid.shape[0], block_px)
    for y in rows:
        row = _Row(above)
        for x in range(0, grid.shape[1], block_px):
            box = Box(y, x, y + block_px, x + block_px).clip(grid.shape)
            yield from row.add(trace_block(_framed(grid, box), _placing(grid, box), simplify_px), box)
        closed, above = row.finish(max_vertices)
        for group in closed:
            yield from _outlines(group, max_vertices)
        progress(min(y + block_px, grid.shape[0]) / grid.shape[0])
    for group in above.groups:
        yield from _outlines(group, max_vertices)


def _framed(grid: Grid, box: Box) -> Labels:
    """(h + 2, w + 2)"""
    wide = box.grow(1)
    seen = wide.clip(grid.shape)
    framed = np.full(wide.shape, OUTSIDE, np.int16)
    framed[seen.within(wide).slices] = grid.read(seen)
    return framed


def _placing(grid: Grid, box: Box) -> Place:
    """The last pixel of a coarse level may reach beyond the image: it ends where the image does."""
    corner, end = (box.x0, box.y0), (grid.full[1], grid.full[0])

    def place(points: Ints) -> NDArray[np.float64]:
        placed: NDArray[np.float64] = np.minimum((points + corner) * grid.scale, end).astype(np.float64)
        return placed

    return place


@dataclass(slots=True)
class _Group:
    """Pieces of one polygon so far. part: some of it was handed out already."""

    label: int
    pieces: list[shapely.Geometry] = field(default_factory=list)
    part: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Seam:
    """A border between rows of blocks. groups: the polygons that reach it; owners: (width,) index of a group or -1."""

    groups: list[_Group]
    owners: Ints


class _Row:
    """One row of blocks: its members are the groups from above, then its own pieces that touch a border."""

    def __init__(self, above: _Seam) -> None:
        self._members: list[_Group] = list(above.groups)
        self._above, self._below = above.owners, np.full_like(above.owners, -1)
        self._left: Ints | None = None
        self._touching: list[Ints] = []  # (k, 2) pairs of members

    def add(self, pieces: Pieces, box: Box) -> Iterator[Outline]:
        """Blocks come from left to right. Gives what touches no border."""
        ids = self._enrol(pieces)
        for index in np.flatnonzero(ids == -1):
            if pieces.labels[index] != NO_DATA:
                yield Outline(int(pieces.labels[index]), pieces.polygons[index])
        columns = slice(box.x0, box.x1)
        self._touch(self._above[columns], ids[pieces.top])
        if self._left is not None:
            self._touch(self._left, ids[pieces.left])
        self._below[columns], self._left = ids[pieces.bottom], ids[pieces.right]

    def _enrol(self, pieces: Pieces) -> Ints:
        """(n,): each piece's member, or -1: it touches no border, or is no data."""
        ids = np.full(len(pieces.labels), -1, np.int64)
        for index in np.unique(np.concatenate([pieces.top, pieces.bottom, pieces.left, pieces.right])):
            if pieces.labels[index] != NO_DATA:
                ids[index] = len(self._members)
                self._members.append(_Group(int(pieces.labels[index]), [pieces.polygons[index]]))
        return ids

    def _touch(self, one: Ints, other: Ints) -> None:
        met = (one >= 0) & (other >= 0)
        pairs = np.unique(np.stack([one[met], other[met]], axis=1), axis=0)
        same = [self._members[a].label == self._members[b].label for a, b in pairs]
        self._touching.append(pairs[same])

    def finish(self, max_vertices: int) -> tuple[list[_Group], _Seam]:
        """What is to be handed out now, and what goes on below."""
        groups, group_of = self._join()
        owners = np.where(self._below >= 0, group_of[self._below], -1) if groups else self._below
        reaching = np.unique(owners[owners >= 0])
        closed = [groups[index] for index in np.setdiff1d(np.arange(len(groups)), reaching)]
        for index in reaching:
            if shapely.get_num_coordinates(groups[index].pieces).sum() > max_vertices:
                groups[index].part = True
                closed.append(groups[index])
                groups[index] = _Group(groups[index].label, part=True)
        place = np.searchsorted(reaching, owners)
        return closed, _Seam([groups[index] for index in reaching], np.where(owners >= 0, place, -1))

    def _join(self) -> tuple[list[_Group], Ints]:
        """The polygons that the members make, and (members,) which one each belongs to."""
        count = len(self._members)
        pairs = np.concatenate([*self._touching, np.empty((0, 2), np.int64)])
        graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
        group_of: Ints = (
            connected_components(graph, directed=False)[1].astype(np.int64) if count else np.empty(0, np.int64)
        )
        groups: dict[int, _Group] = {}
        for member, index in zip(self._members, group_of.tolist(), strict=True):
            groups[index] = _merge(groups.get(index), member)
        return [groups[index] for index in range(len(groups))], group_of


def _merge(group: _Group | None, member: _Group) -> _Group:
    if group is None:
        return member
    group.pieces += member.pieces
    group.part |= member.part
    return group


def _outlines(group: _Group, max_vertices: int) -> Iterator[Outline]:
    runs = list(_runs(group.pieces, max_vertices))
    for run in runs:
        yield Outline(group.label, shapely.coverage_union_all(run), group.part or len(runs) > 1)


def _runs(pieces: Iterable[shapely.Geometry], max_vertices: int) -> Iterator[list[shapely.Geometry]]:
    """The pieces in order, so many together that they have at most `max_vertices`; one that has more is alone."""
    run: list[shapely.Geometry] = []
    held = 0
    for piece in pieces:
        count = int(shapely.get_num_coordinates(piece))
        if run and held + count > max_vertices:
            yield run
            run, held = [], 0
        run.append(piece)
        held += count
    if run:
        yield run
