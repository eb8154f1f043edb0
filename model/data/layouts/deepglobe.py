"""DeepGlobe Land Cover (Demir et al., CVPR Workshops 2018): 803 labelled images of 2448 x 2448, 0.5 m.

Raw: `land-train/{id}_sat.jpg` and `{id}_mask.png`, colours that are thresholded at 128 a channel, as the challenge
says; the split by lists (the literature's are GLNet's, 454/207/142).
ISDNet's: `img_dir/{train,val,test}/{id}_sat.jpg` and `rgb2id/{split}/{id}_mask.png` with ids, 0 being unknown.
Unknown is ignored, so that mIoU is the mean of six classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box
from model.data.files import UNKNOWN, FilePicture, Truth, id_table, open_id_map
from model.data.layouts.layout import Layout, bare_name, listed_images, make_classes, split_folder_images
from model.data.pictures import IGNORE
from model.data.rasters import Raster, open_raster

COLOURS = {
    "urban": (0, 255, 255),
    "agriculture": (255, 255, 0),
    "rangeland": (255, 0, 255),
    "forest": (0, 255, 0),
    "water": (0, 0, 255),
    "barren": (255, 255, 255),
}
CLASSES = make_classes(COLOURS)
_UNKNOWN_COLOUR = (0, 0, 0)
_BITS = np.array([4, 2, 1], np.uint8)  # of a thresholded (red, green, blue)


def _code(colour: tuple[int, int, int]) -> int:
    return sum(bit for bit, value in zip((4, 2, 1), colour, strict=True) if value >= 128)


_CODES = id_table({_code(_UNKNOWN_COLOUR): IGNORE} | {_code(c): i for i, c in enumerate(COLOURS.values())})
_IDS = id_table({0: IGNORE} | {i + 1: i for i in range(len(COLOURS))})


@dataclass(frozen=True, slots=True)
class ThresholdedColours:
    """A mask of colours, each channel below 128 or not."""

    raster: Raster

    @property
    def path(self) -> Path:
        return self.raster.path

    @property
    def shape(self) -> tuple[int, int]:
        return self.raster.shape

    def read(self, box: Box) -> NDArray[np.uint8]:
        stored = self.raster.read(box)
        labels = _CODES[(stored >= 128) @ _BITS]
        if labels.size and labels.min() == UNKNOWN:
            self._refuse(stored[labels == UNKNOWN][0])
        return labels.astype(np.uint8)

    def _refuse(self, colour: NDArray[np.uint8]) -> None:
        expected = ", ".join(f"{name} {rgb}" for name, rgb in (COLOURS | {"unknown": _UNKNOWN_COLOUR}).items())
        raise ValueError(f"{self.path}: colour {tuple(colour.tolist())} is no class, expected one of {expected}")


def deepglobe_pictures(root: Path, split: str) -> list[FilePicture]:
    if (root / "land-train").is_dir():
        images = listed_images(root, split, lambda line: raw_image(root, line))
        return [_picture(image, ThresholdedColours(open_raster(mask_beside(image), bands=3))) for image in images]
    if (root / "img_dir").is_dir():
        images = split_folder_images(root / "img_dir", split, "*_sat.jpg")
        folder = root / "rgb2id" / split
        return [_picture(image, open_id_map(folder / mask_beside(image).name, _IDS)) for image in images]
    raise FileNotFoundError(f"{root}: expected the folder land-train (as published) or img_dir (ISDNet's layout)")


def raw_image(root: Path, line: str) -> Path:
    return root / "land-train" / f"{bare_name(line, '_sat.jpg', '_mask.png', '_sat', '.jpg')}_sat.jpg"


def mask_beside(image: Path) -> Path:
    return image.with_name(f"{image.name.removesuffix('_sat.jpg')}_mask.png")


def _picture(image: Path, truth: Truth) -> FilePicture:
    return FilePicture(image.name, open_raster(image, bands=3), truth)


LAYOUT = Layout(
    title="Land cover in DeepGlobe's satellite pictures",
    classes=CLASSES,
    pictures=deepglobe_pictures,
    license="Research only: DeepGlobe Land Cover is given to registered users for research",
    provenance={
        "data": "DeepGlobe Land Cover Classification Challenge 2018, DigitalGlobe; by registration, not shipped",
        "split": "train.txt, val.txt and test.txt beside the data, or the folders of ISDNet's layout",
    },
)
