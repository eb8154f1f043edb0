"""A mask as one pyramidal OME-TIFF (OME model 2016-06): for QuPath, Fiji, OMERO, and whatever reads a tiled TIFF.

The lower resolutions are SubIFDs of the first page, as OME-TIFF wants them. Names and colours of the classes stand in
two map annotations, label -> name and label -> colour, and as the colour map of the pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gigamask.exports.catalog import ExportOptions, Progress
from gigamask.exports.tiff_levels import write_levels
from gigamask.legend import Legend
from gigamask.manifest import NO_DATA

if TYPE_CHECKING:
    from gigamask.pyramid.result import Result

CLASSES, COLORS = "gigamask/classes", "gigamask/colors"  # namespaces of the annotations
UNITS = {"micrometer": "µm", "meter": "m"}


def write_ome_tiff(result: Result, target: Path, options: ExportOptions, progress: Progress) -> None:
    legend = result.legend.recolored(options.colors)
    write_levels(target, result, legend, progress, nested=True, ome=ome_metadata(result, legend))


def ome_metadata(result: Result, legend: Legend) -> dict[str, Any]:
    """What tifffile.OmeXml makes OME-XML of."""
    names = {str(entry.id): entry.name for entry in legend.classes} | {str(NO_DATA): "no data"}
    colors = {str(entry.id): entry.color for entry in legend.classes}
    return {
        "axes": "YX",
        "Name": f"{result.name} labels",
        "Description": f"Labels of {result.name}; {NO_DATA} is no data. {result.attributes['gigamask']['software']}",
        "Channel": {"Name": ["labels"]},
        "MapAnnotation": [{"Namespace": CLASSES, "Value": names}, {"Namespace": COLORS, "Value": colors}],
    } | _physical_size(result)


def _physical_size(result: Result) -> dict[str, Any]:
    size, unit = result.info.pixel_size, result.info.unit
    if size is None or unit is None:
        return {}
    sides = {f"PhysicalSize{axis}": side for axis, side in zip("YX", size, strict=True)}
    return sides | {f"{name}Unit": UNITS[unit] for name in sides}
