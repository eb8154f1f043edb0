"""Small objects take the label around them, by a rule that looks only so far.

An *object* is a 4-connected piece of pixels of one label. It is small if it has fewer than `min_object_px` pixels and
fits into a square of `side_px(min_object_px)`. A small object takes the label with which it shares the longest border
(in pixel edges; of equals the smallest label), counting only borders with objects that are not small. One that has no
such border (an island in an island) takes the label that would be its *patch's*, the 4-connected piece of small objects
it lies in, if that fits into the same square; else it stays. No data is no object: it is never changed and gives
nothing. All is judged on the labels as they came.

So what becomes of a pixel depends on labels at most `reach_px` away: its patch and the objects next to it begin within
one side, and a small one ends within another; what runs on for longer is not small, wherever the window ends. Sieving
window by window, each with that reach around its core, equals sieving the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigamask.errors import InvalidOption
from gigamask.geometry import Box
from gigamask.manifest import NO_DATA

OBJECT_SIDE_PX = 256
SIEVE_REACH_PX = 2 * OBJECT_SIDE_PX
LARGEST_MIN_OBJECT_PX = OBJECT_SIDE_PX**2

Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Numbers = NDArray[np.int32]  # a window has fewer than 2**31 pixels, and worst cases as many runs


def side_px(min_object_px: int) -> int:
    """Side of the square that a small object fits into. Raises InvalidOption."""
    if not 0 <= min_object_px <= LARGEST_MIN_OBJECT_PX:
        raise InvalidOption(f"min_object_px is in [0, {LARGEST_MIN_OBJECT_PX}], not {min_object_px}")
    return min(max(0, min_object_px - 1), OBJECT_SIDE_PX)


def reach_px(min_object_px: int) -> int:
    """What `sieve` must see around its core: at most SIEVE_REACH_PX, less for small objects. Raises InvalidOption."""
    return 2 * side_px(min_object_px)


def sieve(labels: Labels, min_object_px: int, core: Box) -> Labels:
    """labels: (h, w) of a window. core: in the window's frame. (core's h, w), labels of the core.

    The window is the core and `reach_px` around it, as far as the image goes. Raises InvalidOption.
    """
    side = side_px(min_object_px)
    if side == 0 or labels.size == 0:
        return labels[core.slices].copy()
    runs, run_of = _find_runs(labels)
    contacts = _find_contacts(runs, run_of)
    objects = _join(runs, contacts.chosen(runs.label[contacts.a] == runs.label[contacts.b]))
    small = _is_small(runs, objects, min_object_px, side)[objects.of]
    found: Labels = _new_labels(runs, contacts, objects, small, side)[run_of[core.slices]]
    return found


@dataclass(frozen=True, slots=True)
class _Runs:
    """Pixels of one label in one row, numbered row by row, left to right. Columns are half-open."""

    row: Numbers
    start: Numbers
    stop: Numbers
    label: Labels

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True, slots=True)
class _Contacts:
    """Pairs of runs that lie beside or over each other, each pair once. edges: how many pixels long they meet."""

    a: Numbers
    b: Numbers
    edges: Numbers

    def chosen(self, which: Mask) -> _Contacts:
        return _Contacts(self.a[which], self.b[which], self.edges[which])

    def both_ways(self) -> _Contacts:
        pairs = np.concatenate([self.a, self.b]), np.concatenate([self.b, self.a])
        return _Contacts(*pairs, np.concatenate([self.edges, self.edges]))


@dataclass(frozen=True, slots=True)
class _Groups:
    """of: the group of each run, in [0, count)."""

    of: Numbers
    count: int


def _find_runs(labels: Labels) -> tuple[_Runs, NDArray[np.int32]]:
    """The runs, and (h, w) the run of each pixel."""
    begins = np.ones(labels.shape, np.bool_)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
    run_of = (np.cumsum(begins, dtype=np.int32) - 1).reshape(labels.shape)
    row, start = (part.astype(np.int32) for part in np.nonzero(begins))
    stop = np.append(start[1:], np.int32(0))
    stop[stop == 0] = labels.shape[1]
    return _Runs(row, start, stop, labels[row, start]), run_of


def _find_contacts(runs: _Runs, run_of: NDArray[np.int32]) -> _Contacts:
    """Two runs over each other meet first where the later of them begins."""
    left = np.flatnonzero(runs.row[1:] == runs.row[:-1]).astype(np.int32)
    below = np.flatnonzero(runs.row > 0).astype(np.int32)
    above = np.flatnonzero(runs.row < len(run_of) - 1).astype(np.int32)
    over, under = run_of[runs.row[below] - 1, runs.start[below]], run_of[runs.row[above] + 1, runs.start[above]]
    once = runs.start[above] != runs.start[under]  # a pair that begins in one column is there from below already
    upper, lower = np.concatenate([over, above[once]]), np.concatenate([below, under[once]])
    edges = np.minimum(runs.stop[upper], runs.stop[lower]) - np.maximum(runs.start[upper], runs.start[lower])
    return _Contacts(
        np.concatenate([left, upper]), np.concatenate([left + 1, lower]), np.concatenate([np.ones_like(left), edges])
    )


def _join(runs: _Runs, contacts: _Contacts) -> _Groups:
    """Runs that touch each other by these contacts, however far apart, are one group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(contacts.a), np.bool_), (contacts.a, contacts.b)), (len(runs), len(runs)))
    count, of = connected_components(graph, directed=False)
    return _Groups(of, count)


def _is_small(runs: _Runs, objects: _Groups, min_object_px: int, side: int) -> Mask:
    """(count,) of the objects. Fewer pixels than a side is long always fit."""
    small: Mask = np.bincount(objects.of, weights=runs.stop - runs.start) < min_object_px
    small[objects.of[runs.label == NO_DATA]] = False
    if min_object_px - 1 > side:
        small &= _sides(runs, objects) <= side
    return small


def _sides(runs: _Runs, groups: _Groups) -> Numbers:
    """(count,) the longer side of each group's bounding box."""
    top, bottom = np.empty(groups.count, np.int32), np.empty(groups.count, np.int32)
    top[groups.of[::-1]], bottom[groups.of] = runs.row[::-1], runs.row  # of equal indices the last one counts
    left, right = np.full(groups.count, 2**31 - 1, np.int32), np.zeros(groups.count, np.int32)
    np.minimum.at(left, groups.of, runs.start)
    np.maximum.at(right, groups.of, runs.stop)
    sides: Numbers = np.maximum(bottom + 1 - top, right - left)
    return sides


def _new_labels(runs: _Runs, contacts: _Contacts, objects: _Groups, small: Mask, side: int) -> Labels:
    """small: of each run. (n,) the label of each run: by its object's border, else by its patch's."""
    both = contacts.both_ways()
    borders = both.chosen(small[both.a] & ~small[both.b] & (runs.label[both.b] != NO_DATA))
    new = np.where(small, _longest_borders(runs, borders, objects)[objects.of], runs.label)
    left = small & (new == NO_DATA)
    if left.any():
        patches = _join(runs, contacts.chosen(small[contacts.a] & small[contacts.b]))
        taken = _longest_borders(runs, borders, patches)[patches.of]
        fits = (taken != NO_DATA) & (_sides(runs, patches)[patches.of] <= side)
        new[left] = np.where(fits, taken, runs.label)[left]
    return new


def _longest_borders(runs: _Runs, borders: _Contacts, groups: _Groups) -> Labels:
    """(count,) the label that most of a group's edges have beyond them; NO_DATA where it has none."""
    from scipy.sparse import coo_array

    # A sparse table, groups x labels, sums the edges; a row's labels come in order, so its first maximum is the least.
    table = coo_array((borders.edges, (groups.of[borders.a], runs.label[borders.b])), (groups.count, NO_DATA)).tocsr()
    table.sum_duplicates()
    per_row = np.diff(table.indptr)
    rows = np.flatnonzero(per_row)
    longest = np.full(groups.count, NO_DATA, np.uint8)
    if len(rows):
        most = np.maximum.reduceat(table.data, table.indptr[rows])
        best = np.flatnonzero(table.data == np.repeat(most, per_row[rows]))[::-1]
        longest[np.repeat(rows, per_row[rows])[best]] = table.indices[best]
    return longest
