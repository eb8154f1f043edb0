"""Dubai from the air: "Semantic segmentation of aerial imagery" (Humans in the Loop with MBRSC, CC0).

A tile is nine JPEG parts with RGB PNG masks, `Tile N/images/image_part_001.jpg` to `_009` and `Tile N/masks/`, which
join row-major, 3 x 3, without overlap, into one mosaic; where neighbours differ by a pixel the larger is cropped.
The split is by tile: neighbours in one mosaic share light, season and labeller, tiles do not.

The parts were labelled one by one, so labels change across their seams; that is the data's, and stays.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigamask.manifest import LabelClass
from model.data.pictures import IGNORE, ArrayPicture

Bytes = NDArray[np.uint8]

CLASSES = (
    LabelClass(id=0, name="building", color="#3c1098"),
    LabelClass(id=1, name="land", color="#8429f6"),
    LabelClass(id=2, name="road", color="#6ec1e4"),
    LabelClass(id=3, name="vegetation", color="#fedd3a"),
    LabelClass(id=4, name="water", color="#e2a929"),
)
_IGNORED = ("9b9b9b", "000000")  # unlabelled; never drawn
SPLIT = {"train": (1, 2, 3, 6, 7), "val": (5,), "test": (8,)}


def dubai_pictures(root: Path, split: str) -> list[ArrayPicture]:
    """root: the folder of `Tile 1` ... Raises FileNotFoundError or ValueError, naming the file."""
    return [read_tile(root / f"Tile {number}") for number in SPLIT[split]]


def read_tile(folder: Path) -> ArrayPicture:
    parts = range(1, 10)
    image = join([_read(folder / "images" / f"image_part_{n:03d}.jpg") for n in parts])
    masks = [folder / "masks" / f"image_part_{n:03d}.png" for n in parts]
    return ArrayPicture(folder.name, image, join([class_ids(_read(path), path) for path in masks]))


def join(parts: list[Bytes]) -> Bytes:
    """Nine (h, w, ...) parts, row-major -> one mosaic; a row takes its least height, a column its least width."""
    heights = [min(part.shape[0] for part in parts[3 * row : 3 * row + 3]) for row in range(3)]
    widths = [min(part.shape[1] for part in parts[column::3]) for column in range(3)]
    rows = [
        np.concatenate([parts[3 * row + column][: heights[row], : widths[column]] for column in range(3)], axis=1)
        for row in range(3)
    ]
    return np.concatenate(rows, axis=0)


def class_ids(mask: Bytes, path: Path) -> Bytes:
    """(h, w, 3) colours -> (h, w) ids. Raises ValueError for a colour that is no class, naming file and colour."""
    packed = (mask.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2, dtype=np.uint32)
    known = {int(c.color[1:], 16): c.id for c in CLASSES} | {int(colour, 16): IGNORE for colour in _IGNORED}
    ids = np.full(packed.shape, IGNORE, np.uint8)
    for colour in np.unique(packed).tolist():
        if colour not in known:
            expected = ", ".join(f"#{value:06x}" for value in known)
            raise ValueError(f"{path}: colour #{colour:06x} is no class; expected one of {expected}")
        ids[packed == colour] = known[colour]
    return ids


def _read(path: Path) -> Bytes:
    """(h, w, 3) RGB"""
    import pyvips

    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected there, as in the published layout `Tile N/images`, `Tile N/masks`")
    pixels: Bytes = pyvips.Image.new_from_file(str(path), fail_on="warning").numpy()
    return pixels[..., :3]
