"""One labelled picture, read by windows: what training draws its crops from and evaluation walks over.

Boxes are (y, x), half-open, inside the picture. Nothing that uses a picture asks for all of it at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box

Bytes = NDArray[np.uint8]

IGNORE = 255  # a label that nothing is learnt from and that does not count
PAD_COLOUR = (124, 116, 104)  # beyond the picture, as at inference: ImageNet's mean, rounded


class Picture(Protocol):
    """name: for messages. shape: (height, width)."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    def pixels(self, box: Box) -> Bytes:
        """(h, w, 3) RGB"""
        ...

    def labels(self, box: Box) -> Bytes:
        """(h, w) class ids, 255 ignored"""
        ...


@dataclass(frozen=True, slots=True)
class ArrayPicture:
    """A picture that is small enough to be held. image: (H, W, 3); ids: (H, W)."""

    name: str
    image: Bytes
    ids: Bytes

    def __post_init__(self) -> None:
        if self.image.shape != (*self.ids.shape, 3):
            raise ValueError(f"{self.name}: image {self.image.shape} and labels {self.ids.shape} are not of one size")

    @property
    def shape(self) -> tuple[int, int]:
        return self.ids.shape[0], self.ids.shape[1]

    def pixels(self, box: Box) -> Bytes:
        return self.image[box.slices]

    def labels(self, box: Box) -> Bytes:
        return self.ids[box.slices]


def read_padded(picture: Picture, box: Box) -> tuple[Bytes, Bytes]:
    """Pixels and labels of a box that may overrun the picture at the bottom and right: mean colour and 255 there."""
    inside = box.clip(picture.shape)
    image, ids = picture.pixels(inside), picture.labels(inside)
    if inside == box:
        return image, ids
    padded = np.empty((*box.shape, 3), np.uint8)
    padded[:] = PAD_COLOUR
    filled = np.full(box.shape, IGNORE, np.uint8)
    padded[: inside.height, : inside.width] = image
    filled[: inside.height, : inside.width] = ids
    return padded, filled
