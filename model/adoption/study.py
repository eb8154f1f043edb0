"""From a graph and what is known of it to a wrapped graph, tried and held to the original; nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from gigamask.errors import BadModel, InvalidOption
from gigamask.manifest import LabelClass
from model.adoption.description import USUAL_TILE_PX, Description, Scaling, byte_range
from model.adoption.engine import Graph
from model.adoption.frame import LARGEST_TILE_PX, LEAST_TILE_PX, Frame, choose_frame
from model.adoption.maps import MapPort, guess_activation, read_map, require_activation, require_labels
from model.adoption.ports import ImagePort, choose_channels, choose_output, find_image
from model.adoption.reference import given
from model.adoption.trial import Verdict, free_batch, hold_to_original, trial_pictures
from model.adoption.wiring import Wiring
from model.adoption.wrap import wrap


@dataclass(frozen=True, slots=True)
class Study:
    """model: the wrapped graph. any_batch: it takes any number of pictures at once. assumptions: what nobody said and
    was taken to be so, each a sentence.
    """

    model: onnx.ModelProto
    description: Description
    classes: tuple[LabelClass, ...]
    wiring: Wiring
    any_batch: bool
    assumptions: tuple[str, ...]
    verdict: Verdict


def study(model: onnx.ModelProto, told: Description, threads: int = 0) -> Study:
    """Raises BadModel where the graph is no segmentation as told, InvalidOption where more must be told."""
    classes, notes = _classes(told), list[str]()
    image, original = find_image(model, told), Graph(model, threads)
    channels, scaling, network_px = (
        choose_channels(image, told),
        _scaling(told, image, notes),
        _side(told, image, notes),
    )
    output = choose_output(model, told.output_name)
    fed = [given(picture[None], image, scaling, channels) for picture in trial_pictures(network_px)]
    raw = [original.run([output], {image.name: each})[0] for each in fed]
    map_ = _map(output, raw, classes, network_px, told, notes)
    frame = choose_frame(network_px, told.halo_px or 0, map_.crop_px)
    _note_frame(frame, told, notes)
    loose = free_batch(model, image, output, fed, raw)
    if loose is None:
        notes.append("the graph takes one picture at a time: the wrapped one does too")
    wiring = Wiring(image, map_, frame, scaling, channels, len(classes))
    wrapped = wrap(loose or model, wiring, any_batch=loose is not None)
    verdict = hold_to_original(wrapped, original, wiring, threads, any_batch=loose is not None)
    return Study(wrapped, told, classes, wiring, loose is not None, tuple(notes), verdict)


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
    if fixed is not None and told.tile_px not in (None, fixed) and fixed != told.seen_px:
        raise BadModel(f"the graph takes pictures of {fixed} px alone, not tiles of {told.tile_px}")
    if fixed is None and told.tile_px is None:
        notes.append(f"nobody said how large a tile is: {USUAL_TILE_PX} px (--tile says otherwise)")
    _require_tile(fixed or told.tile_px or USUAL_TILE_PX)
    return fixed or told.seen_px


def _require_tile(side: int) -> None:
    if not LEAST_TILE_PX <= side <= LARGEST_TILE_PX:
        raise BadModel(f"a tile has {LEAST_TILE_PX} to {LARGEST_TILE_PX} px, not {side}")


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
