"""Training crops: a local patch, its surround, and where the one lies in the other (SGNet section 3.2).

The centre of the surround is drawn anywhere inside the local patch, then the surround is shifted into the picture; so
the offsets that a border gives at inference are those that training has seen. Scale, flips and turns act on the
surround as a whole and the local patch is cut from the result, so both always agree.

Crop number i of a run is a function of (seed, i) alone: a run that was killed goes on with the crops it would have
seen.
Classes that fill few pixels can be drawn on purpose: a share of the crops must contain a pixel of a rare class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box
from model.data.pictures import IGNORE, Picture, read_padded

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
    """Window of a picture to be resized to S, and the local offset in the result."""

    picture: Picture
    window: Box
    offset: tuple[int, int]


@dataclass(frozen=True, slots=True)
class RareCell:
    """A cell of a picture's grid that holds `count` pixels of rare classes."""

    picture: Picture
    box: Box
    count: int


@dataclass(frozen=True)
class CropSampler:
    """Crops of some pictures, each drawn by its area. Only windows are read, whatever the pictures' sizes."""

    pictures: Sequence[Picture]
    tile_px: int
    alpha: int
    rules: CropRules
    seed: int
    _rare: tuple[RareCell, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.pictures:
            raise ValueError("crops are drawn from at least one picture, got none")
        cells = [cell for picture in self.pictures for cell in rare_cells(picture, self.rules)]
        object.__setattr__(self, "_rare", tuple(cells))

    @property
    def surround_px(self) -> int:
        return self.tile_px * self.alpha

    def crop(self, index: int) -> Crop:
        rng = np.random.default_rng((self.seed, index))
        place = self._balanced_place(rng)
        pixels, ids = read_padded(place.picture, place.window)
        size = self.surround_px
        crop = Crop(resize_bilinear(pixels, size), resize_nearest(ids, size), place.offset, self.tile_px)
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
        t, size = self.tile_px, self.surround_px
        side = round(size / scale)
        picture, target = self._rare_pixel(rng) if wants_rare else (self._picture(rng), None)
        origin, offset = [], []
        for axis, total in enumerate(picture.shape):
            scaled = int(total * size / side)
            corner = draw_corner(rng, scaled, t, None if target is None else int(target[axis] * size / side))
            start = draw_surround(rng, corner, t, size, scaled)
            origin.append(max(0, min(round(start * side / size), total - side)))
            offset.append(corner - start)
        y, x = origin
        return Place(picture, Box(y, x, y + side, x + side), (offset[0], offset[1]))

    def _picture(self, rng: Generator) -> Picture:
        if len(self.pictures) == 1:
            return self.pictures[0]
        areas = np.array([height * width for height, width in (p.shape for p in self.pictures)], np.float64)
        return self.pictures[rng.choice(len(areas), p=areas / areas.sum())]

    def _rare_pixel(self, rng: Generator) -> tuple[Picture, NDArray[np.int64]]:
        roots = np.sqrt([cell.count for cell in self._rare])
        cell = self._rare[rng.choice(len(self._rare), p=roots / roots.sum())]
        inside = np.argwhere(np.isin(cell.picture.labels(cell.box), self.rules.rare_classes))
        return cell.picture, inside[rng.integers(len(inside))] + (cell.box.y0, cell.box.x0)

    def _local_labels(self, place: Place) -> Bytes:
        step = place.window.height / self.surround_px
        y, x = (
            start + round(o * step) for start, o in zip((place.window.y0, place.window.x0), place.offset, strict=True)
        )
        t = round(self.tile_px * step)
        return place.picture.labels(Box(y, x, y + t, x + t).clip(place.picture.shape))[::4, ::4]


def rare_cells(picture: Picture, rules: CropRules) -> Iterator[RareCell]:
    """The cells that hold a rare class, row-major; one row of cells is read at a time."""
    if not rules.rare_classes:
        return
    side, (height, width) = rules.rare_cell_px, picture.shape
    for y in range(0, height, side):
        row = Box(y, 0, y + side, width).clip(picture.shape)
        columns = np.isin(picture.labels(row), rules.rare_classes).sum(axis=0)
        for x in range(0, width, side):
            if count := int(columns[x : x + side].sum()):
                yield RareCell(picture, Box(y, x, y + side, x + side).clip(picture.shape), count)


def draw_corner(rng: Generator, total: int, t: int, target: int | None) -> int:
    """Start of a local patch in [0, total - t]; with a target, one whose patch contains it."""
    if target is None:
        return int(rng.integers(max(0, total - t) + 1))
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
    """Of the pixels that have a class; 1 where none has."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE + 1)[:IGNORE]
    return float(counts.max() / counts.sum()) if counts.any() else 1.0
