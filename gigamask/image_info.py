"""What is read once from an image file and kept in the metadata of everything derived from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat


class Georeference(BaseModel):
    """transform: GDAL order (x0, dx, rx, y0, ry, dy): x = x0 + col * dx + row * rx, y = y0 + col * ry + row * dy.

    keys: the GeoTIFF keys as written, for a CRS that has no EPSG code.
    """

    model_config = ConfigDict(frozen=True)

    epsg: int | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    keys: dict[str, Any] = {}


class ImageInfo(BaseModel):
    """An upright level-0 image as our pyramid holds it.

    channels: 3 (RGB) or 4 (RGB + validity: 255 where the image has data, 0 where it has none).
    pixel_size: (y, x), in `unit`; None where the file does not say.
    offset_px: (y, x) of this image's origin in the scanner's frame (openslide.bounds).
    sample_range: the values that became 0 and 255, for images of more than 8 bits.
    notes: what a person should know of how the file was read ("first of 15 planes").
    """

    model_config = ConfigDict(frozen=True)

    height: Annotated[int, Field(gt=0)]
    width: Annotated[int, Field(gt=0)]
    channels: Literal[3, 4]
    format: str
    compression: str | None = None
    pixel_size: tuple[float, float] | None = None
    unit: Literal["micrometer", "meter"] | None = None
    offset_px: tuple[int, int] = (0, 0)
    sample_range: tuple[float, float] | None = None
    georeference: Georeference | None = None
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def megapixels(self) -> float:
        return self.height * self.width / 1e6

    @property
    def pixel_area(self) -> float | None:
        """In `unit` squared."""
        return self.pixel_size[0] * self.pixel_size[1] if self.pixel_size and self.unit else None

    @property
    def lies_on_earth(self) -> bool:
        """Whether its pixels have coordinates, in a CRS that may be unknown."""
        return self.georeference is not None and self.georeference.transform is not None


class ReadOptions(BaseModel):
    """How to read an image where its file says too little.

    pixel_size_um: side of a pixel in micrometres, over what the file says.
    sample_range: for images of more than 8 bits, the values that become 0 and 255; default: the type's whole range
    (0..65535 for uint16). Floating-point images need it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixel_size_um: Annotated[FiniteFloat, Field(gt=0)] | None = None
    sample_range: tuple[FiniteFloat, FiniteFloat] | None = None
