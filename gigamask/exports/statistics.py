"""How much of each class there is: in the whole image, and in each area of a region of interest, as JSON and CSV.

Figures of the whole image are those that were published with the mask; areas are counted block by block at level 0.
A share is of what is labelled: pixels without data count for nothing. Where the job told tissue from glass, there is
a share of the tissue besides, counted at the level where tissue was told: of the area's tissue, so much is the class.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gigamask.exports.catalog import ExportOptions, Progress
from gigamask.geometry import Box, level_shape
from gigamask.image_info import ImageInfo
from gigamask.manifest import NO_DATA
from gigamask.pyramid.ngff import physical_area, software_version
from gigamask.pyramid.result import Result
from gigamask.roi import Roi, inside, roi_in_pixels, touches
from gigamask.tissue import Tissue, find_tissue

BLOCK_PX = 2048
WHOLE = "whole image"

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Share:
    """One class in one area. of_labelled, of_tissue: in [0, 1]; None where there is nothing to be a share of."""

    id: int
    name: str
    area_px: int
    physical: dict[str, float]
    of_labelled: float | None
    of_tissue: float | None


@dataclass(frozen=True, slots=True)
class Measured:
    """physical: {"area_um2": ...} or {"area_m2": ...} or {}, of what is labelled."""

    name: str
    kind: Literal["image", "region"]
    labelled_px: int
    no_data_px: int
    physical: dict[str, float]
    classes: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    tissue: Tissue | None
    areas: tuple[Measured, ...]


def measure(result: Result, roi: Roi | None = None, progress: Progress = lambda fraction: None) -> Statistics:
    """roi: areas to be measured besides the whole; None = those of the job, if any. Raises InvalidOption."""
    tissue = find_tissue(result.image) if _told_tissue(result) else None
    areas = [_measured(result, WHOLE, "image", _published(result), _in_tissue(result, tissue, None))]
    chosen = roi or _roi_of_the_job(result)
    parts = roi_in_pixels(chosen, result.info).areas if chosen else ()
    for done, area in enumerate(parts):
        part = Roi(areas=(area,))
        counts = _count(result, part, _part_of(progress, done, len(parts)))
        areas.append(_measured(result, area.name, "region", counts, _in_tissue(result, tissue, part)))
    return Statistics(tissue, tuple(areas))


def _part_of(progress: Progress, done: int, total: int) -> Progress:
    return lambda fraction: progress((done + fraction) / total)


def _told_tissue(result: Result) -> bool:
    selection = result.attributes["gigamask"].get("selection") or {}
    return selection.get("method") == "otsu-chroma"


def _roi_of_the_job(result: Result) -> Roi | None:
    found = result.provenance["options"].get("roi")
    return Roi.model_validate(found) if found else None


def _published(result: Result) -> Counts:
    """(256,) pixels of each label."""
    counts = np.zeros(NO_DATA + 1, np.int64)
    for entry in result.attributes["ome"]["image-label"]["properties"]:
        counts[entry["label-value"]] = entry["area_px"]
    return counts


def _count(result: Result, roi: Roi, progress: Progress) -> Counts:
    """(256,) pixels of each label inside."""
    counts = np.zeros(NO_DATA + 1, np.int64)
    blocks = list(_blocks(roi, result.shape))
    for done, box in enumerate(blocks, start=1):
        counts += np.bincount(result.labels(box)[inside(roi, box)], minlength=NO_DATA + 1)
        progress(done / len(blocks))
    return counts


def _blocks(roi: Roi, shape: tuple[int, int]) -> Iterator[Box]:
    """Those that the region of interest touches."""
    x0, y0, x1, y1 = roi.geometry.bounds
    around = Box(int(y0), int(x0), int(y1) + 1, int(x1) + 1).clip(shape)
    whole = around.snap(BLOCK_PX).clip(shape)
    for y in range(whole.y0, whole.y1, BLOCK_PX):
        for x in range(whole.x0, whole.x1, BLOCK_PX):
            box = Box(y, x, y + BLOCK_PX, x + BLOCK_PX).clip(shape)
            if touches(roi, box):
                yield box


def _in_tissue(result: Result, tissue: Tissue | None, roi: Roi | None) -> Counts | None:
    """(256,) pixels of each label in the tissue, at its level, which is small."""
    if tissue is None:
        return None
    box = Box(0, 0, *level_shape(result.shape, tissue.level))
    mask = tissue.mask & inside(roi, box, tissue.level) if roi else tissue.mask
    return np.bincount(result.labels(box, tissue.level)[mask], minlength=NO_DATA + 1)


def _measured(
    result: Result, name: str, kind: Literal["image", "region"], counts: Counts, in_tissue: Counts | None
) -> Measured:
    labelled = int(sum(counts[entry.id] for entry in result.legend.classes))
    classes = tuple(
        Share(
            entry.id,
            entry.name,
            int(counts[entry.id]),
            physical_area(int(counts[entry.id]), result.info),
            _share(counts[entry.id], labelled),
            None if in_tissue is None else _share(in_tissue[entry.id], in_tissue.sum()),
        )
        for entry in result.legend.classes
    )
    no_data = int(counts[NO_DATA])
    return Measured(name, kind, labelled, no_data, physical_area(labelled, result.info), classes)


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None


def write_json(result: Result, target: Path, options: ExportOptions, progress: Progress) -> None:
    """Raises InvalidOption."""
    found = measure(result, options.roi, progress)
    text = json.dumps(_document(result, found), indent=1, ensure_ascii=False)
    target.write_text(text + "\n", encoding="utf-8")


def _document(result: Result, found: Statistics) -> dict[str, Any]:
    info, tissue = result.info, found.tissue
    told = tissue and {name: getattr(tissue, name) for name in ("method", "threshold", "share", "level")}
    return {
        "image": {"width": info.width, "height": info.height, "pixel_size": info.pixel_size, "unit": info.unit},
        "model": {name: result.provenance["model"][name] for name in ("name", "version")},
        "software": f"gigamask {software_version()}",
        "tissue": told,
        "areas": [_area_document(area) for area in found.areas],
    }


def _area_document(area: Measured) -> dict[str, Any]:
    physical = {name.replace("area", "labelled"): size for name, size in area.physical.items()}
    return {
        "name": area.name,
        "kind": area.kind,
        "labelled_px": area.labelled_px,
        "no_data_px": area.no_data_px,
        **physical,
        "classes": [
            {"id": share.id, "name": share.name, "area_px": share.area_px}
            | share.physical
            | {"share_of_labelled": share.of_labelled, "share_of_tissue": share.of_tissue}
            for share in area.classes
        ],
    }


def write_csv(result: Result, target: Path, options: ExportOptions, progress: Progress) -> None:
    """One row an area and class; units are in the names of the columns. Raises InvalidOption."""
    found = measure(result, options.roi, progress)
    with target.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(_columns(result.info, found))
        rows.writerows(_row(area, share, found) for area in found.areas for share in area.classes)


def _columns(info: ImageInfo, found: Statistics) -> list[str]:
    tissue = ["share_of_tissue"] if found.tissue else []
    return ["area", "class_id", "class", "area_px", *physical_area(0, info), "share_of_labelled", *tissue]


def _row(area: Measured, share: Share, found: Statistics) -> list[Any]:
    sizes = [share.area_px, *share.physical.values(), share.of_labelled]
    return [_inert(area.name), share.id, _inert(share.name), *sizes, *([share.of_tissue] if found.tissue else [])]


def _inert(text: str) -> str:
    """A name that a spreadsheet would take for a formula is quoted, as OWASP advises (CSV injection)."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
