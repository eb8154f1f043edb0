"""Inria Aerial Image Labeling (Maggiori et al., IGARSS 2017): 180 labelled tiles of 5000 x 5000, 0.3 m, five cities.

Raw: `AerialImageDataset/train/images/{city}{n}.tif` and `gt/` of the same names, 0 and 255. Without lists the
benchmark's own split: tiles 1 to 5 of each city validate, the others train, and there is no labelled test.
With lists (the literature's are FCtL's, 126/27/27; `{city}{n}_sat.tif` is understood) those.
ISDNet's: `imgs/{train,val,test}/{city}{n}_sat.tif` and `labels/{split}/{city}{n}_mask.png`, 0 and 1.
"""

from __future__ import annotations

import re
from pathlib import Path

from model.data.files import FilePicture, id_table, open_id_map
from model.data.layouts.layout import (
    SPLITS,
    Layout,
    bare_name,
    folder_images,
    has_list,
    listed_images,
    make_classes,
    split_folder_images,
)
from model.data.rasters import open_raster

CLASSES = make_classes({"background": (0, 0, 0), "building": (255, 255, 255)})
_RAW = id_table({0: 0, 255: 1})
_IDS = id_table({0: 0, 1: 1})
_VALIDATED = 5  # tiles 1 to 5 of a city


def inria_pictures(root: Path, split: str) -> list[FilePicture]:
    """root: the folder `AerialImageDataset`, or the one that it lies in, or ISDNet's."""
    if (root / "imgs").is_dir():
        return [_isdnet_picture(root, split, image) for image in split_folder_images(root / "imgs", split, "*_sat.tif")]
    for folder in (root / "AerialImageDataset", root):
        if (folder / "train" / "images").is_dir():
            return [_raw_picture(image) for image in _raw_images(root, folder / "train" / "images", split)]
    raise FileNotFoundError(
        f"{root}: expected AerialImageDataset/train/images (as published) or imgs (ISDNet's layout)"
    )


def _raw_images(root: Path, folder: Path, split: str) -> list[Path]:
    if any(has_list(root, name) for name in SPLITS):
        return listed_images(root, split, lambda line: folder / f"{bare_name(line, '_sat.tif', '.tif', '_sat')}.tif")
    images = folder_images(folder, "*.tif")
    return [image for image in images if benchmark_split(image) == split]


def benchmark_split(image: Path) -> str:
    """Raises ValueError for a file that is not named by city and number."""
    number = re.fullmatch(r"[a-z-]+(\d+)", image.stem)
    if not number:
        raise ValueError(f"{image}: expected a city and a number, as in austin1.tif")
    return "val" if int(number[1]) <= _VALIDATED else "train"


def _raw_picture(image: Path) -> FilePicture:
    truth = open_id_map(image.parents[1] / "gt" / image.name, _RAW)
    return FilePicture(image.name, open_raster(image, bands=3), truth)


def _isdnet_picture(root: Path, split: str, image: Path) -> FilePicture:
    mask = root / "labels" / split / f"{image.name.removesuffix('_sat.tif')}_mask.png"
    return FilePicture(image.name, open_raster(image, bands=3), open_id_map(mask, _IDS))


LAYOUT = Layout(
    title="Buildings in Inria's aerial pictures",
    classes=CLASSES,
    pictures=inria_pictures,
    license="Research only: Inria Aerial Image Labeling is given for research",
    provenance={
        "data": "Inria Aerial Image Labeling Dataset, project.inria.fr/aerialimagelabeling; not shipped",
        "split": "train.txt, val.txt and test.txt beside the data, or the folders of ISDNet's layout; "
        "without either tiles 1 to 5 of each city validate",
    },
)
