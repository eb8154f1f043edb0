"""Polygons out of GeoJSON (RFC 7946), and the coordinate reference system that its 2008 form may name."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import count
from typing import Any

from pydantic_core import from_json

from gigamask.errors import InvalidOption

MAX_TEXT = 4_000_000
WGS84 = 4326
EXPECTED = "a Polygon or MultiPolygon, alone or in Features"
_CRS_EXAMPLE = '{"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}'

Rings = list[list[tuple[float, float]]]


def read_json(text: str) -> Any:
    if len(text) > MAX_TEXT:
        raise InvalidOption(f"GeoJSON has at most {MAX_TEXT:,} characters, not {len(text):,}: simplify it")
    try:
        return from_json(text)
    except ValueError as exc:
        raise InvalidOption(f"the region of interest is no JSON: {exc}") from exc


def named_polygons(found: dict[str, Any]) -> list[tuple[str, list[Rings]]]:
    """(name, polygons as lists of rings) of each feature."""
    kind = found.get("type")
    if kind == "FeatureCollection":
        features = found.get("features")
        if not isinstance(features, list) or not features:
            raise InvalidOption("a FeatureCollection has `features`, at least one; got none")
    else:
        features = [found if kind == "Feature" else {"type": "Feature", "geometry": found}]
    names = _names(features)
    return [(name, _polygons(feature)) for name, feature in zip(names, features, strict=True)]


def _names(features: list[Any]) -> list[str]:
    """One each: a name that comes again is numbered."""
    names: list[str] = []
    taken: set[str] = set()
    numbers: defaultdict[str, count[int]] = defaultdict(lambda: count(2))
    for number, feature in enumerate(features, start=1):
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            raise InvalidOption(f"feature {number} of the region of interest is no Feature: {str(feature)[:80]}")
        properties = feature.get("properties")
        given = properties.get("name") if isinstance(properties, dict) else None
        plain = given.strip()[:180] if isinstance(given, str) and given.strip() else f"area {number}"
        name = plain
        while name in taken:
            name = f"{plain} ({next(numbers[plain])})"
        names.append(name)
        taken.add(name)
    return names


def _polygons(feature: dict[str, Any]) -> list[Any]:
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict) or geometry.get("type") not in ("Polygon", "MultiPolygon"):
        got = geometry.get("type") if isinstance(geometry, dict) else geometry
        raise InvalidOption(f"GeoJSON of a region of interest is {EXPECTED}; got a geometry of type {str(got)[:40]!r}")
    kind: str = geometry["type"]
    coordinates: Any = geometry.get("coordinates")
    polygons = [coordinates] if kind == "Polygon" else coordinates
    try:
        return [[_ring(positions) for positions in polygon] for polygon in polygons]
    except (TypeError, IndexError, KeyError) as exc:
        raise InvalidOption(f"the coordinates of a {kind} are lists of rings of [x, y], not as given: {exc}") from exc


def _ring(positions: list[Any]) -> list[Any]:
    """Closed where it was not; heights (a third number) are dropped."""
    ring = [(position[0], position[1]) for position in positions]
    return ring if ring[0] == ring[-1] else [*ring, ring[0]]


def epsg_of(found: dict[str, Any]) -> int | None:
    """The `crs` member of the GeoJSON of 2008, which QGIS still writes; None without one. Raises InvalidOption."""
    if not found.get("crs"):
        return None
    try:
        name = str(found["crs"]["properties"]["name"])
    except (TypeError, KeyError) as exc:
        raise InvalidOption(f"a `crs` member names an EPSG code, as {_CRS_EXAMPLE}; got {found['crs']}") from exc
    if re.search(r"CRS:?84$", name):
        return WGS84
    code = re.fullmatch(r"(?:urn:ogc:def:crs:)?EPSG:(?:[\d.]*:)?(\d{4,6})", name)
    if code is None:
        raise InvalidOption(f"a `crs` member names an EPSG code, as {_CRS_EXAMPLE}; got {name[:80]!r}")
    return int(code[1])
