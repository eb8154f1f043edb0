"""Training crops: a local patch, its surround, and where the one lies in the other (SGNet section 3.2).

The centre of the surround is drawn anywhere inside the local patch, then the surround is shifted into the picture; so
the offsets that a border gives at inference are those that training has seen. Scale, flips and turns act on the
surround as a whole and the local patch is cut from the result, so both always agree.

Crop number i of a run is a function of (seed, i) alone: a run that was killed goes on with the crops it would have
seen.
Classes that fill few pixels can be drawn on purpose: a share of the crops must contain a pixel of a rare class.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Generator = np.random.Generator


@dataclass(frozen=True, slots=True)
class CropRules:
    """Every knob of the draw. Our defaults, where the paper is silent."""

    scale: tuple[float, float] = (0.75, 1.5)  # picture is resized by s ~ U(scale) ...
    scale_share: float = 0.5  # ... in this share of the crops; lakes of one pixel want the rest as they are
    flip: bool = True  # each axis, p = 0.5
    turn: bool = True  # by 90, 180 or 270 degrees, p = 0.5
    max_class_share: float = 0.75  # a local patch with more of one class is drawn again, up to 10 times
    rare_classes: tuple[int, ...] = ()
    rare_share: float = 0.0  # this share of the crops contains a pixel of a rare class ...
    rare_cell_px: int = 64  # ... of a cell drawn by the root of its rare pixels: large lakes do not take all the draws
    brightness: float = 0.06  # + U(-b, b) of full scale, each p = 0.5
    contrast: float = 0.2  # x U(1-c, 1+c)
    saturation: float = 0.2
    gamma: float = 0.0  # full scale ** U(1/(1+g), 1+g)
    tint: float = 0.0  # each channel x U(1-t, 1+t)


@dataclass(frozen=True, slots=True)
class Crop:
    """image: (S, S, 3); labels: (S, S); offset: (y, x) of the local patch inside them, side t."""

    image: Bytes
    labels: Bytes
    offset: tuple[int, int]
    tile_px: int

    @property
    def local(self) -> tuple[slice, slice]:
        y, x = self.offset
        return slice(y, y + self.tile_px), slice(x, x + self.tile_px)


@dataclass(frozen=True, slots=True)
class Place:
    """Source window [y, y + side)^2 to be resized to S, and the local offset in the result."""

    y: int
    x: int
    side: int
    offset: tuple[int, int]


@dataclass(frozen=True)
class CropSampler:
    """Crops of one picture held in memory. image: (H, W, 3); labels: (H, W), 255 ignored."""

    image: Bytes
    labels: Bytes
    tile_px: int
    alpha: int
    rules: CropRules
    seed: int
    _rare: tuple[NDArray[np.int64], ...] = field(init=False, repr=False)  # per cell, (m, 2) pixels of rare classes

    def __post_init__(self) -> None:
        largest = round(self.tile_px * self.alpha / self.rules.scale[0])
        if min(self.labels.shape) < largest:
            raise ValueError(f"crops of {largest} px do not fit in a picture of {self.labels.shape}")
        rare = np.argwhere(np.isin(self.labels, self.rules.rare_classes))
        object.__setattr__(self, "_rare", group_by_cell(rare, self.rules.rare_cell_px))

    def crop(self, index: int) -> Crop:
        rng = np.random.default_rng((self.seed, index))
        place = self._balanced_place(rng)
        size = self.tile_px * self.alpha
        window = slice(place.y, place.y + place.side), slice(place.x, place.x + place.side)
        crop = Crop(
            resize_bilinear(self.image[window], size),
            resize_nearest(self.labels[window], size),
            place.offset,
            self.tile_px,
        )
        return distort(turn_and_flip(crop, rng, self.rules), rng, self.rules)

    def _balanced_place(self, rng: Generator) -> Place:
        wants_rare = len(self._rare) > 0 and rng.random() < self.rules.rare_share
        for _ in range(10):
            place = self._place(rng, wants_rare)
            if wants_rare or largest_share(self._local_labels(place)) <= self.rules.max_class_share:
                break
        return place

    def _place(self, rng: Generator, wants_rare: bool) -> Place:
        """Local corner and centre are drawn in the frame of the scaled picture, then the window is taken back."""
        scale = rng.uniform(*self.rules.scale) if rng.random() < self.rules.scale_share else 1.0
        t, size = self.tile_px, self.tile_px * self.alpha
        side = round(size / scale)
        scaled = [int(n * size / side) for n in self.labels.shape]
        target = self._rare_pixel(rng) * size / side if wants_rare else None
        origin, offset = [], []
        for axis, total in enumerate(scaled):
            corner = draw_corner(rng, total, t, None if target is None else int(target[axis]))
            start = draw_surround(rng, corner, t, size, total)
            origin.append(min(round(start * side / size), self.labels.shape[axis] - side))
            offset.append(corner - start)
        return Place(origin[0], origin[1], side, (offset[0], offset[1]))

    def _rare_pixel(self, rng: Generator) -> NDArray[np.int64]:
        roots = np.sqrt([len(cell) for cell in self._rare])
        cell = self._rare[rng.choice(len(self._rare), p=roots / roots.sum())]
        pixel: NDArray[np.int64] = cell[rng.integers(len(cell))]
        return pixel

    def _local_labels(self, place: Place) -> Bytes:
        step = place.side / (self.tile_px * self.alpha)
        y, x = place.y + round(place.offset[0] * step), place.x + round(place.offset[1] * step)
        t = round(self.tile_px * step)
        return self.labels[y : y + t : 4, x : x + t : 4]


def group_by_cell(pixels: NDArray[np.int64], cell_px: int) -> tuple[NDArray[np.int64], ...]:
    """(m, 2) pixels -> those of each cell of a grid, empty cells left out."""
    if len(pixels) == 0:
        return ()
    _, cell = np.unique(pixels // cell_px, axis=0, return_inverse=True)
    order = np.argsort(cell, kind="stable")
    return tuple(np.split(pixels[order], np.flatnonzero(np.diff(cell[order])) + 1))


def draw_corner(rng: Generator, total: int, t: int, target: int | None) -> int:
    """Start of a local patch in [0, total - t]; with a target, one whose patch contains it."""
    if target is None:
        return int(rng.integers(total - t + 1))
    return max(0, min(int(rng.integers(target - t + 1, target + 1)), total - t))


def draw_surround(rng: Generator, corner: int, t: int, size: int, total: int) -> int:
    """Start of the surround: centred on a pixel of the local patch, containing it, inside the picture."""
    start = corner + int(rng.integers(t)) - size // 2
    start = max(corner + t - size, min(start, corner))
    return max(0, min(start, total - size))


def turn_and_flip(crop: Crop, rng: Generator, rules: CropRules) -> Crop:
    """The same turn and flips of picture, labels and offset."""
    image, labels, (y, x) = crop.image, crop.labels, crop.offset
    last = labels.shape[0] - crop.tile_px  # the largest offset
    for _ in range(int(rng.integers(1, 4)) if rules.turn and rng.random() < 0.5 else 0):
        image, labels, (y, x) = np.rot90(image), np.rot90(labels), (last - x, y)
    if rules.flip and rng.random() < 0.5:
        image, labels, y = image[::-1], labels[::-1], last - y
    if rules.flip and rng.random() < 0.5:
        image, labels, x = image[:, ::-1], labels[:, ::-1], last - x
    return Crop(image, labels, (y, x), crop.tile_px)


def distort(crop: Crop, rng: Generator, rules: CropRules) -> Crop:
    """Light and colour of the whole surround, each p = 0.5 (PhotoMetricDistortion, its hue as gamma and tint)."""
    shift, gain, colour = (
        rng.uniform(-span, span) if rng.random() < 0.5 else 0.0
        for span in (rules.brightness, rules.contrast, rules.saturation)
    )
    curve = (1 + rules.gamma) ** rng.uniform(-1, 1) if rng.random() < 0.5 else 1.0
    tint = rng.uniform(-rules.tint, rules.tint, 3) if rng.random() < 0.5 else np.zeros(3)
    values = (np.arange(256)[:, None] / 255) ** curve * (1 + gain) * (1 + tint) + shift  # (256, 3), a table per channel
    image = np.take_along_axis(values.astype(np.float32), crop.image.reshape(-1, 3).astype(np.intp), axis=0)
    if colour:
        grey = image.mean(axis=1, keepdims=True)
        image = grey + (image - grey) * np.float32(1 + colour)
    pixels = (image * 255).round().clip(0, 255).astype(np.uint8).reshape(crop.image.shape)
    return Crop(pixels, crop.labels, crop.offset, crop.tile_px)


def resize_bilinear(image: Bytes, size: int) -> Bytes:
    """(n, n, 3) -> (size, size, 3), pixel centres aligned, antialiased where it shrinks."""
    if image.shape[0] == size:
        return image
    import torch  # only where a crop is really scaled

    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    scaled = torch.nn.functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return scaled[0].permute(1, 2, 0).numpy()


def resize_nearest(labels: Bytes, size: int) -> Bytes:
    if labels.shape[0] == size:
        return labels
    at = ((np.arange(size) + 0.5) * labels.shape[0] / size).astype(np.int64)
    return labels[np.ix_(at, at)]


def largest_share(labels: Bytes) -> float:
    return float(np.bincount(labels.ravel()).max() / labels.size)
