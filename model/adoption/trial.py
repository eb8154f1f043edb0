"""A wrapped graph on trial: held to the graph as it came, on pictures that are the same on every machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gigamask.errors import BadModel
from model.adoption.engine import Graph
from model.adoption.frame import Frame
from model.adoption.ports import ImagePort, loosen_batch
from model.adoption.reference import tile_scores, window
from model.adoption.wiring import Wiring

LEAST_AGREEMENT = 0.999  # of the labels: sums in another order turn the closest calls
_APART = 1e-3  # of the scores, relative to the largest
_BATCH_APART = 1e-4  # the same between a picture alone and in company
_GRAIN_PX = 16

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """agreement: share of labels that are the same before and after wrapping. seconds: for one tile, here."""

    agreement: float
    score_difference: float
    seconds: float


def trial_pictures(side: int) -> list[NDArray[np.uint8]]:
    """Two pictures (3, side, side): noise, and blocks of colour."""
    rng = np.random.default_rng(20240)
    noise = rng.integers(0, 256, (3, side, side), np.uint8)
    cells = -(-side // _GRAIN_PX)
    blocks = rng.integers(0, 256, (3, cells, cells), np.uint8)
    return [noise, blocks.repeat(_GRAIN_PX, axis=1).repeat(_GRAIN_PX, axis=2)[:, :side, :side].copy()]


def free_batch(
    model: onnx.ModelProto, image: ImagePort, output: str, fed: list[NDArray[Any]], raw: list[NDArray[Any]]
) -> onnx.ModelProto | None:
    """The graph for any batch, where two pictures at once give what each gave alone; else None."""
    loose = loosen_batch(model, image)
    try:
        (both,) = Graph(loose).run([output], {image.name: np.concatenate(fed)})
    except BadModel:
        return None
    alone = np.concatenate(raw)
    return loose if both.shape == alone.shape and _apart(both, alone) <= _BATCH_APART else None


def hold_to_original(
    wrapped: onnx.ModelProto, original: Graph, wiring: Wiring, threads: int, *, any_batch: bool
) -> Verdict:
    """Raises BadModel where wrapping changed the answer."""
    trials = list(_trials(wiring.frame))
    served, same, apart, seconds = Graph(wrapped, threads), list[float](), list[float](), list[float]()
    for inputs in trials:
        started = time.perf_counter()
        served.run(["labels"], inputs)
        seconds.append(time.perf_counter() - started)
        labels, scores = served.run(["labels", "scores"], inputs)
        expected, expected_scores = _told_twice(inputs, original, wiring)
        same.append(float((labels[0] == expected).mean()))
        apart.append(_apart(scores[0], expected_scores))
    if not (min(same) >= LEAST_AGREEMENT and np.max(apart) <= _APART):
        raise BadModel(
            f"wrapped, the graph gives the same label for {min(same):.3%} of the pixels and scores"
            f" apart by {np.max(apart):.1e}, expected {LEAST_AGREEMENT:.1%} and {_APART:.0e}"
        )
    if any_batch:
        _require_any_company(served, trials[0], trials[-1])
    return Verdict(float(np.mean(same)), float(np.max(apart)), min(seconds))


def _require_any_company(served: Graph, one: Arrays, other: Arrays) -> None:
    """Raises BadModel where two tiles at once get other labels than each alone."""
    alone = [served.run(["labels"], inputs)[0] for inputs in (one, other)]
    both = served.run(["labels"], {name: np.concatenate([one[name], other[name]]) for name in one})[0]
    same = float((both == np.concatenate(alone)).mean())
    if same < LEAST_AGREEMENT:
        raise BadModel(f"wrapped, two tiles at once get {same:.3%} of their labels, expected {LEAST_AGREEMENT:.1%}")


def _trials(frame: Frame) -> Iterator[Arrays]:
    """Inputs of the served form: each picture with its tile in the middle, in a corner, at one border."""
    last = frame.surround_px - frame.tile_px
    places = [(0, 0)] if frame.whole else [(last // 2, last // 2), (0, last), (last // 2, 0)]
    for picture, (y, x) in product(trial_pictures(frame.surround_px), places):
        local = np.ascontiguousarray(picture[None, :, y : y + frame.tile_px, x : x + frame.tile_px])
        rest: Arrays = {} if frame.whole else {"surround": picture[None], "offset": np.array([(y, x)], np.int32)}
        yield {"local": local, **rest}


def _told_twice(inputs: Arrays, original: Graph, wiring: Wiring) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    def run(fed: NDArray[Any]) -> NDArray[Any]:
        return original.run([wiring.map.name], {wiring.image.name: fed})[0]

    if wiring.frame.whole:
        return tile_scores(run, inputs["local"][0], (0, 0), wiring)
    y, x = inputs["offset"][0]
    return tile_scores(run, *window(inputs["surround"][0], (int(y), int(x)), wiring.frame), wiring)


def _apart(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference, relative to the largest value or 1."""
    a, b = found.astype(np.float64), expected.astype(np.float64)
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))
