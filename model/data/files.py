"""A picture in files: an image, and the file or files that its labels are read from, by windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box
from model.data.rasters import Raster, open_raster

Bytes = NDArray[np.uint8]
IdTable = NDArray[np.int16]  # (256,): what a stored value means, or UNKNOWN

UNKNOWN = -1


class Truth(Protocol):
    """Labels in files. path: for messages, the (first) file. shape: (height, width)."""

    @property
    def path(self) -> Path: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    def read(self, box: Box) -> Bytes:
        """(h, w) class ids, 255 ignored. Raises ValueError for a stored value that is no class, naming the file."""
        ...


@dataclass(frozen=True, slots=True)
class FilePicture:
    """bands: which of the image's bands are red, green and blue. Raises ValueError where the sizes are not one."""

    name: str
    image: Raster
    truth: Truth
    bands: tuple[int, int, int] = (0, 1, 2)

    def __post_init__(self) -> None:
        if self.truth.shape != self.image.shape:
            expected = f"{told(self.image.shape)} as in {self.image.path}"
            raise ValueError(f"{self.truth.path}: {told(self.truth.shape)}, expected {expected}")

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape

    def pixels(self, box: Box) -> Bytes:
        stored = self.image.read(box)
        return stored if self.bands == tuple(range(stored.shape[2])) else stored[..., self.bands]

    def labels(self, box: Box) -> Bytes:
        return self.truth.read(box)


@dataclass(frozen=True, slots=True, eq=False)
class IdMap:
    """One band of stored ids, each meaning a class by `table`."""

    raster: Raster
    table: IdTable

    @property
    def path(self) -> Path:
        return self.raster.path

    @property
    def shape(self) -> tuple[int, int]:
        return self.raster.shape

    def read(self, box: Box) -> Bytes:
        return look_up(self.raster.read(box)[..., 0], self.table, self.path)


def open_id_map(path: Path, table: IdTable) -> IdMap:
    return IdMap(open_raster(path, bands=1), table)


def id_table(meaning: Mapping[int, int]) -> IdTable:
    """Stored value -> class id or 255; what is not in `meaning` is no class."""
    table = np.full(256, UNKNOWN, np.int16)
    for stored, label in meaning.items():
        table[stored] = label
    table.setflags(write=False)
    return table


def look_up(stored: Bytes, table: IdTable, path: Path) -> Bytes:
    """(h, w) stored values -> (h, w) class ids."""
    labels = table[stored]
    if labels.size and labels.min() == UNKNOWN:
        value = int(stored[labels == UNKNOWN].min())
        raise ValueError(f"{path}: class id {value} is unknown, expected one of {told_values(table)}")
    return labels.astype(np.uint8)


def told_values(table: IdTable) -> str:
    """Runs of known values: `0-6, 255`."""
    known = np.flatnonzero(table != UNKNOWN)
    runs = np.split(known, np.flatnonzero(np.diff(known) != 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def told(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]} (height x width)"
