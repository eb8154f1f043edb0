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
from model.predictors import RegionPredictor

Outcome = NDArray[np.int64] | None
"""Pixels of the region by label, (256,), 255 = no data; or SKIPPED: no pixel is valid, and nothing is written."""

SKIPPED: Outcome = None


def areas_of(region: Region, outcome: Outcome) -> dict[int, int]:
    """label -> pixels of the region"""
    if outcome is None:
        return {NO_DATA: region.box.height * region.box.width}
    return {label: int(count) for label, count in enumerate(outcome) if count}


@dataclass(frozen=True, slots=True)
class RegionWork:
    """token: the caller's own, handed back with the outcome."""

    region: Region
    image: ImagePyramid
    mask: MaskWriter
    predictor: RegionPredictor
    token: Any = None


Done = Callable[[RegionWork, Outcome], None]
Failed = Callable[[RegionWork, Exception], None]


@dataclass(slots=True)
class StageSeconds:
    """Time at work, not waiting. The stages overlap, so their sum may exceed the time that passed."""

    read: float = 0.0
    predict: float = 0.0
    write: float = 0.0


@dataclass(frozen=True, slots=True)
class _InHand:
    """window: (C, h, w) of the region's window; None where the region has no valid pixel. labels: (h, w) of its box."""

    work: RegionWork
    window: Pixels | None = None
    labels: Pixels | None = None
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


def _read(work: RegionWork) -> Pixels | None:
    window = work.image.read(work.region.window)
    return window if _validity(window, work.region).any() else None


def _validity(window: Pixels, region: Region) -> NDArray[np.bool_]:
    """(h, w) of the region's box."""
    if len(window) == 3:
        return np.ones(region.box.shape, np.bool_)
    rows, columns = region.box.within(region.window).slices
    return window[3, rows, columns] > 0


def _predict(loaded: _InHand, seconds: StageSeconds) -> _InHand:
    work, window = loaded.work, loaded.window
    if window is None:
        return loaded
    started = time.perf_counter()
    try:
        return _InHand(work, window, work.predictor.predict(window[:3], work.region))
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
    if predicted.window is None or predicted.labels is None:
        return SKIPPED
    work = predicted.work
    labels = np.where(_validity(predicted.window, work.region), predicted.labels, np.uint8(NO_DATA))
    work.mask.write_region(work.region, labels)
    return np.bincount(labels.ravel(), minlength=256)
