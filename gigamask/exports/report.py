"""A result on one page: an HTML file that needs nothing else, to be read, printed or sent.

Pictures are inside as `data:` URIs, small ones of the upper levels of the pyramid. There is no script and no request:
the page forbids both itself. Names come from files and models of any kind; Jinja2 escapes them all.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gigamask.exports import figures
from gigamask.exports.catalog import ExportOptions, Progress
from gigamask.exports.overlay import overlay
from gigamask.exports.statistics import Measured, Share, measure
from gigamask.geometry import Box, level_shape
from gigamask.legend import Legend
from gigamask.pyramid.ngff import software_version
from gigamask.pyramid.result import Result

MAX_SIDE_PX = 1400
JPEG_QUALITY = 82
MOST_REGIONS = 40
NOTHING = (226, 230, 228)  # where the image has no data
TEMPLATE = "report.html.j2"
RECORD = "job.json"
OPTION_NAMES = {
    "region_px": "Region side",
    "roi": "Region of interest",
    "read": "Read with",
    "min_object_px": "Smallest object",
}


def write_report(result: Result, target: Path, options: ExportOptions, progress: Progress) -> None:
    """Raises InvalidOption."""
    legend = result.legend.recolored(options.colors)
    found = measure(result, options.roi, progress)
    whole, *regions = found.areas
    page = _template().render(
        title=_title(result),
        facts=_facts(result, whole),
        pictures=_pictures(result, legend),
        bar=figures.scale_bar(result.info),
        whole=_area(result, legend, whole),
        regions=[_area(result, legend, region) for region in regions[:MOST_REGIONS]],
        regions_left_out=max(0, len(regions) - MOST_REGIONS),
        tissue=found.tissue is not None,
        choices=[*_choices(result), *_selection(result)],
        model=[*_model(result)],
        files=_files(result),
        image=[*_image(result)],
        notes=result.info.notes,
        software=software_version(),
    )
    target.write_text(page, encoding="utf-8")


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": figures.count_text, "share": figures.share_text}
    return environment.get_template(TEMPLATE)


def _title(result: Result) -> str:
    """The file's name where a job's record lies beside the result, else the result's own."""
    record = result.root.with_name(RECORD)
    if record.is_file():
        return str(json.loads(record.read_bytes())["file_name"])
    return result.root.stem


@dataclass(frozen=True, slots=True)
class _Fact:
    name: str
    value: str


def _facts(result: Result, whole: Measured) -> list[_Fact]:
    """What is read first."""
    info = result.info
    found = [
        _Fact("Image", f"{figures.count_text(info.width)} × {figures.count_text(info.height)} px"),
        _Fact("Extent", figures.extent_text(info) or figures.pixels_text(info.width * info.height)),
        _Fact("Labelled", figures.area_text(whole.labelled_px, info)),
        _Fact("Not labelled", figures.share_text(whole.no_data_px / (info.width * info.height))),
    ]
    return [*found, _Fact("Model", f"{result.name} {result.provenance['model']['version']}")]


@dataclass(frozen=True, slots=True)
class _Picture:
    title: str
    uri: str
    width: int
    height: int


def _pictures(result: Result, legend: Legend) -> list[_Picture]:
    return [
        _picture("Image", _thumbnail(result)),
        _picture("Classes over the image", overlay(result, legend, MAX_SIDE_PX)),
    ]


def _thumbnail(result: Result) -> NDArray[np.uint8]:
    """(h, w, 3) of the finest level whose longer side is at most MAX_SIDE_PX."""
    level = next(k for k in range(result.image.levels) if max(level_shape(result.shape, k)) <= MAX_SIDE_PX)
    pixels = result.pixels(Box(0, 0, *level_shape(result.shape, level)), level)
    colors = np.moveaxis(pixels[:3], 0, -1).copy()
    if len(pixels) == 4:
        colors[pixels[3] == 0] = NOTHING
    return colors


def _picture(title: str, pixels: NDArray[np.uint8]) -> _Picture:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    text = base64.b64encode(stream.getvalue()).decode()
    return _Picture(title, f"data:image/jpeg;base64,{text}", pixels.shape[1], pixels.shape[0])


@dataclass(frozen=True, slots=True)
class _ClassRow:
    name: str
    color: str
    share: float | None
    of_tissue: float | None
    area: str
    pixels: int


@dataclass(frozen=True, slots=True)
class _AreaRow:
    name: str
    area: str
    classes: list[_ClassRow]


def _area(result: Result, legend: Legend, area: Measured) -> _AreaRow:
    """The largest class first."""
    shares = sorted(area.classes, key=lambda share: -share.area_px)
    rows = [_class_row(result, legend, share, shares[0].area_px) for share in shares]
    return _AreaRow(area.name, figures.area_text(area.labelled_px, result.info), rows)


def _class_row(result: Result, legend: Legend, share: Share, largest_px: int) -> _ClassRow:
    red, green, blue, _ = legend.entry(share.id).rgba
    area = figures.area_text(share.area_px, result.info, largest_px)
    color = f"#{red:02x}{green:02x}{blue:02x}"
    return _ClassRow(share.name, color, share.of_labelled, share.of_tissue, area, share.area_px)


def _image(result: Result) -> Iterable[_Fact]:
    info = result.info
    yield _Fact("Format", ", ".join(filter(None, (info.format, info.compression))))
    yield _Fact("Pixel size", figures.pixel_size_text(info) or "not known: areas are in pixels")
    if info.sample_range:
        yield _Fact("Values shown", "{:g} to {:g}".format(*info.sample_range))
    if info.offset_px != (0, 0):
        yield _Fact("Origin in the scanner's frame", "x {1}, y {0} px".format(*info.offset_px))
    if info.georeference:
        code = info.georeference.epsg
        yield _Fact("Coordinate system", f"EPSG:{code}" if code else "without an EPSG code")


def _model(result: Result) -> Iterable[_Fact]:
    model = result.provenance["model"]
    yield _Fact("Name", f"{model['name']} {model['version']}")
    yield _Fact("Licence", model["license"])
    yield _Fact("Run by", result.provenance["software"])


def _files(result: Result) -> list[_Fact]:
    """The model's files and their sha256."""
    return [_Fact(role, digest) for role, digest in sorted(result.provenance["model"]["sha256"].items())]


def _choices(result: Result) -> Iterable[_Fact]:
    """The job's options, those that were left open apart."""
    for name, value in result.provenance["options"].items():
        if text := _option_text(name, value):
            yield _Fact(OPTION_NAMES.get(name, name.replace("_", " ").capitalize()), text)


def _option_text(name: str, value: Any) -> str:
    if name == "roi" and value:
        names = [area["name"] for area in value["areas"]]
        return ", ".join(names[:MOST_REGIONS]) + (" and more" if len(names) > MOST_REGIONS else "")
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items() if part is not None)
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return f"{value} px" if name.endswith("_px") else str(value)


def _selection(result: Result) -> Iterable[_Fact]:
    """What was not run, and why."""
    own = result.attributes["gigamask"]
    if chosen := own.get("selection"):
        yield _Fact("Tiles run", f"{chosen['tiles_selected']} of {chosen['tiles_total']}")
        if chosen.get("method"):
            yield _Fact("Tissue told by", f"{chosen['method']}, threshold {chosen['threshold']:g}")
            yield _Fact("Tissue", f"{figures.share_text(chosen['tissue_share'])} of the image")
    if skipped := own.get("skipped_regions"):
        yield _Fact("Regions skipped", str(len(skipped)))
