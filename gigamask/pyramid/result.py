"""A result as others find it: an OME-Zarr with the image at its root and masks below `labels`, opened for reading.

All that is derived from a result (tiles, files, statistics) starts here, from the tree alone: the model's folder may be
gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gigamask.errors import NotFound
from gigamask.geometry import Box
from gigamask.image_info import ImageInfo
from gigamask.legend import Legend, legend_of
from gigamask.pyramid import ngff
from gigamask.pyramid.arrays import Pixels
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskPyramid, mask_folder


@dataclass(frozen=True, slots=True)
class Result:
    """name: the label image's, which is the model's. attributes: the label image's own group attributes."""

    root: Path
    name: str
    image: ImagePyramid
    mask: MaskPyramid
    legend: Legend
    attributes: ngff.Attributes

    @property
    def info(self) -> ImageInfo:
        return self.image.info

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.info.shape

    @property
    def provenance(self) -> ngff.Attributes:
        """Model, options and software, as gigamask.pyramid.ngff.provenance wrote them."""
        found: ngff.Attributes = self.attributes["gigamask"]["provenance"]
        return found

    def labels(self, box: Box, level: int = 0) -> Pixels:
        """box: in pixels of `level`. (h, w). Raises IndexError where it leaves the level."""
        return self.mask.read(box, level)

    def pixels(self, box: Box, level: int = 0) -> Pixels:
        """box: in pixels of `level`. (3 or 4, h, w). Raises IndexError where it leaves the level."""
        return self.image.read(box, level)


def label_names(root: Path) -> list[str]:
    """Raises NotFound where `root` is no result."""
    try:
        names: list[str] = ngff.read_attributes(root / "labels")["ome"]["labels"]
    except (FileNotFoundError, KeyError) as exc:
        raise NotFound(f"{root} is no result: it has no labels") from exc
    return names


def open_result(root: Path, name: str | None = None) -> Result:
    """name: which label image; None = the first. Raises NotFound, naming what there is."""
    names = label_names(root)
    chosen = names[0] if name is None and names else name
    if chosen not in names:
        raise NotFound(f"no label image {chosen!r}; there are: {', '.join(names) or 'none'}")
    folder = mask_folder(root, chosen)
    attributes = ngff.read_attributes(folder)
    levels = len(attributes["ome"]["multiscales"][0]["datasets"])
    legend = legend_of(attributes["ome"]["image-label"])
    return Result(root, chosen, ImagePyramid(root), MaskPyramid(folder, levels), legend, attributes)
