"""From a graph and what is known of it to a wrapped graph, tried and held to the original; nothing is written here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gigamask.errors import BadModel, InvalidOption
from gigamask.manifest import LabelClass
from model.adoption import reference
from model.adoption.description import Channels, Description, Scaling, Sides, byte_range
from model.adoption.engine import Trial
from model.adoption.frame import LARGEST_TILE_PX, LEAST_TILE_PX, Frame, choose_frame
from model.adoption.maps import MapPort, guess_activation, read_map, require_activation, require_labels
from model.adoption.ports import ImagePort, choose_channels, choose_output, find_image, loosen_batch
from model.adoption.wrap import wrap

USUAL_TILE_PX = 512
USUAL_STEP_PX = 32  # five halvings
LEAST_AGREEMENT = 0.999  # of the labels: sums in another order turn the closest calls
_APART = 1e-3  # of the scores, relative to the largest
_GRAIN_PX = 16  # of the pictures of a trial


@dataclass(frozen=True, slots=True)
class Study:
    """model: the wrapped graph. assumptions: what nobody said and was taken to be so, each a sentence.

    agreement: share of labels that are the same before and after wrapping. seconds: for one tile, here.
    """

    model: onnx.ModelProto
    description: Description
    classes: tuple[LabelClass, ...]
    image: ImagePort
    map: MapPort
    frame: Frame
    scaling: Scaling
    channels: Channels
    any_batch: bool
    assumptions: tuple[str, ...]
    agreement: float
    score_difference: float
    seconds: float


def study(model: onnx.ModelProto, told: Description, threads: int = 0) -> Study:
    """Raises BadModel where the graph is no segmentation as told, InvalidOption where more must be told."""
    classes, notes = _classes(told), list[str]()
    image = find_image(model, told)
    channels = choose_channels(image, told)
    scaling = _scaling(told, image, notes)
    network_px = _side(told, image, notes)
    original = Trial(model, threads)
    output = choose_output(model, told.output_name)
    pictures = trial_pictures(network_px)
    fed = [reference.given(picture[None], image, scaling, channels) for picture in pictures]
    raw = [original.run([output], **{image.name: each})[0] for each in fed]
    map_ = _map(output, raw, classes, network_px, told, notes)
    frame = choose_frame(network_px, told.halo_px or 0, map_.crop_px)
    _note_frame(frame, told, notes)
    served, any_batch = _any_batch(model, image, output, fed, raw, threads)
    if not any_batch:
        notes.append("the graph takes one picture at a time: the wrapped one does too")
    wrapped = wrap(served, image, map_, frame, scaling, channels, len(classes), any_batch)
    found = Study(wrapped, told, classes, image, map_, frame, scaling, channels, any_batch, tuple(notes), 0.0, 0.0, 0.0)
    return _held_to_original(found, original, threads)


def trial_pictures(side: int) -> list[NDArray[np.uint8]]:
    """Two pictures (3, side, side) that are the same on every machine: noise, and blocks of colour."""
    rng = np.random.default_rng(20240)
    noise = rng.integers(0, 256, (3, side, side), np.uint8)
    cells = -(-side // _GRAIN_PX)
    blocks = rng.integers(0, 256, (3, cells, cells), np.uint8)
    return [noise, blocks.repeat(_GRAIN_PX, axis=1).repeat(_GRAIN_PX, axis=2)[:, :side, :side].copy()]


def _classes(told: Description) -> tuple[LabelClass, ...]:
    if not told.classes:
        raise InvalidOption('the classes are not known: --classes "background,tissue"')
    if len(told.classes) < 2:
        raise InvalidOption(f"a mask has two classes or more, such as background,{told.classes[0].name}")
    return told.classes


def _scaling(told: Description, image: ImagePort, notes: list[str]) -> Scaling:
    if told.scaling is not None:
        return told.scaling
    if np.dtype(image.dtype) == np.uint8:
        return Scaling()
    notes.append("nobody said how pixels are normalised: 0..255 becomes 0..1 (--range, --mean and --std say otherwise)")
    return byte_range(0, 1)


def _side(told: Description, image: ImagePort, notes: list[str]) -> int:
    """What the network sees: its fixed side, or a tile with its halo around it."""
    fixed = image.side_px or told.network_px
    if fixed is not None:
        if told.tile_px not in (None, fixed):
            raise BadModel(f"the graph takes pictures of {fixed} px alone, not tiles of {told.tile_px}")
        return _bounded(fixed)
    if told.tile_px is None:
        notes.append(f"nobody said how large a tile is: {USUAL_TILE_PX} px (--tile says otherwise)")
    tile_px, halo_px = _bounded(told.tile_px or USUAL_TILE_PX), told.halo_px or 0
    sides = told.sides or (Sides(tile_px, USUAL_STEP_PX) if halo_px else None)
    return sides.round_up(tile_px + 2 * halo_px) if sides else tile_px


def _bounded(side: int) -> int:
    if not LEAST_TILE_PX <= side <= LARGEST_TILE_PX:
        raise BadModel(f"a tile has {LEAST_TILE_PX} to {LARGEST_TILE_PX} px, not {side}")
    return side


def _map(
    output: str,
    raw: Sequence[NDArray[Any]],
    classes: Sequence[LabelClass],
    network_px: int,
    told: Description,
    notes: list[str],
) -> MapPort:
    map_ = read_map(output, raw[0], len(classes), network_px)
    planes = [map_.planes(each) for each in raw]
    if not all(np.isfinite(plane).all() for plane in planes):
        raise BadModel(f"output {output!r} gives values that are no numbers: look at --range, --mean and --std")
    if map_.labels:
        require_labels(planes, len(classes), output)
        return _without_threshold(map_, told)
    activation = told.activation
    if activation is None:
        activation = guess_activation(planes, map_.foreground)
        notes.append(f"nobody said what the graph ends with: its values look like {_WORDS[activation]} (--activation)")
    require_activation(planes, activation, output)
    if map_.foreground and activation == "softmax":
        raise BadModel(f"softmax over {map_.channels} channels leaves none for the first of {len(classes)} classes")
    if map_.foreground:
        names = ", ".join(entry.name for entry in classes[1:])
        notes.append(f"{map_.channels} channel(s) for {len(classes)} classes: {names}; else {classes[0].name}")
    threshold = 0.5 if told.threshold is None else told.threshold
    return _without_threshold(replace(map_, activation=activation, threshold=threshold), told)


_WORDS = {
    "none": "raw scores",
    "sigmoid": "probabilities (sigmoid)",
    "softmax": "probabilities that sum to 1 (softmax)",
}


def _without_threshold(map_: MapPort, told: Description) -> MapPort:
    if told.threshold is None:
        return map_
    if not map_.foreground:
        raise InvalidOption(
            "a threshold is for a graph that has no channel for the first class; the largest score wins"
        )
    if not 0 < told.threshold < 1:
        raise InvalidOption(f"a threshold is a probability between 0 and 1, not {told.threshold:g}")
    return map_


def _note_frame(frame: Frame, told: Description, notes: list[str]) -> None:
    """Silent where the tile is what was asked for, and the rest its halo."""
    if not frame.whole and not (told.halo_px and frame.tile_px == told.tile_px):
        notes.append(
            f"the network sees {frame.network_px} px and the middle {frame.tile_px} are kept (a tile is a power of two)"
        )
    if frame.crop_px:
        notes.append(
            f"the map lacks {frame.crop_px} px on each side: beyond the image the network is shown a mirror image"
        )


def _any_batch(
    model: onnx.ModelProto,
    image: ImagePort,
    output: str,
    fed: Sequence[NDArray[Any]],
    raw: Sequence[NDArray[Any]],
    threads: int,
) -> tuple[onnx.ModelProto, bool]:
    """The graph with its batch set free, where two pictures at once give what each gives alone."""
    loose = loosen_batch(model, image)
    try:
        both = Trial(loose, threads).run([output], **{image.name: np.concatenate(fed)})[0]
    except BadModel:
        return model, False
    alone = np.concatenate(raw)
    if both.shape != alone.shape or not _close(both.astype(np.float64), alone.astype(np.float64)):
        return model, False
    return loose, True


def _held_to_original(found: Study, original: Trial, threads: int) -> Study:
    """The same with its figures. Raises BadModel where wrapping changed the answer."""
    served, frame, k = Trial(found.model, threads), found.frame, len(found.classes)
    same, apart, seconds = [], 0.0, []
    for picture, offset in product(trial_pictures(frame.surround_px), offsets(frame)):
        inputs = served_inputs(picture, offset, frame)
        started = time.perf_counter()
        served.run(["labels"], **inputs)
        seconds.append(time.perf_counter() - started)
        labels, scores = served.run(["labels", "scores"], **inputs)
        window, place = reference.window(picture, offset, frame)
        expected, expected_scores = reference.tile_scores(
            lambda fed: original.run([found.map.name], **{found.image.name: fed})[0],
            window,
            place,
            found.map,
            frame,
            k,
            lambda pixels: reference.given(pixels, found.image, found.scaling, found.channels),
        )
        same.append(float((labels[0] == expected).mean()))
        apart = max(apart, float(np.abs(scores[0] - expected_scores).max() / max(1.0, np.abs(expected_scores).max())))
    if min(same) < LEAST_AGREEMENT or apart > _APART:
        raise BadModel(
            f"wrapped, the graph gives the same label for {min(same):.3%} of the pixels and scores"
            f" apart by {apart:.1e}, expected {LEAST_AGREEMENT:.1%} and {_APART:.0e}"
        )
    return replace(found, agreement=float(np.mean(same)), score_difference=apart, seconds=float(min(seconds)))


def offsets(frame: Frame) -> list[tuple[int, int]]:
    """Places (y, x) of a tile in its surround: in the middle, in a corner, at one border."""
    if frame.whole:
        return [(0, 0)]
    last = frame.surround_px - frame.tile_px
    return [(last // 2, last // 2), (0, last), (last // 2, 0)]


def served_inputs(picture: NDArray[np.uint8], offset: tuple[int, int], frame: Frame) -> dict[str, NDArray[Any]]:
    """picture: (3, S, S), a surround (or the tile, where there is none)."""
    y, x = offset
    local = np.ascontiguousarray(picture[None, :, y : y + frame.tile_px, x : x + frame.tile_px])
    if frame.whole:
        return {"local": local}
    return {"local": local, "surround": picture[None], "offset": np.array([offset], np.int32)}


def _close(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return bool(np.abs(a - b).max() <= 1e-4 * max(1.0, float(np.abs(b).max())))
