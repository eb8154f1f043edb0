"""What the wrapped graph must give, told a second time in numpy around the graph as it came.

Written apart from `wrap`, so that an error in one is seen in the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from model.adoption.description import Channels, Scaling
from model.adoption.frame import Frame
from model.adoption.maps import MapPort
from model.adoption.ports import ImagePort
from model.adoption.wiring import Wiring

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def given(pixels: NDArray[Any], image: ImagePort, scaling: Scaling, channels: Channels) -> NDArray[Any]:
    """(B, 3, h, w) RGB in 0..255 -> what the graph is fed."""
    values = pixels.astype(np.float32)
    if channels == "bgr":
        values = values[:, ::-1]
    if channels == "grey":
        values = (values * np.array([0.299, 0.587, 0.114], np.float32)[None, :, None, None]).sum(axis=1, keepdims=True)
    even = scaling.over(image.channels)
    gain, shift = (np.array(part, np.float32)[None, :, None, None] for part in (even.gain, even.shift))
    scaled = values * gain + shift
    return image.lay(np.rint(scaled) if np.dtype(image.dtype) == np.uint8 else scaled)


def window(surround: Pixels, offset: tuple[int, int], frame: Frame) -> tuple[Pixels, tuple[int, int]]:
    """surround: (3, S, S). The network's window, and the tile's place (y, x) in it."""
    n = frame.network_px
    if frame.crop_px:
        edge = min(n, frame.surround_px - 1)
        mirrored = np.pad(surround, ((0, 0), (edge, edge), (edge, edge)), mode="reflect")
        y, x = (o + edge - frame.margin_px for o in offset)
        return mirrored[:, y : y + n, x : x + n], (frame.margin_px, frame.margin_px)
    y, x = (min(max(o - frame.margin_px, 0), frame.surround_px - n) for o in offset)
    return surround[:, y : y + n, x : x + n], (offset[0] - y, offset[1] - x)


def tile_scores(
    run: Callable[[NDArray[Any]], NDArray[Any]], found: Pixels, place: tuple[int, int], wiring: Wiring
) -> tuple[Pixels, Floats]:
    """found: (3, n, n), the window; place: of the tile in it -> labels (t, t), scores (K, t, t)"""
    map_, t = wiring.map, wiring.frame.tile_px
    planes = map_.planes(run(given(found[None], wiring.image, wiring.scaling, wiring.channels)))[0]
    y, x = (p - wiring.frame.crop_px for p in place)
    full = enlarged(planes, map_)[:, y : y + t, x : x + t]
    if map_.labels:
        return labels_alone(full[0].astype(np.int64), wiring.classes)
    scores = logits(full.astype(np.float64), map_)
    return scores.argmax(axis=0).astype(np.uint8), scores.astype(np.float32)


def enlarged(planes: NDArray[Any], map_: MapPort) -> NDArray[Any]:
    """(C, h, w) -> (C, n, n)"""
    r = map_.reduction
    if r == 1:
        return planes
    if map_.labels:
        return planes.repeat(r, axis=1).repeat(r, axis=2)
    # grid_mode with the edge repeated is the half-pixel rule of Resize
    larger: NDArray[np.float64] = zoom(planes.astype(np.float64), (1, r, r), order=1, mode="nearest", grid_mode=True)
    return larger


def labels_alone(found: NDArray[np.int64], classes: int) -> tuple[Pixels, Floats]:
    known = (found >= 0) & (found < classes)
    scores = np.where(np.arange(classes)[:, None, None] == found, 16.0, 0.0)
    return np.where(known, found, 255).astype(np.uint8), scores.astype(np.float32)


def logits(planes: NDArray[np.float64], map_: MapPort) -> NDArray[np.float64]:
    """As wrap._logits: the same floor under a probability."""
    sure, rest = (np.clip(part, 1e-30, 1) for part in (planes, 1 - planes))
    if map_.activation != "none" and not map_.foreground:
        return np.log(sure)
    if map_.activation == "sigmoid":
        planes = np.log(sure) - np.log(rest)
    if not map_.foreground:
        return planes
    odds = np.log(map_.threshold / (1 - map_.threshold))
    return np.concatenate([np.zeros_like(planes[:1]), planes - odds])
