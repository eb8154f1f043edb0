"""OME-NGFF 0.5 group metadata, as plain dicts (https://ngff.openmicroscopy.org/0.5/).

Level k has pixels 2**k as wide, whose centres lie (2**k - 1) / 2 level-0 pixels further in: each level carries that
half-pixel translation beside its scale, in the image's unit, or in level-0 pixels where the file gives no size.
`attributes.gigamask` holds what NGFF has no place for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gigamask.image_info import ImageInfo
from gigamask.job import SelectionSummary
from gigamask.manifest import NO_DATA, LabelClass, ModelManifest

Attributes = dict[str, Any]

VERSION = "0.5"
IMAGE_AXES = ("c", "y", "x")
LABEL_AXES = ("y", "x")
NO_DATA_NAME = "no data"

_METHODS = {
    "mean": "mean of 2 x 2 pixels, rounded half up; of the valid ones where the image has a validity channel",
    "mode": "most frequent of 2 x 2 labels, the smallest of equals; no data only where all four are",
}
_CHANNELS = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"), ("validity", "FFFFFF"))


def software_version() -> str:
    try:
        return version("gigamask")
    except PackageNotFoundError:
        return "unknown"


def image_attributes(info: ImageInfo, levels: int, name: str, provenance: Attributes | None = None) -> Attributes:
    """Attributes of the root group. provenance: what made the labels below it, if any."""
    ome = {"version": VERSION, "multiscales": [_multiscale(info, levels, IMAGE_AXES, name, "mean")]}
    own = {"software": f"gigamask {software_version()}", "image": info.model_dump(mode="json")}
    if provenance:
        own["provenance"] = provenance
    return {"ome": ome | {"omero": _omero(info.channels)}, "gigamask": own}


def labels_attributes(names: list[str]) -> Attributes:
    """Attributes of the `labels` group."""
    return {"ome": {"version": VERSION, "labels": names}}


def label_attributes(
    info: ImageInfo,
    levels: int,
    manifest: ModelManifest,
    areas_px: dict[int, int],
    provenance: Attributes,
    run: Attributes | None = None,
) -> Attributes:
    """Attributes of one label image. areas_px: label -> pixels of level 0 (255 = no data). run: `run_attributes`."""
    label = {
        "version": VERSION,
        "colors": [_color(c) for c in manifest.classes] + [{"label-value": NO_DATA, "rgba": [0, 0, 0, 0]}],
        "properties": class_areas(manifest, areas_px, info),
        "source": {"image": "../../"},
    }
    multiscale = _multiscale(info, levels, LABEL_AXES, manifest.name, "mode")
    ome = {"version": VERSION, "multiscales": [multiscale], "image-label": label}
    own = {"software": f"gigamask {software_version()}", "provenance": provenance}
    return {"ome": ome, "gigamask": own | (run or {})}


def run_attributes(
    region_px: int, scale: float, selection: SelectionSummary | None, skipped: Collection[int]
) -> Attributes:
    """How the labels came about: what was run and what was not. skipped: indices of regions, row by row."""
    return {
        "region_px": region_px,
        "scale": scale,
        "selection": selection.model_dump() if selection else None,
        "skipped_regions": sorted(skipped),
    }


def areas_px(attributes: Attributes) -> dict[int, int]:
    """Of a label image: label -> pixels of level 0 (255 = no data)."""
    return {entry["label-value"]: entry["area_px"] for entry in attributes["ome"]["image-label"]["properties"]}


def class_areas(manifest: ModelManifest, areas_px: dict[int, int], info: ImageInfo) -> list[Attributes]:
    """One entry a class, then no data: label-value, name, area_px, and area_um2 or area_m2 where pixels have a size."""
    named = [(c.id, c.name) for c in manifest.classes] + [(NO_DATA, NO_DATA_NAME)]
    return [
        {"label-value": label, "name": name, "area_px": areas_px.get(label, 0)}
        | physical_area(areas_px.get(label, 0), info)
        for label, name in named
    ]


def physical_area(pixels: float, info: ImageInfo) -> dict[str, float]:
    """{"area_um2": ...}, {"area_m2": ...} or {}."""
    if info.pixel_area is None:
        return {}
    return {"area_um2" if info.unit == "micrometer" else "area_m2": pixels * info.pixel_area}


def provenance(manifest: ModelManifest, options: Attributes) -> Attributes:
    """What labels are a function of, beside the image."""
    files = {role: entry.sha256 for role, entry in manifest.files.items()}
    return {
        "model": {"name": manifest.name, "version": manifest.version, "sha256": files, "license": manifest.license},
        "options": options,
        "software": f"gigamask {software_version()}",
    }


def _multiscale(info: ImageInfo, levels: int, axes: tuple[str, ...], name: str, method: str) -> Attributes:
    return {
        "name": name,
        "type": method,
        "metadata": {"method": method, "description": _METHODS[method]},
        "axes": [_axis(axis, info) for axis in axes],
        "datasets": [
            {"path": str(k), "coordinateTransformations": _transformations(info, k, len(axes))} for k in range(levels)
        ],
    }


def _axis(name: str, info: ImageInfo) -> Attributes:
    if name == "c":
        return {"name": name, "type": "channel"}
    return {"name": name, "type": "space"} | ({"unit": info.unit} if info.pixel_size and info.unit else {})


def _transformations(info: ImageInfo, level: int, axis_count: int) -> list[Attributes]:
    size = info.pixel_size if info.pixel_size and info.unit else (1.0, 1.0)
    leading = axis_count - 2
    center = (2**level - 1) / 2
    scale = [1.0] * leading + [2**level * side for side in size]
    shift = [0.0] * leading + [(o + center) * side for o, side in zip(info.offset_px, size, strict=True)]
    return [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]


def _color(label: LabelClass) -> Attributes:
    return {"label-value": label.id, "rgba": list(label.rgba)}


def _omero(channels: int) -> Attributes:
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    shown = [
        {"label": label, "color": color, "active": label != "validity", "window": window}
        for label, color in _CHANNELS[:channels]
    ]
    return {"channels": shown, "rdefs": {"model": "color"}}


def write_group(folder: Path, attributes: Attributes) -> None:
    """The group's `zarr.json`, in one atomic step and on the disk when this returns."""
    folder.mkdir(parents=True, exist_ok=True)
    target, fresh = folder / "zarr.json", folder / ".zarr.json.new"
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    with fresh.open("w", encoding="utf-8") as stream:
        json.dump(group, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(target)


def read_attributes(folder: Path) -> Attributes:
    """Raises FileNotFoundError where the group is not there (or not finished)."""
    attributes: Attributes = json.loads((folder / "zarr.json").read_bytes())["attributes"]
    return attributes
