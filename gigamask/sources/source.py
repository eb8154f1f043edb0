"""`open_source`: from a path to upright uint8 rows, whatever the file is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigamask.errors import BadImage, UnsupportedImage
from gigamask.image_info import ImageInfo, ReadOptions
from gigamask.settings import Settings
from gigamask.sources.blocks import Pixels, beside
from gigamask.sources.colour import Conversion, Samples, plan_conversion
from gigamask.sources.libvips import Picture, open_picture, picture_rows
from gigamask.sources.limits import check_size, translated
from gigamask.sources.orientation import upright, upright_shape
from gigamask.sources.physical import georeference_of, metres_of, micrometres_of
from gigamask.sources.signature import Kind, identify
from gigamask.sources.slide_cells import belongs_to_openslide, detect_vendor, open_slide, slide_rows
from gigamask.sources.tiff_cells import cell_rows, libvips_takes, locate_segments, takes_cells
from gigamask.sources.tiff_header import (
    CIELAB,
    MINISBLACK,
    MINISWHITE,
    PALETTE,
    SEPARATED,
    TiffHeader,
    read_tiff_header,
)

Opener = Callable[[], Iterator[Pixels]]
_APERIO_JPEG2000 = (33003, 33005)


@dataclass(frozen=True, slots=True)
class Source:
    """rows(): blocks (n, width, channels) uint8, top to bottom, of about 8 MiB or less; raises BadImage."""

    info: ImageInfo
    _stored: Opener = field(repr=False)
    _conversion: Conversion = field(repr=False)
    _orientation: int = 1
    _mask: Opener | None = field(default=None, repr=False)

    def rows(self) -> Iterator[NDArray[np.uint8]]:
        stored_shape = upright_shape(self.info.shape, self._orientation)
        return upright(self._converted(), stored_shape, self.info.channels, self._orientation)

    def _converted(self) -> Iterator[NDArray[np.uint8]]:
        if self._mask is None:
            for block in self._stored():
                yield self._conversion.apply(block)
            return
        for block, mask in beside(self._stored(), self._mask()):
            yield self._conversion.apply(block, mask[..., 0] > 0)


def open_source(path: Path, read: ReadOptions, settings: Settings) -> Source:
    """Raises BadImage, UnsupportedImage, ImageTooLarge; InvalidOption for a `sample_range` that is missing or wrong."""
    kind = identify(path)
    if kind is Kind.CZI:
        return _slide_source(path, read, settings)
    if kind is not Kind.TIFF:
        return _picture_source(path, kind, read, settings)
    header = read_tiff_header(path, settings)
    vendor = detect_vendor(path)
    if belongs_to_openslide(vendor) or (vendor == "aperio" and header.codec in _APERIO_JPEG2000):
        return _slide_source(path, read, settings, header.codec_name)
    return _tiff_source(header, read, "aperio" if vendor == "aperio" else None)


def _picture_source(path: Path, kind: Kind, read: ReadOptions, settings: Settings) -> Source:
    picture = open_picture(path, kind)
    check_size(picture.height, picture.width, picture.bands, settings)
    conversion = plan_conversion(_picture_samples(picture), read.sample_range)
    notes = (f"first of {picture.pages} frames",) if picture.pages > 1 else ()
    info = _info((picture.height, picture.width), picture.orientation, conversion, read, format=kind.value, notes=notes)
    return Source(info, lambda: picture_rows(picture), conversion, picture.orientation)


def _picture_samples(picture: Picture) -> Samples:
    bands = picture.bands - picture.has_alpha
    model = "cmyk" if picture.space == "cmyk" else "grey" if bands < 3 else "rgb"
    alpha = bands if picture.has_alpha else None
    return Samples(model, picture.dtype, 8 * picture.dtype.itemsize, alpha, icc=picture.icc)  # type: ignore[arg-type]


def _slide_source(path: Path, read: ReadOptions, settings: Settings, codec: str | None = None) -> Source:
    slide = open_slide(path, settings)
    conversion = plan_conversion(Samples("rgb", np.dtype(np.uint8), 8, alpha=3, icc=slide.icc), None)
    info = _info(
        (slide.height, slide.width),
        1,
        conversion,
        read,
        format=slide.vendor,
        compression=codec,
        offset_px=slide.bounds,
        **_size(slide.pixel_size_um, None),
    )
    return Source(info, lambda: slide_rows(slide), conversion)


def _tiff_source(h: TiffHeader, read: ReadOptions, vendor: str | None) -> Source:
    samples, notes = _tiff_samples(h)
    if takes_cells(h):
        segments = locate_segments(h)
        if segments.gaps:
            notes += (f"{segments.gaps} of {len(segments.sizes)} segments hold no data",)
            if samples.alpha is None:  # an alpha of its own is 0 in gaps, like all that is not there
                samples = replace(samples, alpha=h.bands)
        stored: Opener = lambda: cell_rows(h, segments)  # noqa: E731
    elif libvips_takes(h):
        picture = open_picture(h.path, Kind.TIFF, h.page)
        samples = _after_libvips(samples, picture, h)
        stored = lambda: picture_rows(picture)  # noqa: E731
    else:
        raise UnsupportedImage(
            f"TIFF with {h.codec_name} compression, {h.bits} bits, photometric {h.photometric} is not read"
        )
    conversion = plan_conversion(samples, read.sample_range)
    mask = _mask_opener(h.mask) if h.mask else None
    info = _tiff_info(h, conversion, read, vendor, notes)
    return Source(info, stored, conversion, h.orientation, mask)


def _mask_opener(mask: TiffHeader) -> Opener:
    if not takes_cells(mask):
        raise UnsupportedImage(f"the image's mask has {mask.codec_name} compression, which is not read")
    segments = locate_segments(mask)
    return lambda: cell_rows(mask, segments)


def _tiff_samples(h: TiffHeader) -> tuple[Samples, tuple[str, ...]]:
    """What the tags say; `dtype` None (1 bit and the like) becomes what libvips makes of it."""
    model = {MINISWHITE: "grey", MINISBLACK: "grey", PALETTE: "palette", SEPARATED: "cmyk", CIELAB: "lab"}.get(
        h.photometric, "rgb"
    )
    colours = {"grey": 1, "palette": 1, "cmyk": 4}.get(model, 3)
    if h.bands < colours:
        raise BadImage(f"{model} has {colours} bands; this TIFF says {h.bands}")
    alpha, notes = _alpha_band(h, colours)
    if h.planes > 1:
        notes = (f"first of {h.planes} planes", *notes)
    samples = Samples(
        model,  # type: ignore[arg-type]
        h.dtype or np.dtype(np.uint8),
        h.bits,
        alpha,
        alpha is not None and h.extra[0] == 1,
        h.photometric == MINISWHITE,
        h.palette,
        h.icc,
        h.nodata,
        h.mask is not None,
    )
    return samples, notes


def _alpha_band(h: TiffHeader, colours: int) -> tuple[int | None, tuple[str, ...]]:
    """The first extra band if ExtraSamples calls it alpha and GDAL's metadata does not call it something else."""
    surplus = h.bands - colours
    if surplus < 1:
        return None, ()
    if h.extra and h.extra[0] in (1, 2) and h.role in (None, "Alpha"):
        return colours, (f"{surplus - 1} more bands are not used",) if surplus > 1 else ()
    return None, (f"{surplus} more band{'s are' if surplus > 1 else ' is'} not used: not said to be alpha",)


def _after_libvips(samples: Samples, picture: Picture, h: TiffHeader) -> Samples:
    """libvips turns palettes, 1 bit, min-is-white and associated alpha into the plain form itself."""
    bits = 8 * picture.dtype.itemsize
    changed: dict[str, Any] = {"dtype": picture.dtype, "bits": bits, "white_is_zero": False, "associated": False}
    if samples.model == "palette":
        changed |= {"model": "rgb" if picture.bands >= 3 else "grey", "palette": None, "nodata": None}
    if h.bits < 8:
        changed["nodata"] = None
    return replace(samples, **changed)


def _tiff_info(
    h: TiffHeader, conversion: Conversion, read: ReadOptions, vendor: str | None, notes: tuple[str, ...]
) -> ImageInfo:
    place = georeference_of(h)
    if place and h.orientation != 1:
        place, notes = None, (*notes, "georeference dropped: the image was turned upright")
    name = vendor or ("geotiff" if h.geokeys else "bigtiff" if h.big else "tiff")
    return _info(
        (h.height, h.width),
        h.orientation,
        conversion,
        read,
        format=name,
        compression=h.codec_name,
        georeference=place,
        notes=notes,
        **_size(micrometres_of(h), metres_of(h)),
    )


def _size(micrometres: tuple[float, float] | None, metres: tuple[float, float] | None) -> dict[str, Any]:
    if metres:
        return {"pixel_size": metres, "unit": "meter"}
    return {"pixel_size": micrometres, "unit": "micrometer"} if micrometres else {}


def _info(
    shape: tuple[int, int], orientation: int, conversion: Conversion, read: ReadOptions, **facts: Any
) -> ImageInfo:
    height, width = upright_shape(shape, orientation)
    size = facts.pop("pixel_size", None)
    if size and orientation >= 5:
        size = size[1], size[0]
    if read.pixel_size_um:
        size, facts["unit"] = (read.pixel_size_um, read.pixel_size_um), "micrometer"
    facts["notes"] = (*facts.get("notes", ()), *conversion.notes)
    with translated("the image's description cannot be kept"):
        return ImageInfo(
            height=height,
            width=width,
            channels=conversion.channels,
            pixel_size=size,
            sample_range=conversion.sample_range,
            **facts,
        )
