"""A mask as GeoPackage: one layer of polygons in the image's CRS, appended chunk by chunk.

The layer is called what the mask is. A chunk is one transaction, so memory is that of a chunk, whatever the image.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely

from gigamask.exports.catalog import ExportOptions, Progress, write_options
from gigamask.exports.crs import crs_of
from gigamask.exports.frames import frame_of
from gigamask.exports.polygons import Outline, trace_result
from gigamask.image_info import ImageInfo
from gigamask.legend import Legend
from gigamask.pyramid.result import Result

CHUNK = 2_000
FIELDS = ("class_id", "class", "color", "area", "unit", "part")
UNITS = {"micrometer": "um^2", "meter": "m^2", None: "px"}


def write_geopackage(result: Result, target: Path, options: ExportOptions, progress: Progress) -> None:
    """Raises InvalidOption."""
    legend = result.legend.recolored(options.colors)
    about = {"gigamask": json.dumps({"provenance": result.provenance, "options": write_options(options)})}
    for number, chunk in enumerate(_chunks(trace_result(result, options, progress))):
        _append(result, target, chunk, legend, {"append": True} if number else {"layer_metadata": about})


def _chunks(outlines: Iterator[Outline]) -> Iterator[list[Outline]]:
    """At least one, so that there is a layer."""
    chunk = list(islice(outlines, CHUNK))
    yield chunk
    while chunk := list(islice(outlines, CHUNK)):
        yield chunk


def _append(result: Result, target: Path, chunk: list[Outline], legend: Legend, how: dict[str, Any]) -> None:
    frame, crs = frame_of(result.info), crs_of(result.info.georeference)
    placed = [shapely.multipolygons(shapely.get_parts(frame.place(outline.polygon))) for outline in chunk]
    with warnings.catch_warnings():
        # An image may have a transform and no CRS: the layer's is then undefined, as it should be.
        warnings.filterwarnings("ignore", "'crs' was not provided")
        pyogrio.raw.write(
            target,
            shapely.to_wkb(np.array(placed, object)),
            field_data=_columns(chunk, legend, result.info),
            fields=list(FIELDS),
            layer=result.name,
            driver="GPKG",
            geometry_type="MultiPolygon",
            crs=crs.to_wkt() if crs else None,
            **how,
        )


def _columns(chunk: list[Outline], legend: Legend, info: ImageInfo) -> list[Any]:
    """One array a field."""
    entries = [legend.entry(outline.label) for outline in chunk]
    area_px = np.array([outline.polygon.area for outline in chunk], np.float64)
    unit = info.unit if info.pixel_area else None
    return [
        np.array([entry.id for entry in entries], np.int32),
        np.array([entry.name for entry in entries], object),
        np.array([entry.color for entry in entries], object),
        area_px * (info.pixel_area or 1.0),
        np.full(len(chunk), UNITS[unit], object),
        np.array([outline.part for outline in chunk], np.bool_),
    ]
