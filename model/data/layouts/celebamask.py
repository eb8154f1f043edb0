"""CelebAMask-HQ (Lee et al., CVPR 2020): 30000 faces, 1024 x 1024, their parts as masks of 512 x 512, 19 classes.

`CelebA-HQ-img/{n}.jpg` and `CelebAMask-HQ-mask-anno/{n // 2000}/{n:05d}_{part}.png`, one file for each part that can be
seen. Parts are laid over each other in the order of `CLASSES`, the later above; what no part covers is background.

As in the paper, pictures are enlarged to 2448 x 2448, the image bilinear and the labels to the nearest pixel.

The split is CelebA's, 24183/2993/2824: `CelebA-HQ-to-CelebA-mapping.txt` says which picture of CelebA each face is,
`list_eval_partition.txt` (from CelebA, to be put beside it) to which split that belongs. Lists, where given, are
instead of it. With so many small files nothing is opened before it is used; that files are there is checked at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box
from model.data.files import told
from model.data.layouts.layout import SPLITS, Layout, bare_name, has_list, listed_images, make_classes
from model.data.rasters import Raster, open_raster

Bytes = NDArray[np.uint8]

CLASSES = make_classes(
    {
        "background": (0, 0, 0),
        "skin": (204, 0, 0),
        "nose": (76, 153, 0),
        "eye_g": (204, 204, 0),
        "l_eye": (51, 51, 255),
        "r_eye": (204, 0, 204),
        "l_brow": (0, 255, 255),
        "r_brow": (255, 204, 204),
        "l_ear": (102, 51, 0),
        "r_ear": (255, 0, 0),
        "mouth": (102, 204, 0),
        "u_lip": (255, 255, 0),
        "l_lip": (0, 0, 153),
        "hair": (0, 0, 204),
        "hat": (255, 51, 153),
        "ear_r": (0, 204, 204),
        "neck_l": (0, 51, 0),
        "neck": (255, 153, 51),
        "cloth": (0, 204, 0),
    }
)
SIDE_PX = 2448
PARTS = {c.name: c.id for c in CLASSES[1:]}
_IMAGES, _MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
_MAPPING, _PARTITION = "CelebA-HQ-to-CelebA-mapping.txt", "list_eval_partition.txt"
_FACES_PER_FOLDER = 2000


@dataclass(frozen=True, slots=True)
class Face:
    """One face, enlarged. parts: mask files, lowest first; each is opened when it is read."""

    image: Path
    parts: tuple[tuple[int, Path], ...]
    side_px: int = SIDE_PX

    @property
    def name(self) -> str:
        return self.image.name

    @property
    def shape(self) -> tuple[int, int]:
        return self.side_px, self.side_px

    def pixels(self, box: Box) -> Bytes:
        return enlarge(square(open_raster(self.image, bands=3)), box, self.side_px)

    def labels(self, box: Box) -> Bytes:
        labels = np.zeros(box.shape, np.uint8)
        side: int | None = None
        for label, path in self.parts:
            raster = square(open_raster(path), side)
            side = raster.width
            labels[nearest(raster, box, self.side_px)[..., 0] > 0] = label
        return labels


def square(raster: Raster, side: int | None = None) -> Raster:
    """Raises ValueError for another shape, naming the file."""
    expected = raster.width if side is None else side
    if raster.shape != (expected, expected):
        raise ValueError(f"{raster.path}: {told(raster.shape)}, expected {told((expected, expected))}")
    return raster


def nearest(raster: Raster, box: Box, side_px: int) -> Bytes:
    """(h, w, bands) of a box of a square raster enlarged to side_px; in integers, so that no centre is rounded over."""
    rows, columns = ((2 * at + 1) * raster.width // (2 * side_px) for at in _positions(box))
    window = _around(rows[0], columns[0], rows[-1], columns[-1], raster)
    stored: Bytes = raster.read(window)[np.ix_(rows - window.y0, columns - window.x0)]
    return stored


def enlarge(raster: Raster, box: Box, side_px: int) -> Bytes:
    """As `nearest`, bilinear: pixel centres aligned, edges repeated. A box gets what the whole picture has there."""
    rows, columns = ((at + 0.5) * raster.width / side_px - 0.5 for at in _positions(box))
    top, left = np.floor(rows).astype(np.intp), np.floor(columns).astype(np.intp)
    window = _around(top[0], left[0], top[-1] + 1, left[-1] + 1, raster)
    stored = raster.read(window).astype(np.float32)
    down, right = (rows - top).astype(np.float32)[:, None, None], (columns - left).astype(np.float32)[None, :, None]
    above, below = (stored[np.clip(top + i - window.y0, 0, window.height - 1)] for i in (0, 1))
    between = above * (1 - down) + below * down
    west, east = (between[:, np.clip(left + i - window.x0, 0, window.width - 1)] for i in (0, 1))
    return (west * (1 - right) + east * right + 0.5).astype(np.uint8)


def _positions(box: Box) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.arange(box.y0, box.y1), np.arange(box.x0, box.x1)


def _around(y0: int, x0: int, y1: int, x1: int, raster: Raster) -> Box:
    """The stored box from the first to the last pixel, both inside."""
    return Box(int(y0), int(x0), int(y1) + 1, int(x1) + 1).clip(raster.shape)


def celebamask_pictures(root: Path, split: str) -> list[Face]:
    images, parts = split_images(root, split), find_parts(root)
    return [Face(image, parts_of(root, image, parts)) for image in images]


def split_images(root: Path, split: str) -> list[Path]:
    if any(has_list(root, name) for name in SPLITS):
        return listed_images(root, split, lambda line: image_of(root, bare_name(line, ".jpg")))
    wanted, partition = str(SPLITS.index(split)), dict(_table(root / _PARTITION, 2))
    images = []
    for number, _, original in _table(root / _MAPPING, 3):
        if original not in partition:
            raise ValueError(f"{root / _PARTITION}: no line for {original}, expected by {root / _MAPPING}")
        if partition[original] == wanted:
            images.append(_present(image_of(root, number), root / _MAPPING))
    return images


def image_of(root: Path, number: str) -> Path:
    return root / _IMAGES / f"{number}.jpg"


def _present(image: Path, why: Path) -> Path:
    if not image.is_file():
        raise FileNotFoundError(f"{image}: expected there, named in {why}")
    return image


def _table(path: Path, columns: int) -> Iterator[list[str]]:
    """The lines of a table, a heading left out. Raises ValueError, naming file and line."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected there, as CelebAMask-HQ and CelebA publish it")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split()
        if not fields or fields[0] == "idx":
            continue
        if len(fields) != columns:
            raise ValueError(f"{path}, line {number}: {len(fields)} columns, expected {columns}")
        yield fields


def find_parts(root: Path) -> dict[int, dict[int, Path]]:
    """Number of a face -> id of a part -> its mask, from the folders' listings alone. Raises ValueError for no part."""
    found: dict[int, dict[int, Path]] = {}
    for path in (root / _MASKS).glob("*/*.png"):
        number, _, part = path.stem.partition("_")
        if part not in PARTS or not number.isdigit():
            raise ValueError(f"{path}: expected NNNNN_PART.png, where PART is one of {', '.join(PARTS)}")
        found.setdefault(int(number), {})[PARTS[part]] = path
    return found


def parts_of(root: Path, image: Path, parts: dict[int, dict[int, Path]]) -> tuple[tuple[int, Path], ...]:
    if not image.stem.isdigit() or int(image.stem) not in parts:
        number = int(image.stem) if image.stem.isdigit() else 0
        expected = root / _MASKS / str(number // _FACES_PER_FOLDER) / f"{number:05d}_skin.png"
        raise FileNotFoundError(f"{image}: no mask of a part is there, expected at least one such as {expected}")
    return tuple(sorted(parts[int(image.stem)].items()))


LAYOUT = Layout(
    title="Parts of faces, CelebAMask-HQ at 2448 x 2448",
    classes=CLASSES,
    pictures=celebamask_pictures,
    license="Non-commercial: CelebAMask-HQ is given for research and education",
    provenance={
        "data": "CelebAMask-HQ (CelebA-HQ with masks of parts), images and labels enlarged to 2448; not shipped",
        "split": "CelebA's list_eval_partition.txt through CelebA-HQ-to-CelebA-mapping.txt, or lists beside the data",
    },
)
