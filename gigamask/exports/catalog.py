"""Every file that a result can be had as, one row each, and the one way to write one.

A row names the module that writes it; that module, with the heavy libraries it needs, is loaded when it writes. A
writer is given a path that is its own: where it fails nothing is left, and a finished file appears by one rename.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gigamask.errors import Conflict, GigamaskError, InvalidOption, NotFound
from gigamask.store import attempt, disk_is_full, sweep_attempts, tells_of_full_disk

if TYPE_CHECKING:
    from gigamask.pyramid.result import Result
    from gigamask.roi import Roi

Progress = Callable[[float], None]  # called with the fraction done, in [0, 1]
Write = Callable[["Result", Path, "ExportOptions", Progress], None]

PACKAGE = "gigamask.exports"
FULL_BYTES = 1024**2  # free beside a failed file: GDAL says that a write failed, and why on stderr alone
NO_COLORS: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What may differ between two files of one result.

    label: which label image; None = the first. colors: label -> `#rrggbb`, over the result's own.
    simplify_px: how far a simplified outline may leave the pixels' own, in pixels of `level`; None = not at all.
    roi: only what lies inside. min_area_px: objects below it are left out. level: which level outlines are of.
    """

    label: str | None = None
    colors: Mapping[int, str] = field(default_factory=lambda: NO_COLORS)
    simplify_px: float | None = None
    roi: Roi | None = None
    min_area_px: int = 0
    level: int = 0


DEFAULTS = ExportOptions()


def _always(_result: Result) -> str | None:
    return None


def _on_earth(result: Result) -> str | None:
    return None if result.info.lies_on_earth else "the image has no geo-reference; mask.geojson has it in pixels"


@dataclass(frozen=True, slots=True)
class Format:
    """name: of the file, below `/jobs/{id}/files`. short: in `gigamask export --format`.

    write: memory flat; its target is a fresh path, its progress is told in [0, 1]. offered: the reason why a result
    cannot be had so, or None. takes: the options that change the file. store: a folder of many keys and not a file;
    the service answers them one by one, below `/jobs/{id}/<name>`.
    """

    name: str
    short: str
    title: str
    media_type: str
    write: Write
    offered: Callable[[Result], str | None] = _always
    takes: frozenset[str] = frozenset()
    store: bool = False

    def narrow(self, options: ExportOptions) -> ExportOptions:
        """Without what does not change this file."""
        kept = self.takes | {"label"}
        return replace(DEFAULTS, **{name: getattr(options, name) for name in kept})


def later(module: str, function: str) -> Write:
    """The function of a module in this package, imported when it is first called."""

    def write(result: Result, target: Path, options: ExportOptions, progress: Progress) -> None:
        getattr(import_module(f"{PACKAGE}.{module}"), function)(result, target, options, progress)

    return write


COLORS = frozenset({"colors"})
OUTLINES = COLORS | {"simplify_px", "roi", "min_area_px", "level"}

FORMATS: tuple[Format, ...] = (
    Format(
        "mask.ome.tif",
        "ome-tiff",
        "Pyramidal OME-TIFF of the labels, in their colours (QuPath, Fiji, OMERO)",
        "image/tiff",
        later("ome_tiff", "write_ome_tiff"),
        takes=COLORS,
    ),
    Format(
        "mask.tif",
        "cog",
        "Cloud Optimized GeoTIFF of the labels, with CRS, colour table and no-data (QGIS, GDAL)",
        "image/tiff; application=geotiff; profile=cloud-optimized",
        later("cog", "write_cog"),
        takes=COLORS,
    ),
    Format(
        "mask.geojson",
        "geojson",
        "Polygons for QuPath (pixels), or for QGIS in the image's CRS",
        "application/geo+json",
        later("geojson", "write_geojson"),
        takes=OUTLINES,
    ),
    Format(
        "mask.geojson.gz",
        "geojson.gz",
        "The same polygons, compressed",
        "application/gzip",
        later("geojson", "write_geojson_gz"),
        takes=OUTLINES,
    ),
    Format(
        "mask.gpkg",
        "gpkg",
        "GeoPackage of the polygons in the image's CRS (QGIS, ArcGIS)",
        "application/geopackage+sqlite3",
        later("geopackage", "write_geopackage"),
        offered=_on_earth,
        takes=OUTLINES,
    ),
    Format(
        "statistics.json",
        "stats.json",
        "Area and share of each class, in the image and in each area of a region of interest",
        "application/json",
        later("statistics", "write_json"),
        takes=frozenset({"roi"}),
    ),
    Format(
        "statistics.csv",
        "stats.csv",
        "The same as a table, one row an area and class",
        "text/csv; charset=utf-8",
        later("statistics", "write_csv"),
        takes=frozenset({"roi"}),
    ),
    Format(
        "overlay.png",
        "overlay",
        "The image with its classes over it, at most 2048 pixels a side",
        "image/png",
        later("overlay", "write_overlay"),
        takes=COLORS,
    ),
    Format(
        "report.html",
        "report",
        "One page to read, print or send: pictures, classes, how it was made",
        "text/html; charset=utf-8",
        later("report", "write_report"),
        takes=COLORS | {"roi"},
    ),
    Format(
        "mask.ozx",
        "ozx",
        "OME-Zarr 0.5 in one file, image and mask (NGFF RFC-9)",
        "application/zip",
        later("ozx", "write_ozx"),
    ),
    Format(
        "mask-0.4.zarr",
        "zarr2",
        "OME-Zarr 0.4 (Zarr v2), image and mask, for tools that read no Zarr v3",
        "application/vnd.zarr",
        later("zarr2", "write_zarr2"),
        store=True,
    ),
)


def find_format(name: str) -> Format:
    """By its file name or its short one. Raises NotFound, naming what there is."""
    for entry in FORMATS:
        if name in (entry.name, entry.short):
            return entry
    raise NotFound(f"no format {name!r}; there are: {', '.join(entry.short for entry in FORMATS)}")


def download_name(base: str, entry: Format) -> str:
    """base: of the result, `slide-model`. -> `slide-model.ome.tif`, `slide-model-statistics.json`"""
    kind, _, end = entry.name.partition(".")
    if kind.startswith("mask"):
        return f"{base}{kind.removeprefix('mask')}.{end}"
    return f"{base}-{entry.name}"


def export(
    root: Path,
    name: str,
    target: Path,
    options: ExportOptions = DEFAULTS,
    progress: Progress = lambda fraction: None,
) -> None:
    """Write the result at `root` as the format `name` to `target`: whole and on the disk, or not at all.

    Raises NotFound (no such format, result or label), Conflict where this result cannot be had so, InvalidOption, and
    InsufficientStorage; then nothing is left.
    """
    from gigamask.pyramid.result import open_result

    entry = find_format(name)
    result = open_result(root, options.label)
    if reason := entry.offered(result):
        raise Conflict(f"{entry.name} cannot be had of this result: {reason}")
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_attempts(target)
    with attempt(target) as mine:
        fresh = mine.folder / target.name
        _write_told(entry, result, fresh, entry.narrow(options), progress)
        _sync(fresh)
        if target.is_dir():
            target.rename(mine.folder / "replaced")
        fresh.replace(target)
    _sync_entry(target.parent)
    progress(1.0)


def _write_told(entry: Format, result: Result, fresh: Path, options: ExportOptions, progress: Progress) -> None:
    """Raises InsufficientStorage in place of whatever a library says of a full disk."""
    try:
        entry.write(result, fresh, options, progress)
    except Exception as exc:
        full = tells_of_full_disk(exc) or shutil.disk_usage(fresh.parent).free < FULL_BYTES
        if full and not isinstance(exc, GigamaskError):
            raise disk_is_full(exc) from exc
        raise


def _sync(path: Path) -> None:
    """A file, or a folder with all that lies in it, to the disk."""
    for part in (path, *(path.rglob("*") if path.is_dir() else ())):
        _sync_entry(part)


def _sync_entry(path: Path) -> None:
    """Of a folder, its names alone: what lies in it may be somebody else's, and much."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_options(options: ExportOptions) -> str:
    """As JSON, one spelling for equal options."""
    shown: dict[str, Any] = {name: getattr(options, name) for name in ("label", "simplify_px", "min_area_px", "level")}
    shown["colors"] = {str(label): color for label, color in options.colors.items()}
    shown["roi"] = options.roi.model_dump(mode="json") if options.roi else None
    return json.dumps(shown, sort_keys=True, separators=(",", ":"))


def read_options(text: str) -> ExportOptions:
    """What `write_options` wrote. Raises InvalidOption."""
    from gigamask.roi import Roi

    try:
        found = json.loads(text)
        found["colors"] = {int(label): color for label, color in found.get("colors", {}).items()}
        found["roi"] = Roi.model_validate(found["roi"]) if found.get("roi") else None
        return ExportOptions(**found)
    except (ValueError, TypeError, AttributeError) as exc:
        raise InvalidOption(f"not the options of an export: {exc}") from exc
