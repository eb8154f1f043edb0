"""Why a region was skipped, told from the image at a low resolution and from what the job was asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box, level_count, level_shape
from gigamask.job import Job
from gigamask.pyramid.image import ImagePyramid
from gigamask.roi import Roi, roi_in_pixels, touches
from gigamask.tissue import Tissue, find_tissue

LOOK_PX = 2048
NO_DATA, OUTSIDE, NO_TISSUE, NOTHING = "no data", "outside the region of interest", "no tissue", "no valid pixel"

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What reasons are read from, a few MiB. valid: (h, w) of `level`; None where every pixel has data."""

    level: int
    valid: Mask | None
    roi: Roi | None
    tissue: Tissue | None

    def reason(self, box: Box) -> str:
        """box: of a skipped region, in level-0 pixels."""
        if self.valid is not None and not _holds(self.valid, box, self.level):
            return NO_DATA
        if self.roi is not None and not touches(self.roi, box):
            return OUTSIDE
        if self.tissue is not None and (self.roi is not None or not _holds(self.tissue.mask, box, self.tissue.level)):
            return NO_TISSUE
        return OUTSIDE if self.roi is not None else NOTHING


def survey(job: Job, image: ImagePyramid) -> Ground:
    """Reads a level of at most LOOK_PX a side. Validity above is that of any pixel below, so none is overlooked."""
    level = min(level_count(image.info.shape, LOOK_PX), image.levels) - 1
    whole = Box(0, 0, *level_shape(image.info.shape, level))
    valid = image.read(whole, level)[3] > 0 if image.info.channels == 4 else None
    roi = roi_in_pixels(job.options.roi, image.info) if job.options.roi else None
    return Ground(level, valid, roi, find_tissue(image) if job.options.background == "skip" else None)


def region_boxes(job: Job, indices: Iterable[int]) -> Iterator[tuple[int, Box]]:
    """In the order of their indices, in level-0 pixels."""
    assert job.image is not None and job.region_px is not None
    side, columns = job.region_px, -(-job.image.width // job.region_px)
    for index in sorted(indices):
        y, x = index // columns * side, index % columns * side
        yield index, Box(y, x, y + side, x + side).clip(job.image.shape)


def _holds(mask: Mask, box: Box, level: int) -> bool:
    """Whether any pixel of `mask`, which is of `level`, lies in the box or reaches into it."""
    rows, cols = slice(box.y0 >> level, -(-box.y1 >> level)), slice(box.x0 >> level, -(-box.x1 >> level))
    return bool(mask[rows, cols].any())
