"""What every published layout has: its description, and pictures by split from lists or from folders.

A list is `<root>/train.txt`, `val.txt` or `test.txt`: one image a line, by its file name, with or without folder and
ending. No picture may be in two lists. `val.txt` may be missing: there is then nothing to validate on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigamask.manifest import LabelClass
from model.data.pictures import Picture

SPLITS = ("train", "val", "test")

Locate = Callable[[str], Path]  # a line of a list -> the image that it means, there or not


@dataclass(frozen=True, slots=True)
class Layout:
    """pictures(root, split) raises FileNotFoundError or ValueError, naming the file and what was expected."""

    title: str
    classes: tuple[LabelClass, ...]
    pictures: Callable[[Path, str], Sequence[Picture]]
    license: str
    provenance: dict[str, Any]


def make_classes(colours: dict[str, tuple[int, int, int]]) -> tuple[LabelClass, ...]:
    """Name -> (red, green, blue), in the order of the ids."""
    return tuple(
        LabelClass(id=i, name=name, color="#{:02x}{:02x}{:02x}".format(*colour))
        for i, (name, colour) in enumerate(colours.items())
    )


def has_list(root: Path, split: str) -> bool:
    return (root / f"{split}.txt").is_file()


def listed_images(root: Path, split: str, locate: Locate) -> list[Path]:
    """The images of a list, each there, in none of the other lists and only once in its own."""
    if not has_list(root, split):
        if split == "val":
            return []
        raise FileNotFoundError(f"{root / f'{split}.txt'}: expected there, a list of images, one name a line")
    images = _read_list(root / f"{split}.txt", locate)
    for other in SPLITS:
        if other != split and has_list(root, other):
            _check_apart(images, _read_list(root / f"{other}.txt", locate))
    for image, line in images.items():
        if not image.is_file():
            raise FileNotFoundError(f"{line} names an image that is not there: {image}")
    return list(images)


def _read_list(path: Path, locate: Locate) -> dict[Path, str]:
    """Image -> where it is named. Raises ValueError for one that is named twice or for no image at all."""
    images: dict[Path, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if name := line.strip():
            image = locate(name)
            if image in images:
                raise ValueError(f"{path}, line {number}: {name} is there already, in {images[image]}")
            images[image] = f"{path}, line {number},"
    if not images:
        raise ValueError(f"{path}: no image is named, expected one a line")
    return images


def _check_apart(images: dict[Path, str], others: dict[Path, str]) -> None:
    for image in images:
        if image in others:
            raise ValueError(f"{images[image]} and {others[image]} name the same image: {image.name}")


def folder_images(folder: Path, pattern: str) -> list[Path]:
    """Sorted by name. Raises FileNotFoundError for no folder, ValueError for an empty one."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected there, a folder of {pattern}")
    images = sorted(folder.glob(pattern))
    if not images:
        raise ValueError(f"{folder}: no file is named {pattern}, expected at least one")
    return images


def split_folder_images(folder: Path, split: str, pattern: str) -> list[Path]:
    """The images of `folder/split`; none of "val" where there is no such folder."""
    if split == "val" and not (folder / split).is_dir():
        return []
    return folder_images(folder / split, pattern)


def shuffled(images: Sequence[Path], seed: int) -> list[Path]:
    """An order that depends on the file names and the seed alone: the same on every machine, with every library."""
    return sorted(images, key=lambda image: hashlib.sha256(f"{seed}/{image.name}".encode()).digest())


def bare_name(line: str, *endings: str) -> str:
    """A line of a list without its folder and the first of these endings that it has."""
    name = line.replace("\\", "/").rsplit("/", 1)[-1]
    for ending in endings:
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name
