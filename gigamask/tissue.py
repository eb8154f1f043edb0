"""Where a slide has tissue, told from its glass at low resolution.

Stains have colour and glass has none, so tissue is where the chroma (max - min of RGB, 0..255), averaged over SMOOTH_PX
x SMOOTH_PX pixels, is over a threshold: Otsu's, which parts the pixels into the two classes whose means lie furthest
apart (N. Otsu, IEEE Trans. SMC 9, 1979), held to [LEAST, MOST]. Under LEAST lies what cameras and JPEG make of white,
so a blank slide is all background; over MOST no glass is coloured, so a slide that is stained all over is all tissue.
Then islands of tissue under ISLAND_PX pixels become background and holes under HOLE_PX tissue.

An image that lies on the Earth has grey roofs and white snow, which are no glass: of it, all that has data is kept.
Pixels without data are background always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box, level_shape
from gigamask.pyramid.image import ImagePyramid

LONGEST_PX = 2048
SMOOTH_PX = 5
LEAST, MOST = 12, 40
ISLAND_PX, HOLE_PX = 16, 64

Mask = NDArray[np.bool_]
Method = Literal["otsu-chroma", "validity"]


@dataclass(frozen=True, slots=True)
class Tissue:
    """mask: (h, w) of `level`. threshold: tissue has a chroma over it; 0 by method `validity`.

    share: of the image's pixels, those without data included.
    """

    level: int
    threshold: int
    method: Method
    share: float
    mask: Mask


def find_tissue(image: ImagePyramid) -> Tissue:
    """On the finest level whose longest side is at most LONGEST_PX: a second of time, and 100 MB at most."""
    level = next(k for k in range(image.levels) if max(level_shape(image.info.shape, k)) <= LONGEST_PX)
    pixels = image.read(Box(0, 0, *level_shape(image.info.shape, level)), level)
    valid = pixels[3] > 0 if len(pixels) == 4 else np.ones(pixels.shape[1:], np.bool_)
    if image.info.georeference is not None or image.info.unit == "meter":
        return Tissue(level, 0, "validity", float(valid.mean()), valid)
    chroma = _smooth_chroma(pixels[:3], valid)
    threshold = min(max(otsu_threshold(np.bincount(chroma[valid], minlength=256)), LEAST), MOST)
    mask = _without_specks((chroma > threshold) & valid) & valid
    return Tissue(level, threshold, "otsu-chroma", float(mask.mean()), mask)


def _smooth_chroma(colors: NDArray[np.uint8], valid: Mask) -> NDArray[np.uint8]:
    """colors: (3, h, w). (h, w): the mean over a square of what has data in it, rounded down."""
    from scipy.ndimage import uniform_filter

    chroma = np.where(valid, colors.max(axis=0) - colors.min(axis=0), 0)
    total = uniform_filter(chroma.astype(np.float32), SMOOTH_PX, mode="nearest")
    share = uniform_filter(valid.astype(np.float32), SMOOTH_PX, mode="nearest")
    found: NDArray[np.uint8] = np.clip(total / np.maximum(share, 1e-3) + 1e-3, 0, 255).astype(np.uint8)
    return found


def otsu_threshold(counts: NDArray[np.int64]) -> int:
    """counts: (256,) pixels of each value. t: the classes are [0, t] and (t, 255]; 0 where all pixels are alike.

    t maximises w0 w1 (m0 - m1)^2, the variance between the classes: the smallest of equals.
    """
    values = np.arange(len(counts))
    weight0, sum0 = np.cumsum(counts).astype(np.float64), np.cumsum(counts * values).astype(np.float64)
    weight1, sum1 = weight0[-1] - weight0, sum0[-1] - sum0
    both = (weight0 > 0) & (weight1 > 0)
    apart = np.zeros(len(counts))
    apart[both] = weight0[both] * weight1[both] * (sum0[both] / weight0[both] - sum1[both] / weight1[both]) ** 2
    return int(np.argmax(apart))


def _without_specks(mask: Mask) -> Mask:
    """Islands first, then holes. Pixels that meet at a corner are one piece of tissue, and two of a hole."""
    mask = mask & ~_small_pieces(mask, ISLAND_PX, corners=True)
    return mask | _small_pieces(~mask, HOLE_PX, corners=False)


def _small_pieces(mask: Mask, pixels: int, *, corners: bool) -> Mask:
    """Where connected pieces of fewer pixels lie."""
    from scipy.ndimage import label

    pieces, _ = label(mask, np.ones((3, 3), np.bool_) if corners else None)
    small = np.bincount(pieces.ravel()) < pixels
    small[0] = False
    found: Mask = small[pieces]
    return found
