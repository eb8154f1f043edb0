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
from gigamask.exports.tiff_levels import TILE_PX, write_levels
from gigamask.legend import Legend
from gigamask.manifest import NO_DATA

if TYPE_CHECKING:
    from rasterio.io import DatasetWriter

    from gigamask.image_info import Georeference
    from gigamask.pyramid.result import Result

CACHE_MIB = 32  # GDAL's, which is a share of the machine's memory otherwise
DRAFT_SHARE = 0.7  # of the time, measured on label images
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


def describe(image: DatasetWriter, result: Result, legend: Legend) -> None:
    """No-data, place on the Earth, names of the classes (tags of the band: GeoTIFF has no other place for them)."""
    image.nodata = NO_DATA
    image.set_band_description(1, f"{result.name} labels")
    image.update_tags(1, **{f"class_{entry.id}": entry.name for entry in legend.classes})
    image.update_tags(SOFTWARE=result.attributes["gigamask"]["software"])
    place(image, result.info.georeference)


def place(image: DatasetWriter, georeference: Georeference | None) -> None:
    """No CRS without a transform: it would put the image somewhere it is not."""
    from affine import Affine

    if georeference is None or georeference.transform is None:
        return
    image.transform = Affine.from_gdal(*georeference.transform)
    if crs := crs_of(georeference):
        image.crs = crs
