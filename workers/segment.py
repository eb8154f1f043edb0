"""Regions through a predictor: while one is predicted, the next is read and the last is written.

One implementation for the queue's worker and for a run in one process: they differ in where work comes from and in what
is done with an outcome.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigamask.manifest import NO_DATA
from gigamask.plan import Region
from gigamask.pyramid.arrays import Pixels
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskWriter
from gigamask.pyramid.probabilities import ProbabilityWriter
from gigamask.pyramid.working import read_working, spread
from gigamask.selection import Selection
from model.predictors import RegionPredictor

Outcome = NDArray[np.int64] | None
"""Pixels of the region by label, (256,), 255 = no data; or SKIPPED: no pixel is to be labelled, nothing is written."""

SKIPPED: Outcome = None


def areas_of(region: Region, outcome: Outcome) -> dict[int, int]:
    """label -> pixels of the region"""
    if outcome is None:
        return {NO_DATA: region.box.height * region.box.width}
    return {label: int(count) for label, count in enumerate(outcome) if count}


@dataclass(frozen=True, slots=True)
class RegionWork:
    """token: the caller's own, handed back with the outcome. selection: None = all. probabilities: None = none."""

    region: Region
    image: ImagePyramid
    mask: MaskWriter
    predictor: RegionPredictor
    token: Any = None
    selection: Selection | None = None
    probabilities: ProbabilityWriter | None = None

    @property
    def scale(self) -> float:
        return self.mask.plan.scale


Done = Callable[[RegionWork, Outcome], None]
Failed = Callable[[RegionWork, Exception], None]


@dataclass(slots=True)
class StageSeconds:
    """Time at work, not waiting. The stages overlap, so their sum may exceed the time that passed."""

    read: float = 0.0
    predict: float = 0.0
    write: float = 0.0


@dataclass(frozen=True, slots=True)
class _Window:
    """region: with the tiles that are run. pixels: (C, h, w) of its window. kept: (h, w) of its box: is labelled."""

    region: Region
    pixels: Pixels
    kept: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _InHand:
    """window: None where nothing is to be labelled. labels: (h, w), probabilities: (K, h, w), of the region's work."""

    work: RegionWork
    window: _Window | None = None
    labels: Pixels | None = None
    probabilities: Pixels | None = None
    error: Exception | None = None


class _End:
    """Work has run out."""


def segment(work: Iterable[RegionWork | None], done: Done, failed: Failed) -> StageSeconds:
    """Segment what `work` yields, in order; at most three regions are in hand.

    work: pulled in a thread of its own, one ahead. It may block, and may yield None while it waits.
    done, failed: called one at a time, in order, in another thread; `failed` for any error of a region, after which
    the next one has its turn. What `work`, `done` or `failed` raise ends everything and is raised here, with no thread
    left.
    """
    seconds, items = StageSeconds(), iter(work)
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        coming = reader.submit(_read_next, items, seconds)
        writing = writer.submit(lambda: None)
        while not isinstance(loaded := coming.result(), _End):
            coming = reader.submit(_read_next, items, seconds)
            if loaded is not None:
                predicted = _predict(loaded, seconds)
                writing.result()
                writing = writer.submit(_finish, predicted, done, failed, seconds)
            elif writing.done():
                writing.result()
        writing.result()
    return seconds


def _read_next(items: Iterator[RegionWork | None], seconds: StageSeconds) -> _InHand | _End | None:
    try:
        work = next(items)
    except StopIteration:
        return _End()
    if work is None:
        return None
    started = time.perf_counter()
    try:
        return _InHand(work, window=_read(work))
    except Exception as exc:
        return _InHand(work, error=exc)
    finally:
        seconds.read += time.perf_counter() - started


def _read(work: RegionWork) -> _Window | None:
    region, kept = work.region, np.ones(work.region.box.shape, np.bool_)
    if work.selection:
        region, kept = work.selection.narrow(region), work.selection.kept(region)
    if not region.tiles or not kept.any():
        return None
    pixels = read_working(work.image, region.window, work.scale)
    if len(pixels) == 4:
        kept &= _validity(work, region, pixels)
    return _Window(region, pixels, kept) if kept.any() else None


def _validity(work: RegionWork, region: Region, pixels: Pixels) -> NDArray[np.bool_]:
    """(h, w) of the region's box, as level 0 has it."""
    box, window = region.box, region.window
    if work.scale == 1 and window.union(box) == window:
        valid = pixels[3][box.within(window).slices]
    else:
        valid = work.image.read(box)[3]
    found: NDArray[np.bool_] = valid > 0
    return found


def _predict(loaded: _InHand, seconds: StageSeconds) -> _InHand:
    work, window = loaded.work, loaded.window
    if window is None:
        return loaded
    started = time.perf_counter()
    try:
        if work.probabilities is None:
            return _InHand(work, window, work.predictor.predict(window.pixels[:3], window.region))
        labels, probabilities = work.predictor.predict_scored(window.pixels[:3], window.region)
        return _InHand(work, window, labels, probabilities)
    except Exception as exc:
        return _InHand(work, error=exc)
    finally:
        seconds.predict += time.perf_counter() - started


def _finish(predicted: _InHand, done: Done, failed: Failed, seconds: StageSeconds) -> None:
    started = time.perf_counter()
    try:
        if predicted.error:
            raise predicted.error
        outcome = _write(predicted)
    except Exception as exc:
        failed(predicted.work, exc)
        return
    finally:
        seconds.write += time.perf_counter() - started
    done(predicted.work, outcome)


def _write(predicted: _InHand) -> Outcome:
    work, window = predicted.work, predicted.window
    if window is None or predicted.labels is None:
        return SKIPPED
    labels = spread(predicted.labels, work.region, work.scale)
    labels = np.where(window.kept, labels, np.uint8(NO_DATA))
    work.mask.write_region(work.region, labels)
    if work.probabilities is not None and predicted.probabilities is not None:
        probabilities = spread(predicted.probabilities, work.region, work.scale)
        np.multiply(probabilities, window.kept, out=probabilities)
        work.probabilities.write_region(work.region, probabilities)
    return np.bincount(labels.ravel(), minlength=256)
