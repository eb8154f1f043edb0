"""A mask as GeoJSON, a feature a line, written as it is traced.

Of an image in pixels, in QuPath's flavour: `id` a UUID, `properties` with objectType, classification, measurements.
QuPath keeps annotations in a tree and is slow with many: where there are more than MANY_POLYGONS of them, or more than
MANY_VERTICES vertices, all are detections. Of an image with a geo-reference: flat fields, and coordinates in its CRS,
which the `crs` member of GeoJSON 2008 names; QGIS and GDAL read it (RFC 7946, section 4, allows it between those who
know).
"""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any

import shapely

from gigamask.exports.catalog import ExportOptions, Progress, write_options
from gigamask.exports.crs import crs_of
from gigamask.exports.frames import Frame, frame_of, rings_of
from gigamask.exports.polygons import Outline, trace_result
from gigamask.image_info import ImageInfo
from gigamask.legend import Legend
from gigamask.pyramid.ngff import physical_area, software_version
from gigamask.pyramid.result import Result

MANY_POLYGONS = 1_000
MANY_VERTICES = 1_000_000
PART = "one of the parts of a polygon that was too large for one feature"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "gigamask")

Members = dict[str, Any]


def write_geojson(result: Result, target: Path, options: ExportOptions, progress: Progress) -> None:
    """Raises InvalidOption."""
    with target.open("wb") as stream:
        _write(result, stream, options, progress)


def write_geojson_gz(result: Result, target: Path, options: ExportOptions, progress: Progress) -> None:
    """The same, compressed as it is written; no name and no time in it, so that equal masks give equal files."""
    with target.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as stream:
        _write(result, stream, options, progress)


def _write(result: Result, stream: IO[bytes] | gzip.GzipFile, options: ExportOptions, progress: Progress) -> None:
    legend = result.legend.recolored(options.colors)
    outlines = trace_result(result, options, progress)
    if result.info.lies_on_earth:
        describe: Callable[[Outline], Members] = partial(_flat, legend, result.info)
    else:
        kind, outlines = _kind_of(outlines)
        describe = partial(_for_qupath, legend, result.info, kind)
    features = _Features(frame_of(result.info), _namespace(result, options), describe)
    head = json.dumps({"type": "FeatureCollection"} | _collection(result, options), ensure_ascii=False)
    stream.write(f'{head[:-1]}, "features": ['.encode())
    for number, outline in enumerate(outlines):
        stream.write(b",\n" if number else b"\n")
        stream.write(features.write(number, outline))
    stream.write(b"\n]}\n")


def _collection(result: Result, options: ExportOptions) -> Members:
    """`crs`, if any, and what else a reader may want to know, as one foreign member."""
    found = _crs_member(result.info) if result.info.lies_on_earth else {}
    about: Members = {"software": f"gigamask {software_version()}", "model": result.provenance["model"]["name"]}
    about |= {"level": options.level, "simplify_px": options.simplify_px, "min_area_px": options.min_area_px}
    if result.info.offset_px != (0, 0):
        about["offset_px"] = result.info.offset_px
    return found | {"gigamask": about}


def _crs_member(info: ImageInfo) -> Members:
    crs = crs_of(info.georeference)
    code = crs.to_epsg() if crs else None
    if code is None:
        return {}
    # EPSG:4326 has latitude first; coordinates here are (x, y), which CRS84 says of the same datum.
    name = "urn:ogc:def:crs:OGC:1.3:CRS84" if code == 4326 else f"urn:ogc:def:crs:EPSG::{code}"
    return {"crs": {"type": "name", "properties": {"name": name}}}


def _namespace(result: Result, options: ExportOptions) -> uuid.UUID:
    """Equal masks, written with equal options, have equal ids."""
    about = [result.provenance, result.info.model_dump(mode="json"), write_options(options)]
    return uuid.uuid5(_NAMESPACE, json.dumps(about, sort_keys=True))


def _kind_of(outlines: Iterator[Outline]) -> tuple[str, Iterator[Outline]]:
    """QuPath's objectType for all of them, and all of them: few enough are held to tell."""
    held: list[Outline] = []
    vertices = 0
    for outline in outlines:
        held.append(outline)
        vertices += int(shapely.get_num_coordinates(outline.polygon))
        if len(held) > MANY_POLYGONS or vertices > MANY_VERTICES:
            return "detection", chain(held, outlines)
    return "annotation", iter(held)


@dataclass(frozen=True, slots=True)
class _Features:
    frame: Frame
    namespace: uuid.UUID
    describe: Callable[[Outline], Members]

    def write(self, number: int, outline: Outline) -> bytes:
        feature = {
            "type": "Feature",
            "id": str(uuid.uuid5(self.namespace, str(number))),
            "properties": self.describe(outline),
            "geometry": _geometry(self.frame.place(outline.polygon)),
        }
        return json.dumps(feature, ensure_ascii=False, separators=(",", ":")).encode()


def _geometry(placed: shapely.Geometry) -> Members:
    if placed.geom_type == "Polygon":
        return {"type": "Polygon", "coordinates": rings_of(placed)}
    return {"type": "MultiPolygon", "coordinates": [rings_of(polygon) for polygon in placed.geoms]}


def _for_qupath(legend: Legend, info: ImageInfo, kind: str, outline: Outline) -> Members:
    entry = legend.entry(outline.label)
    area = outline.polygon.area
    sizes = {f"Area {name[5:-1]}^2": size for name, size in physical_area(area, info).items()}
    found: Members = {
        "objectType": kind,
        "classification": {"name": entry.name, "color": list(entry.rgba[:3])},
        "isLocked": False,
        "measurements": {"Area px": area} | sizes,
    }
    return found | ({"metadata": {"part": PART}} if outline.part else {})


def _flat(legend: Legend, info: ImageInfo, outline: Outline) -> Members:
    entry = legend.entry(outline.label)
    area = outline.polygon.area
    named = {"class_id": entry.id, "class": entry.name, "color": entry.color, "part": outline.part}
    return named | {"area_px": area} | physical_area(area, info)
