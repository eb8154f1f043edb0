"""Small objects taken from a mask: raw labels in, the mask's own shards out, region by region.

A region is sieved in blocks, each with as much around it as the rule looks at (gigamask.sieve), so that neither regions
nor blocks show in the result, and memory is that of one block. The raw labels stay as they are until the result is
whole: killed at any point and begun again, it writes the same bytes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gigamask.geometry import Box
from gigamask.manifest import NO_DATA
from gigamask.plan import Region
from gigamask.pyramid.arrays import LevelReader, Pixels
from gigamask.pyramid.mask import RAW, MaskWriter
from gigamask.sieve import reach_px, sieve

BLOCK_PX = 1024
_REMOVED = f"{RAW}.removed"


def sieve_mask(
    raw: Path, mask: MaskWriter, min_object_px: int, progress: Callable[[float], None] = lambda fraction: None
) -> dict[int, int]:
    """raw: the folder that regions wrote into. label -> pixels of level 0 of what is written. progress: in [0, 1].

    Raises FileNotFoundError where another worker, who took this work over, has ended it and removed `raw`.
    """
    labels, areas = LevelReader(raw / "0"), Counter[int]()
    for region in mask.plan.regions():
        found = _sieve_region(labels, region, mask.plan.shape, min_object_px)
        _require_whole(raw)
        if (found != NO_DATA).any():
            mask.write_region(region, found)
        counts = np.bincount(found.ravel(), minlength=NO_DATA + 1)
        areas.update({label: int(count) for label, count in enumerate(counts) if count})
        progress((region.index + 1) / mask.plan.region_count)
    return dict(areas)


def _require_whole(raw: Path) -> None:
    """What is missing reads as no data: raw labels go by one rename, so what was read is right if they are there."""
    if not raw.exists():
        raise FileNotFoundError(f"{raw} was removed while small objects were taken from it")


def _sieve_region(labels: LevelReader, region: Region, shape: tuple[int, int], min_object_px: int) -> Pixels:
    """(h, w) of region.box"""
    box = region.box
    found = labels.read(box.slices)
    for y in range(box.y0, box.y1, BLOCK_PX):
        for x in range(box.x0, box.x1, BLOCK_PX):
            block = Box(y, x, min(y + BLOCK_PX, box.y1), min(x + BLOCK_PX, box.x1))
            at = block.within(box).slices
            if (found[at] != NO_DATA).any():
                window = block.grow(reach_px(min_object_px)).clip(shape)
                found[at] = sieve(labels.read(window.slices), min_object_px, block.within(window))
    return found


def remove_raw(root: Path) -> None:
    """root: of the unfinished tree. They are gone as a whole first, then file by file."""
    removed = root / _REMOVED
    shutil.rmtree(removed, ignore_errors=True)
    if (root / RAW).exists():
        (root / RAW).rename(removed)
        shutil.rmtree(removed)
