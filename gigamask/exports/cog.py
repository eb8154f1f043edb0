"""A mask as a Cloud Optimized GeoTIFF: for QGIS, GDAL, and maps that read it by ranges.

GDAL's COG driver orders the file; the overviews are the mask's own levels, so a pixel has one answer wherever it is
looked up. A draft with those levels lies beside the target while it is written: GDAL takes overviews from a source
that has them. Without a geo-reference the file is a plain tiled, ordered TIFF.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from gigamask.exports.catalog import ExportOptions, Progress
from gigamask.exports.crs import crs_of
from gigamask.exports.tiff_levels import TILE_PX, read_boxes, write_levels
from gigamask.geometry import level_shape
from gigamask.legend import Legend
from gigamask.manifest import NO_DATA

if TYPE_CHECKING:
    from rasterio.io import DatasetWriter

    from gigamask.image_info import Georeference
    from gigamask.pyramid.result import Result

CACHE_MIB = 32  # GDAL's, which is a share of the machine's memory otherwise
DRAFT_SHARE, COPIED_SHARE = 0.35, 0.8  # of the time, when the draft is written and when GDAL has copied it
COG_OPTIONS = {
    "COMPRESS": "DEFLATE",
    "BLOCKSIZE": TILE_PX,
    "BIGTIFF": "IF_SAFER",
    "OVERVIEWS": "FORCE_USE_EXISTING",
    "STATISTICS": "NO",
}


def write_cog(result: Result, target: Path, options: ExportOptions, progress: Progress) -> None:
    import rasterio
    import rasterio.shutil
    from rasterio.errors import NotGeoreferencedWarning

    legend = result.legend.recolored(options.colors)
    draft = target.with_name("draft.tif")
    write_levels(draft, result, legend, lambda done: progress(DRAFT_SHARE * done), nested=False)
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=CACHE_MIB, GDAL_PAM_ENABLED=False):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(draft, "r+") as image:
            describe(image, result, legend)
        rasterio.shutil.copy(draft, target, driver="COG", **COG_OPTIONS)
        draft.unlink()
        check(target, result, lambda done: progress(COPIED_SHARE + (1 - COPIED_SHARE) * done))


def check(image_path: Path, result: Result, progress: Progress) -> None:
    """Read back every pixel of every level. Raises OSError where one is not the mask's.

    GDAL's copy to a disk that fills up may end as if all were well, with tiles that nobody can read.
    """
    import numpy as np
    import rasterio
    from rasterio.errors import RasterioIOError
    from rasterio.windows import Window

    for level in range(result.mask.levels):
        chosen = {"overview_level": level - 1} if level else {}
        with rasterio.open(image_path, **chosen) as image:
            for box in read_boxes(level_shape(result.shape, level)):
                try:
                    found = image.read(1, window=Window(box.x0, box.y0, box.width, box.height))
                except RasterioIOError as exc:
                    raise OSError(f"{image_path.name} cannot be read back at {box}") from exc
                if not np.array_equal(found, result.labels(box, level)):
                    raise OSError(f"{image_path.name} read back is not the mask at {box}")
                progress((box.y1 / image.height) if level == 0 else 1.0)


def describe(image: DatasetWriter, result: Result, legend: Legend) -> None:
    """No-data, place on the Earth, names of the classes (tags of the band: GeoTIFF has no other place for them)."""
    image.nodata = NO_DATA
    image.set_band_description(1, f"{result.name} labels")
    image.update_tags(1, **{f"class_{entry.id}": entry.name for entry in legend.classes})
    image.update_tags(SOFTWARE=result.attributes["gigamask"]["software"])
    place(image, result.info.georeference)


def place(image: DatasetWriter, georeference: Georeference | None) -> None:
    """No CRS without a transform: it would put the image somewhere it is not."""
    from rasterio import Affine

    if georeference is None or georeference.transform is None:
        return
    image.transform = Affine.from_gdal(*georeference.transform)
    if crs := crs_of(georeference):
        image.crs = crs
