"""What a graph's output means: scores or labels, on which axes, at what size, after which activation.

scores of K classes                   (B, K, h, w)
scores of the classes but the first   (B, K-1, h, w), label 0 where none is over the threshold; (B, h, w) for one
labels                                (B, h, w) or (B, 1, h, w), integer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigamask.errors import BadModel
from model.adoption.description import Activation

_SLACK = 1e-3  # of probabilities that were computed in half precision


@dataclass(frozen=True, slots=True)
class MapPort:
    """reduction: pixels of the network for one of the map. crop_px: what the map lacks on each side.

    foreground: its channels are the classes from 1 on. threshold: the probability over which one of them is taken.
    """

    name: str
    labels: bool
    flat: bool
    channels_last: bool
    channels: int
    reduction: int = 1
    crop_px: int = 0
    foreground: bool = False
    activation: Activation = "none"
    threshold: float = 0.5

    def planes(self, found: NDArray[Any]) -> NDArray[Any]:
        """As the graph gives it -> (B, channels, h, w)"""
        if self.flat:
            return found[:, None]
        return found.transpose(0, 3, 1, 2) if self.channels_last else found


def read_map(name: str, found: NDArray[Any], classes: int, network_px: int) -> MapPort:
    """found: what the graph gave for one picture of network_px. Raises BadModel with expected and got."""
    expected = f"expected (1, {classes}, h, w) or labels (1, h, w) for a picture of {network_px} px"
    if found.ndim not in (3, 4) or found.shape[0] != 1 or min(found.shape[-2:]) < 1:
        raise BadModel(f"output {name!r} is {found.shape}, no map of the picture: {expected}")
    labels = found.dtype.kind in "iub"
    counts = (1,) if labels else (classes, classes - 1)
    last = found.ndim == 4 and found.shape[1] not in counts and found.shape[3] in counts
    channels, height, width = _axes(found, last)
    if channels not in counts:
        raise BadModel(f"output {name!r} has {channels} channels {found.shape}, not the {classes} classes: {expected}")
    if height != width or (height < 2 and network_px > 2):
        raise BadModel(f"output {name!r} is {height} x {width} {found.shape}, no map of the picture: {expected}")
    reduction, crop_px = _sizes(name, height, network_px)
    foreground = not labels and channels == classes - 1
    return MapPort(name, labels, found.ndim == 3, last, channels, reduction, crop_px, foreground)


def guess_activation(planes: Sequence[NDArray[Any]], foreground: bool) -> Activation:
    """From the values of a few pictures' scores, (1, C, h, w) each."""
    values = [plane.astype(np.float64) for plane in planes]
    if min(v.min() for v in values) < 0 or max(v.max() for v in values) > 1 + _SLACK:
        return "none"
    sums_to_one = all(np.abs(v.sum(axis=1) - 1).max() < _SLACK for v in values)
    return "softmax" if sums_to_one and not foreground else "sigmoid"


def require_activation(planes: Sequence[NDArray[Any]], activation: Activation, name: str) -> None:
    """Raises BadModel where the values cannot be what they are said to be."""
    if activation == "none":
        return
    low, high = min(float(p.min()) for p in planes), max(float(p.max()) for p in planes)
    if low < -_SLACK or high > 1 + _SLACK:
        raise BadModel(f"after {activation} values lie in 0..1; output {name!r} gives {low:g}..{high:g}: try none")


def require_labels(planes: Sequence[NDArray[Any]], classes: int, name: str) -> None:
    """Raises BadModel for labels that no class has."""
    found = sorted({int(v) for plane in planes for v in np.unique(plane)})
    if found[0] < 0 or found[-1] >= classes:
        raise BadModel(f"output {name!r} gives the labels {found[:8]}, expected 0..{classes - 1}")


def _axes(found: NDArray[Any], last: bool) -> tuple[int, int, int]:
    if found.ndim == 3:
        return 1, found.shape[1], found.shape[2]
    return (found.shape[3], found.shape[1], found.shape[2]) if last else found.shape[1:]


def _sizes(name: str, side: int, network_px: int) -> tuple[int, int]:
    """(reduction, crop) of a map of that side. A small part of the size is a coarser map, a large part a crop."""
    if network_px % side == 0:
        return network_px // side, 0
    lacking = network_px - side
    if lacking > 0 and lacking % 2 == 0 and side * 2 > network_px:
        return 1, lacking // 2
    raise BadModel(
        f"output {name!r} is {side} px of a picture of {network_px} px:"
        " expected the same, a whole part of it, or an even number of pixels less"
    )
