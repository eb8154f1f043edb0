"""A predictor against labelled pictures: how good, how seamless, how fast, in how much memory.

A picture is walked as the service would: regions of its plan, read by windows, one row of regions in memory at a time.
Regions without a single label that counts are left out, and not timed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from gigamask.errors import BadModel
from gigamask.geometry import Box
from gigamask.job import Overlap
from gigamask.manifest import MANIFEST_NAME, LabelClass
from gigamask.plan import Plan, Region, plan_regions
from model.data.pictures import IGNORE, Picture
from model.metrics import Bytes, Counts, check_ids, confusion, iou, mean_iou
from model.peak import PeakMemory
from model.predictors import RegionPredictor
from model.seams import LabelChanges, MovedGrid, SeamCounts, SeamScores, band

BUILDING = "building"  # Inria's "mIoU" in the literature is the IoU of this class alone (spec section 0.8)


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """confusion: (K, K) int64 over all pictures, [true, predicted]. The rates leave out the first region (warming up)
    where there are more, and the second pass that the seams need. Peaks are of this process, in MiB."""

    classes: tuple[str, ...]
    confusion: Counts
    seams: SeamScores | None
    predict_mp_per_s: float
    read_and_predict_mp_per_s: float
    peak_rss_mib: float
    peak_gpu_mib: float | None

    @property
    def iou(self) -> dict[str, float]:
        """nan for a class that is neither there nor predicted"""
        return dict(zip(self.classes, iou(self.confusion).tolist(), strict=True))

    @property
    def miou(self) -> float:
        return mean_iou(self.confusion)

    @property
    def building_iou(self) -> float | None:
        return next((score for name, score in self.iou.items() if name.lower() == BUILDING), None)

    def to_json(self) -> dict[str, Any]:
        """A dict for `json.dumps`; what is nan (nothing there to score) is null."""
        seams = asdict(self.seams) if self.seams else None
        return {
            "iou": {name: _rounded(score) for name, score in self.iou.items()},
            "miou": _rounded(self.miou),
            "building_iou": _rounded(self.building_iou),
            "seams": {name: _rounded(score, 5) for name, score in seams.items()} if seams else None,
            "predict_mp_per_s": _rounded(self.predict_mp_per_s),
            "read_and_predict_mp_per_s": _rounded(self.read_and_predict_mp_per_s),
            "peak_rss_mib": round(self.peak_rss_mib),
            "peak_gpu_mib": None if self.peak_gpu_mib is None else round(self.peak_gpu_mib),
            "pixels": int(self.confusion.sum()),
            "confusion": self.confusion.tolist(),
        }


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None or math.isnan(value) else round(value, digits)


def measure(
    pictures: Sequence[Picture],
    classes: Sequence[LabelClass],
    predictor: RegionPredictor,
    region_px: int,
    seams: bool = True,
    told: Callable[[float], None] = lambda fraction: None,
    overlap: Overlap = "none",
) -> Report:
    """Segment the pictures as the service would and compare with the truth. seams: a second pass, on a moved grid.

    told: called with the fraction done. Raises ValueError for no pictures and for labels that are no class, BadModel
    for a model of other classes, InvalidOption for a region that is no whole number of tiles.
    """
    if not pictures:
        raise ValueError("no pictures to judge: expected at least 1, got 0")
    names = tuple(c.name for c in classes)
    _check_classes(predictor, names)
    manifest = predictor.manifest
    plans = [plan_regions(picture.shape, manifest, region_px, overlap) for picture in pictures]
    memory, total = PeakMemory(), sum(plan.region_count for plan in plans)
    walk = _Walk(predictor, len(names), seams, lambda done: told(done / total))
    for picture, plan in zip(pictures, plans, strict=True):
        walk.measure_picture(picture, plan)
    predict, read_and_predict = walk.pace.rates()
    scores = walk.seams.scores() if seams else None
    return Report(names, walk.confusion, scores, predict, read_and_predict, memory.rss_mib(), memory.gpu_mib())


def _check_classes(predictor: RegionPredictor, expected: tuple[str, ...]) -> None:
    got = tuple(c.name for c in predictor.manifest.classes)
    if got != expected:
        told = f"its classes are {', '.join(got)}; the data set's are {', '.join(expected)}"
        raise BadModel(f"{predictor.manifest.name}/{MANIFEST_NAME}: {told}")


@dataclass(slots=True)
class _Pace:
    """(pixels, seconds reading, seconds predicting) of each region."""

    regions: list[tuple[int, float, float]] = field(default_factory=list)

    def rates(self) -> tuple[float, float]:
        """MP/s of prediction alone, and with reading; nan where no region counted."""
        if not self.regions:
            return math.nan, math.nan
        pixels, reading, predicting = np.sum(self.regions[1:] or self.regions, axis=0).tolist()
        return pixels / 1e6 / predicting, pixels / 1e6 / (reading + predicting)


class _Walk:
    """Over all pictures of a split, region by region, counting."""

    def __init__(self, predictor: RegionPredictor, classes: int, with_seams: bool, told: Callable[[int], None]) -> None:
        self.confusion: Counts = np.zeros((classes, classes), np.int64)
        self.seams = SeamCounts(classes)
        self.pace = _Pace()
        self._predictor, self._classes, self._with_seams = predictor, classes, with_seams
        self._told, self._done = told, 0

    def measure_picture(self, picture: Picture, plan: Plan) -> None:
        changes = LabelChanges(plan.tile_px), LabelChanges(plan.tile_px)
        moved = MovedGrid(plan)
        for y0, row in groupby(plan.regions(), key=lambda region: region.box.y0):
            truth, labels = self._segment_row(picture, list(row), plan)
            if self._with_seams:
                changes[0].add(y0, labels)
                changes[1].add(y0, truth)
                self._compare_grids(picture, moved.add(labels))
        self.seams.prediction += changes[0].counts
        self.seams.truth += changes[1].counts

    def _segment_row(self, picture: Picture, row: list[Region], plan: Plan) -> tuple[Bytes, Bytes]:
        """(h, W) truth and labels of one row of regions, both 255 where nothing counts."""
        frame = Box(row[0].box.y0, 0, row[0].box.y1, picture.shape[1])
        truth, labels = picture.labels(frame), np.full(frame.shape, IGNORE, np.uint8)
        counted = truth != IGNORE
        check_ids(truth[counted], self._classes, f"{picture.name}, rows {frame.y0} to {frame.y1}")
        for region in row:
            at = region.box.within(frame).slices
            if counted[at].any():
                predicted = self._predict_timed(picture, region)
                self._count(region.box, truth[at], predicted, plan)
                labels[at] = np.where(counted[at], predicted, IGNORE)
            self._done += 1
            self._told(self._done)
        return truth, labels

    def _predict_timed(self, picture: Picture, region: Region) -> Bytes:
        started = time.perf_counter()
        window = _read_window(picture, region.window)
        read = time.perf_counter()
        labels = self._predictor.predict(window, region)
        self.pace.regions.append((labels.size, read - started, time.perf_counter() - read))
        return labels

    def _count(self, box: Box, truth: Bytes, labels: Bytes, plan: Plan) -> None:
        if not self._with_seams:
            self.confusion += confusion(truth, labels, self._classes)
            return
        near = band(box, plan.shape, plan.tile_px)
        inside = confusion(truth[near], labels[near], self._classes)
        outside = confusion(truth[~near], labels[~near], self._classes)
        self.confusion += inside + outside
        self.seams.inside += inside
        self.seams.outside += outside

    def _compare_grids(self, picture: Picture, ready: Iterable[tuple[Region, Bytes]]) -> None:
        for region, labels in ready:
            if (labels != IGNORE).any():
                self.seams.compare(labels, self._predictor.predict(_read_window(picture, region.window), region))


def _read_window(picture: Picture, window: Box) -> Bytes:
    """(3, h, w)"""
    return np.ascontiguousarray(picture.pixels(window).transpose(2, 0, 1))
