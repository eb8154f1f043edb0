"""How many of an image's pixels make one pixel of the size that a model was trained at: told by both, never guessed."""

from __future__ import annotations

from math import log2, sqrt

from gigamask.errors import InvalidOption
from gigamask.image_info import ImageInfo
from gigamask.job import Resolution
from gigamask.manifest import ModelManifest, PixelSize

SNAP = 0.05  # so near to a power of two, a level of the pyramid is taken as it is
MOST_ENLARGED = 8.0
_AS_IT_IS = "resolution=native takes the pixels as they are"


def choose_scale(info: ImageInfo, manifest: ModelManifest, resolution: Resolution) -> float:
    """Level-0 pixels along one pixel of the model's: 2.0 for a model of 0.5 um on an image of 0.25 um.

    1.0 where the pixels are taken as they are. Raises InvalidOption where the image does not say how large its pixels
    are, says it in another unit, or would be enlarged beyond sense.
    """
    if resolution == "native" or manifest.pixel_size is None:
        return 1.0
    wanted = manifest.pixel_size
    scale = _snapped(wanted.value / _side(info, wanted, manifest.name))
    if scale * MOST_ENLARGED < 1:
        raise InvalidOption(
            f"{_told(wanted, manifest.name)}, {1 / scale:.3g} times finer than this image: "
            f"at most {MOST_ENLARGED:.0f} times; {_AS_IT_IS}"
        )
    return scale


def _side(info: ImageInfo, wanted: PixelSize, name: str) -> float:
    """Of the image's pixels, in the model's unit."""
    if info.pixel_size is None or info.unit is None:
        how = "give pixel_size_um (--pixel-size-um)" if wanted.unit == "micrometer" else "give a geo-referenced file"
        raise InvalidOption(f"{_told(wanted, name)}, and the image does not say how large its are: {how}; {_AS_IT_IS}")
    if info.unit != wanted.unit:
        raise InvalidOption(f"{_told(wanted, name)}, and the image is measured in {info.unit}s; {_AS_IT_IS}")
    height, width = info.pixel_size
    if abs(height / width - 1) > SNAP:
        raise InvalidOption(
            f"{_told(wanted, name)}, square; the image's are {height:g} x {width:g} {info.unit}s; {_AS_IT_IS}"
        )
    return sqrt(height * width)


def _told(wanted: PixelSize, name: str) -> str:
    return f"{name} wants pixels of {wanted.value:g} {wanted.unit}s"


def _snapped(scale: float) -> float:
    power = 2.0 ** round(log2(scale))
    return power if abs(scale / power - 1) <= SNAP else scale
