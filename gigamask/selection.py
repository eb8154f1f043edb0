"""Which tiles are run, where a job asks for a region of interest or leaves out the background.

What decides is a cell of the grid of tiles, anchored at the image's origin, so that no answer depends on regions: a
cell is run where the region of interest touches it and tissue lies in it. A pixel belongs to its cell, whether tiles
overlap or not; in a cell that is not run it is no data. The region of interest holds for every pixel besides.

Derived from the image and the options alone, in every worker again; of it, one byte a tile is held.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box
from gigamask.job import JobOptions, SelectionSummary
from gigamask.plan import Plan, Region
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.working import nearest
from gigamask.roi import Roi, inside, roi_in_pixels, touches
from gigamask.tissue import Tissue, find_tissue

Mask = NDArray[np.bool_]
Edges = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """cells: (rows, cols) of the grid of tiles. roi: in pixels."""

    plan: Plan
    cells: Mask
    roi: Roi | None
    summary: SelectionSummary

    def narrow(self, region: Region) -> Region:
        """The same region with those of its tiles that reach into a cell that is run, reading what they need."""
        tiles = tuple(tile for tile in region.tiles if self._cells_of(tile.keep).any())
        if not tiles or len(tiles) == len(region.tiles):
            return replace(region, tiles=tiles)
        return replace(region, tiles=tiles, window=self.plan.window(tiles[0].keep, tiles))

    def kept(self, region: Region) -> Mask:
        """(h, w) of region.box: the pixels that are labelled, if they have data."""
        box, t = region.box, self.plan.tile_px
        rows = nearest(box.y0, box.y1, self.plan.scale) // t
        cols = nearest(box.x0, box.x1, self.plan.scale) // t
        chosen: Mask = self.cells[rows[:, None], cols]
        return chosen & inside(self.roi, box) if self.roi and chosen.any() else chosen

    def _cells_of(self, work: Box) -> Mask:
        cells = work.snap(self.plan.tile_px)
        t = self.plan.tile_px
        return self.cells[cells.y0 // t : cells.y1 // t, cells.x0 // t : cells.x1 // t]


def select(image: ImagePyramid, plan: Plan, options: JobOptions) -> Selection | None:
    """None where every tile is run. Raises InvalidOption where the region of interest does not fit the image."""
    if options.roi is None and options.background == "keep":
        return None
    roi = roi_in_pixels(options.roi, image.info) if options.roi else None
    tissue = find_tissue(image) if options.background == "skip" else None
    rows, cols = (cell_edges(n, plan) for n in plan.shape)
    cells = np.ones((len(rows) - 1, len(cols) - 1), np.bool_)
    if roi is not None:
        cells &= cells_touched(roi, rows, cols)
    if tissue is not None:
        cells &= cells_with_tissue(tissue, rows, cols)
    return Selection(plan, cells, roi, _summary(cells, tissue))


def _summary(cells: Mask, tissue: Tissue | None) -> SelectionSummary:
    found = {"method": tissue.method, "threshold": tissue.threshold, "tissue_share": tissue.share} if tissue else {}
    counts = {"tiles_total": cells.size, "tiles_selected": int(cells.sum())}
    return SelectionSummary.model_validate(found | counts)


def cell_edges(total: int, plan: Plan) -> Edges:
    """Where each cell of the grid begins among `total` level-0 pixels, and where the last one ends."""
    cell_of_pixel = nearest(0, total, plan.scale) // plan.tile_px
    return np.append(np.searchsorted(cell_of_pixel, np.arange(cell_of_pixel[-1] + 1)), total)


def cells_touched(roi: Roi, rows: Edges, cols: Edges) -> Mask:
    """Halves what the outline passes through until single cells are left."""
    import shapely

    cells = np.zeros((len(rows) - 1, len(cols) - 1), np.bool_)
    parts = [Box(0, 0, *cells.shape)]
    while parts:
        part = parts.pop()
        box = Box(*map(int, (rows[part.y0], cols[part.x0], rows[part.y1], cols[part.x1])))
        if not touches(roi, box):
            continue
        within = shapely.contains_properly(roi.geometry, shapely.box(box.x0, box.y0, box.x1, box.y1))
        if within or part.shape == (1, 1):
            cells[part.slices] = True
        else:
            parts += _halves(part)
    return cells


def _halves(part: Box) -> tuple[Box, Box]:
    if part.height >= part.width:
        y = (part.y0 + part.y1) // 2
        return replace(part, y1=y), replace(part, y0=y)
    x = (part.x0 + part.x1) // 2
    return replace(part, x1=x), replace(part, x0=x)


def cells_with_tissue(tissue: Tissue, rows: Edges, cols: Edges) -> Mask:
    """Those that a pixel of tissue reaches into, told by sums over rectangles."""
    sums = np.zeros((tissue.mask.shape[0] + 1, tissue.mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = tissue.mask.cumsum(axis=0, dtype=np.int32).cumsum(axis=1)
    side = 1 << tissue.level
    (y0, y1), (x0, x1) = ((edges[:-1] // side, -(-edges[1:] // side)) for edges in (rows, cols))
    y0, y1 = y0[:, None], y1[:, None]
    found: Mask = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0] > 0
    return found
