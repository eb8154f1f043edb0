"""Cityscapes (Cordts et al., CVPR 2016): 2975 + 500 street pictures of 1024 x 2048 (h x w), 19 classes.

`leftImg8bit/{train,val,test}/{city}/{city}_{seq}_{frame}_leftImg8bit.png` and
`gtFine/{split}/{city}/{city}_{seq}_{frame}_gtFine_labelIds.png`, whose 34 ids become 19 training ids, the rest ignored.

The labels of its own test split are not public, so what is published is judged on val. "test" is therefore val here,
and "val" is empty: a run that chose its best checkpoint on the pictures it is judged on would flatter itself.
"""

from __future__ import annotations

from pathlib import Path

from model.data.files import FilePicture, id_table, open_id_map
from model.data.layouts.layout import Layout, folder_images, make_classes
from model.data.pictures import IGNORE
from model.data.rasters import open_raster

CLASSES = make_classes(
    {
        "road": (128, 64, 128),
        "sidewalk": (244, 35, 232),
        "building": (70, 70, 70),
        "wall": (102, 102, 156),
        "fence": (190, 153, 153),
        "pole": (153, 153, 153),
        "traffic light": (250, 170, 30),
        "traffic sign": (220, 220, 0),
        "vegetation": (107, 142, 35),
        "terrain": (152, 251, 152),
        "sky": (70, 130, 180),
        "person": (220, 20, 60),
        "rider": (255, 0, 0),
        "car": (0, 0, 142),
        "truck": (0, 0, 70),
        "bus": (0, 60, 100),
        "train": (0, 80, 100),
        "motorcycle": (0, 0, 230),
        "bicycle": (119, 11, 32),
    }
)
LABEL_IDS = 34  # 0 to 33
TRAINED_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)  # in the order of the classes
_TABLE = id_table(dict.fromkeys(range(LABEL_IDS), IGNORE) | {label: i for i, label in enumerate(TRAINED_IDS)})
_FOLDER = {"train": "train", "test": "val"}
_ENDING = "_leftImg8bit.png"


def cityscapes_pictures(root: Path, split: str) -> list[FilePicture]:
    if split not in _FOLDER:
        return []
    images = folder_images(root / "leftImg8bit" / _FOLDER[split], f"*/*{_ENDING}")
    return [_picture(root, image) for image in images]


def labels_of(root: Path, image: Path) -> Path:
    split, city = image.parts[-3:-1]
    return root / "gtFine" / split / city / f"{image.name.removesuffix(_ENDING)}_gtFine_labelIds.png"


def _picture(root: Path, image: Path) -> FilePicture:
    return FilePicture(image.name, open_raster(image, bands=3), open_id_map(labels_of(root, image), _TABLE))


LAYOUT = Layout(
    title="Streets of Cityscapes",
    classes=CLASSES,
    pictures=cityscapes_pictures,
    license="Non-commercial: Cityscapes is given to registered users for research and teaching",
    provenance={
        "data": "Cityscapes, leftImg8bit and gtFine, www.cityscapes-dataset.com; by registration, not shipped",
        "trained_on": "train (2975)",
        "tested_on": "val (500); the labels of test are not public",
    },
)
