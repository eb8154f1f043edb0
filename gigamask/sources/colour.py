"""Stored samples become RGB in uint8 sRGB, with a fourth channel where some pixels are no-data.

8-bit samples stay as they are; wider ones go linearly from `sample_range` to 0..255, rounded. CMYK without a profile
is the closed form (1 - c)(1 - k); CIELAB is TIFF 6.0, section 23; a profile other than sRGB goes through LittleCMS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gigamask.errors import InvalidOption, UnsupportedImage

Pixels = NDArray[Any]
Model = Literal["grey", "rgb", "palette", "cmyk", "lab"]
COLOUR_BANDS: dict[str, int] = {"grey": 1, "palette": 1, "rgb": 3, "lab": 3, "cmyk": 4}
_ICC_SPACES = {"grey": b"GRAY", "palette": b"RGB ", "rgb": b"RGB ", "cmyk": b"CMYK"}


@dataclass(frozen=True, slots=True)
class Samples:
    """What a decoder yields.

    alpha: index of the band that says where data is, None where none does. associated: colours are multiplied by it.
    palette: (n, 3) uint8. nodata: the stored value that, in all colour bands, means no data.
    has_mask: a mask comes beside.
    """

    model: Model
    dtype: np.dtype[Any]
    bits: int
    alpha: int | None = None
    associated: bool = False
    white_is_zero: bool = False
    palette: NDArray[np.uint8] | None = None
    icc: bytes | None = None
    nodata: float | None = None
    has_mask: bool = False


@dataclass(frozen=True, slots=True)
class Conversion:
    """apply(block (n, w, bands), mask (n, w) bool or None) -> (n, w, channels) uint8"""

    samples: Samples
    sample_range: tuple[float, float] | None
    notes: tuple[str, ...] = ()
    _table: NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def channels(self) -> Literal[3, 4]:
        s = self.samples
        has_gaps = s.alpha is not None or s.nodata is not None or s.has_mask or s.dtype.kind == "f"
        return 4 if has_gaps else 3

    def apply(self, block: Pixels, mask: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        colour = block[..., : COLOUR_BANDS[self.samples.model]]
        rgb = self._rgb(self._unmultiplied(colour, block))
        if self.channels == 3:
            return rgb
        out = np.empty((*rgb.shape[:2], 4), np.uint8)
        out[..., :3] = rgb
        out[..., 3] = np.where(self._valid(colour, block, mask), 255, 0)
        return out

    def _unmultiplied(self, colour: Pixels, block: Pixels) -> Pixels:
        s = self.samples
        if not s.associated or s.alpha is None:
            return colour
        opaque = 1.0 if s.dtype.kind == "f" else float(2**s.bits - 1)
        alpha = np.maximum(block[..., s.alpha, None].astype(np.float64), 1e-9)
        return np.rint(np.minimum(colour * (opaque / alpha), opaque)).astype(s.dtype)

    def _valid(self, colour: Pixels, block: Pixels, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        s = self.samples
        valid = np.ones(block.shape[:2], bool) if mask is None else mask
        if s.alpha is not None:
            valid = valid & (block[..., s.alpha] > 0)
        if s.nodata is not None:
            valid = valid & (colour != np.asarray(s.nodata).astype(s.dtype)).any(axis=-1)
        if s.dtype.kind == "f":
            valid = valid & np.isfinite(colour).all(axis=-1)
        return valid

    def _rgb(self, colour: Pixels) -> NDArray[np.uint8]:
        s = self.samples
        if s.model == "palette" and s.palette is not None:
            return self._to_srgb(np.take(s.palette, colour[..., 0], axis=0, mode="clip"))
        if s.model == "lab":
            return lab_to_srgb(colour)
        level = self._scaled(colour)
        level = 255 - level if s.white_is_zero else level
        if s.icc is None and s.model == "cmyk":
            return cmyk_to_rgb(level)
        level = self._to_srgb(level)
        return np.repeat(level, 3, axis=-1) if level.shape[-1] == 1 else level

    def _scaled(self, colour: Pixels) -> NDArray[np.uint8]:
        if self.sample_range is None:
            return colour.astype(np.uint8, copy=False)
        if self._table is not None:
            index = colour.view(f"u{colour.itemsize}") if colour.dtype.kind == "i" else colour
            level: NDArray[np.uint8] = np.take(self._table, index)
            return level
        return scale(colour, self.sample_range)

    def _to_srgb(self, level: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.samples.icc is None:
            return level
        return through_profile(level, self.samples.icc, self.samples.model)


def plan_conversion(samples: Samples, sample_range: tuple[float, float] | None) -> Conversion:
    """Raises InvalidOption where the range is needed or wrong, UnsupportedImage where the samples have no meaning."""
    if samples.dtype.kind not in "uif":
        raise UnsupportedImage(f"samples are integers or real numbers, not {samples.dtype}")
    icc, notes = _usable_profile(samples)
    nodata, more = _usable_nodata(samples)
    samples = replace(samples, icc=icc, nodata=nodata)
    span = _range(samples, sample_range)
    return Conversion(samples, span, notes + more, _lookup(samples.dtype, span))


def _range(samples: Samples, asked: tuple[float, float] | None) -> tuple[float, float] | None:
    plain = samples.dtype == np.uint8 and samples.bits == 8
    if samples.model in ("palette", "lab") or (plain and asked is None):
        return None
    if asked is not None:
        if not (np.isfinite(asked).all() and asked[0] < asked[1]):
            raise InvalidOption(f"sample_range is (low, high) with low < high, not {asked}")
        return asked
    if samples.dtype.kind == "f":
        raise InvalidOption(
            f"{samples.dtype} samples have no natural range: give sample_range, the values that become 0 and 255"
        )
    if samples.dtype.kind == "i":
        return float(-(2 ** (samples.bits - 1))), float(2 ** (samples.bits - 1) - 1)
    return 0.0, float(2**samples.bits - 1)


def scale(values: Pixels, span: tuple[float, float]) -> NDArray[np.uint8]:
    """round(255 (v - low) / (high - low)), clipped; NaN becomes 0."""
    low, high = span
    with np.errstate(invalid="ignore", over="ignore"):
        level: Pixels = np.rint((values.astype(np.float64) - low) * (255.0 / (high - low)))
    result: NDArray[np.uint8] = np.nan_to_num(np.clip(level, 0, 255), nan=0.0).astype(np.uint8)
    return result


def _lookup(dtype: np.dtype[Any], span: tuple[float, float] | None) -> NDArray[np.uint8] | None:
    """A table for 8 and 16 bits, indexed by the bits as an unsigned number."""
    if span is None or dtype.kind not in "ui" or dtype.itemsize > 2:
        return None
    bits = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
    return scale(bits.view(f"{dtype.kind}{dtype.itemsize}"), span)


def cmyk_to_rgb(cmyk: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """round((255 - c)(255 - k) / 255)"""
    light = 255 - cmyk.astype(np.uint16)
    product = light[..., :3].astype(np.uint32) * light[..., 3:]
    return ((product + 127) // 255).astype(np.uint8)


def lab_to_srgb(lab: Pixels) -> NDArray[np.uint8]:
    """lab: 8-bit, L in 0..255 for 0..100, a and b two's complement; or 16-bit, 256 times finer for a and b."""
    fine = lab.dtype.itemsize == 2
    values = np.empty(lab.shape, np.float32)
    values[..., 0] = lab[..., 0].astype(np.float32) * (100 / (65535 if fine else 255))
    values[..., 1:] = lab[..., 1:].astype(np.int16 if fine else np.int8).astype(np.float32) / (256 if fine else 1)
    return _vips(values, "lab", lambda image: image.colourspace("srgb"))


def through_profile(level: NDArray[np.uint8], icc: bytes, model: Model) -> NDArray[np.uint8]:
    """Embedded profile -> sRGB, perceptual as ICC viewers do."""
    space = {"grey": "b-w", "palette": "srgb"}.get(model, "cmyk" if model == "cmyk" else "srgb")

    def convert(image: Any) -> Any:
        image = image.copy()
        image.set_type(_blob_type(), "icc-profile-data", icc)
        return image.icc_transform("srgb", embedded=True, intent="perceptual")

    return _vips(level, space, convert)


def _blob_type() -> int:
    from pyvips import GValue

    return int(GValue.blob_type)


def _vips(pixels: Pixels, space: str, convert: Callable[[Any], Any]) -> NDArray[np.uint8]:
    from gigamask.sources.libvips import library

    pixels = np.ascontiguousarray(pixels)
    height, width, bands = pixels.shape
    form = "uchar" if pixels.dtype == np.uint8 else "float"
    image = library().Image.new_from_memory(pixels.data, width, height, bands, form).copy(interpretation=space)
    result: NDArray[np.uint8] = convert(image).cast("uchar").numpy()
    return result.reshape(height, width, -1)


def _usable_profile(samples: Samples) -> tuple[bytes | None, tuple[str, ...]]:
    """The profile if it changes anything and fits, and what to say where it does not fit."""
    icc = samples.icc
    if icc is None or samples.model == "lab" or is_srgb(icc):
        return None, ()
    space = icc[16:20]
    if icc[36:40] != b"acsp" or space != _ICC_SPACES[samples.model]:
        return None, (f"colour profile ignored: it is for {space!r} and the image is {samples.model}",)
    return icc, ()


def _usable_nodata(samples: Samples) -> tuple[float | None, tuple[str, ...]]:
    """The no-data value unless no sample can have it: a cast would make another value of it."""
    value, dtype = samples.nodata, samples.dtype
    if value is None or holds(dtype, value):
        return value, ()
    return None, (f"no-data value {value:g} ignored: no {dtype} sample has it",)


def holds(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a sample can be `value`, which real numbers may round (GDAL writes it as a decimal text)."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return not np.isfinite(value) or bool(np.isfinite(np.float64(value).astype(dtype)))
    limits = np.iinfo(dtype)
    return float(value).is_integer() and int(limits.min) <= int(value) <= int(limits.max)


def is_srgb(icc: bytes) -> bool:
    """By the profile's own description (ICC.1 section 9.2.41: tag `desc`)."""
    count = int.from_bytes(icc[128:132], "big")
    for entry in range(min(count, 100)):
        at = 132 + 12 * entry
        if icc[at : at + 4] == b"desc":
            start, size = (int.from_bytes(icc[at + k : at + k + 4], "big") for k in (4, 8))
            text = icc[start : start + min(size, 1024)].replace(b"\0", b"")
            return b"sRGB" in text
    return False
