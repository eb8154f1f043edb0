"""How large a pixel is and where on Earth it lies, only where the file can be believed.

72 or 96 dpi say how to print, not what was seen: resolution tags count only in centimetres and at a microscope's scale.
"""

from __future__ import annotations

import math
import re
from enum import Enum
from typing import Any

from gigamask.image_info import Georeference
from gigamask.sources.tiff_header import TiffHeader

PLAUSIBLE_UM = (0.02, 20.0)
MAX_KEY_NUMBERS = 1000
_OME_UNITS_UM = {"nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "mm": 1e3}
_LINEAR_UNITS_M = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937}
_USER_DEFINED = 32767


def micrometres_of(header: TiffHeader) -> tuple[float, float] | None:
    """(y, x), from Aperio's description, OME-XML or the resolution tags, in this order."""
    text = header.description
    if text.startswith("Aperio"):
        found = re.search(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)", text)
        return _plausible(found[1], found[1]) if found else None
    if "<OME" in text[:4096]:
        return _ome_size(text)
    return _plausible(*header.resolution, low=0.05, high=5.0) if header.resolution else None


def _ome_size(text: str) -> tuple[float, float] | None:
    sizes = [_ome_axis(text, axis) for axis in "YX"]
    return _plausible(sizes[0], sizes[1])


def _ome_axis(text: str, axis: str) -> float | None:
    size = re.search(rf'\bPhysicalSize{axis}="([^"]+)"', text)
    unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]+)"', text)
    factor = _OME_UNITS_UM.get(unit[1].replace("&#181;", "µ") if unit else "um")
    try:
        return float(size[1]) * factor if size and factor else None
    except ValueError:
        return None


def _plausible(
    y: str | float | None, x: str | float | None, low: float = PLAUSIBLE_UM[0], high: float = PLAUSIBLE_UM[1]
) -> tuple[float, float] | None:
    try:
        sizes = (float(y), float(x)) if y is not None and x is not None else None
    except ValueError:
        return None
    return sizes if sizes and all(low <= size <= high for size in sizes) else None


def georeference_of(header: TiffHeader) -> Georeference | None:
    """From GeoTIFF keys; the transform's origin is the outer corner of the first pixel, as GDAL has it."""
    keys = header.geokeys
    if not keys:
        return None
    return Georeference(epsg=_epsg(keys), transform=_transform(keys), keys=_plain_keys(keys))


def metres_of(header: TiffHeader) -> tuple[float, float] | None:
    """(y, x) of a pixel in a projected system with a known linear unit; None in degrees."""
    transform, keys = _transform(header.geokeys), header.geokeys
    factor = _LINEAR_UNITS_M.get(_code(keys.get("ProjLinearUnitsGeoKey", 9001)))
    if transform is None or factor is None or _code(keys.get("GTModelTypeGeoKey")) != 1:
        return None
    _, dx, rx, _, ry, dy = transform
    size = math.hypot(rx, dy) * factor, math.hypot(dx, ry) * factor
    return size if min(size) > 0 else None


def _epsg(keys: dict[str, Any]) -> int | None:
    name = {1: "ProjectedCSTypeGeoKey", 2: "GeographicTypeGeoKey"}.get(_code(keys.get("GTModelTypeGeoKey")))
    code = _code(keys.get(name)) if name else 0
    return code if 1024 <= code < _USER_DEFINED else None


def _transform(keys: dict[str, Any]) -> tuple[float, float, float, float, float, float] | None:
    matrix = _numbers(keys.get("ModelTransformation"))
    scale, tie = _numbers(keys.get("ModelPixelScale")), _numbers(keys.get("ModelTiepoint"))
    if len(matrix) == 16:
        dx, rx, x0, ry, dy, y0 = matrix[0], matrix[1], matrix[3], matrix[4], matrix[5], matrix[7]
    elif len(scale) == 3 and len(tie) == 6:
        dx, rx, ry, dy = scale[0], 0.0, 0.0, -scale[1]
        x0, y0 = tie[3] - tie[0] * dx, tie[4] - tie[1] * dy
    else:
        return None
    if _code(keys.get("GTRasterTypeGeoKey")) == 2:  # the tie point is a pixel's centre
        x0, y0 = x0 - (dx + rx) / 2, y0 - (dy + ry) / 2
    values = (x0, dx, rx, y0, ry, dy)
    return values if all(map(math.isfinite, values)) else None


def _code(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _numbers(value: Any) -> list[float]:
    """A flat list of numbers; empty for anything else."""
    try:
        flat = [float(v) for v in value]
    except (TypeError, ValueError):
        return []
    return flat


def _plain_keys(keys: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, raw in keys.items() if (value := _plain(raw)) is not None}


def _plain(value: Any) -> Any:
    """JSON without NaN; None for what is too long to keep."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)) and len(value) <= MAX_KEY_NUMBERS:
        return [_plain(part) for part in value]
    return None
