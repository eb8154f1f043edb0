"""Five-Billion-Pixels (Tong, Xia and Zhu, ISPRS 2023): 150 Gaofen-2 images of 6800 x 7200 (h x w), 4 m, 24 classes.

`Image__8bit_NirRGB/{name}.tif` has four bands, near infrared first; bands 2 to 4 are taken as RGB.
`Annotation__index/{name}_24label.png` has ids 0 to 24: 0 is unlabelled and ignored, k becomes class k - 1.

`test.txt` holds the 30 official test images (listed in the publishers' readme). Without `train.txt` and `val.txt` the
other 120 are split at random 90/30, as in the paper; its seed is not known, ours is `SEED`.
"""

from __future__ import annotations

from pathlib import Path

from model.data.files import FilePicture, id_table, open_id_map
from model.data.layouts.layout import (
    Layout,
    bare_name,
    folder_images,
    has_list,
    listed_images,
    make_classes,
    shuffled,
)
from model.data.pictures import IGNORE
from model.data.rasters import open_raster

CLASSES = make_classes(
    {
        "industrial area": (200, 0, 0),
        "paddy field": (0, 200, 0),
        "irrigated field": (150, 250, 0),
        "dry cropland": (150, 200, 150),
        "garden land": (200, 0, 200),
        "arbor forest": (150, 0, 250),
        "shrub forest": (150, 150, 250),
        "park": (200, 150, 200),
        "natural meadow": (250, 200, 0),
        "artificial meadow": (200, 200, 0),
        "river": (0, 0, 200),
        "urban residential": (250, 0, 150),
        "lake": (0, 150, 200),
        "pond": (0, 200, 250),
        "fish pond": (150, 200, 250),
        "snow": (250, 250, 250),
        "bareland": (200, 200, 200),
        "rural residential": (200, 150, 150),
        "stadium": (250, 200, 150),
        "square": (150, 150, 0),
        "road": (250, 150, 150),
        "overpass": (250, 150, 0),
        "railway station": (250, 200, 250),
        "airport": (200, 150, 0),
    }
)
SEED = 0
VAL_SHARE = 30 / 120  # of what is not in the test list
_IMAGES, _LABELS = "Image__8bit_NirRGB", "Annotation__index"
_IDS = id_table({0: IGNORE} | {k: k - 1 for k in range(1, len(CLASSES) + 1)})
_RGB = (1, 2, 3)


def fbp_pictures(root: Path, split: str) -> list[FilePicture]:
    if split == "test" or has_list(root, "train") or has_list(root, "val"):
        return [_picture(root, image) for image in listed_images(root, split, lambda line: image_of(root, line))]
    return [_picture(root, image) for image in random_split(root)[split]]


def random_split(root: Path) -> dict[str, list[Path]]:
    """Train and val of what `test.txt` does not name."""
    tested = set(listed_images(root, "test", lambda line: image_of(root, line)))
    others = shuffled([p for p in folder_images(root / _IMAGES, "*.tif") if p not in tested], SEED)
    validated = round(len(others) * VAL_SHARE)
    return {"val": sorted(others[:validated]), "train": sorted(others[validated:])}


def image_of(root: Path, line: str) -> Path:
    return root / _IMAGES / f"{bare_name(line, '_24label.png', '.tiff', '.tif')}.tif"


def _picture(root: Path, image: Path) -> FilePicture:
    truth = open_id_map(root / _LABELS / f"{image.stem}_24label.png", _IDS)
    return FilePicture(image.name, open_raster(image, bands=4), truth, _RGB)


LAYOUT = Layout(
    title="Land cover in Gaofen-2 pictures of China, Five-Billion-Pixels",
    classes=CLASSES,
    pictures=fbp_pictures,
    license="Research only: Five-Billion-Pixels is given for academic use",
    provenance={
        "data": "Five-Billion-Pixels, Wuhan University, from GID (Gaofen-2), 8-bit NirRGB, bands 2 to 4; not shipped",
        "split": f"test.txt beside the data; the others by train.txt and val.txt, or at random 3 to 1, seed {SEED}",
    },
)
