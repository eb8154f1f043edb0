"""Results with any labels, made without a model, and masks that look like masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from gigamask.manifest import NO_DATA, LabelClass, ModelManifest
from gigamask.plan import Plan
from gigamask.pyramid import ngff
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskWriter, mask_folder
from gigamask.pyramid.result import Result, open_result
from tests.pictures import picture, write_image

Labels = NDArray[np.uint8]
COLORS = ("#1f4e9c", "#b9a66b", "#35c9e0", "#d03030")
NAMES = ("ocean", "land", "lake", "city")


def blobs(shape: tuple[int, int], classes: int = 3, size_px: float = 6.0, seed: int = 0) -> Labels:
    """(h, w): smooth patches of so many classes, with a disc of no data."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), size_px)
    edges = np.quantile(field, np.arange(1, classes) / classes)
    labels = np.digitize(field, edges).astype(np.uint8)
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels[(y - shape[0] / 3) ** 2 + (x - shape[1] / 2) ** 2 < (min(shape) / 5) ** 2] = NO_DATA
    return labels


def manifest(names: Sequence[str] = NAMES, **changed: Any) -> ModelManifest:
    classes = tuple(LabelClass(id=i, name=name, color=COLORS[i % 4]) for i, name in enumerate(names))
    given = {
        "name": "patches",
        "version": "1.2.0",
        "tile_px": 512,
        "alpha": 2,
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
        "classes": classes,
        "files": {"onnx": {"path": "model.onnx", "sha256": "ab" * 32}},
        "license": "Apache-2.0",
    }
    return ModelManifest.model_validate(given | changed)


def make_result(
    root: Path, labels: Labels, names: Sequence[str] = NAMES, options: dict[str, Any] | None = None, **info: Any
) -> Result:
    """labels: (h, w), of the classes `names`. options: of the job. info: of the image."""
    write_image(root, picture(labels.shape), **info)
    image, model = ImagePyramid(root), manifest(names)
    plan = Plan(labels.shape, 512, 2, 512)
    mask = MaskWriter(mask_folder(root, model.name), plan)
    mask.create()
    for region in plan.regions():
        mask.write_region(region, labels[region.box.slices])
    mask.build_upper_levels()
    areas = dict(enumerate(np.bincount(labels.ravel(), minlength=NO_DATA + 1).tolist()))
    made_by = ngff.provenance(model, options or {"region_px": 512})
    ngff.write_group(mask.root, ngff.label_attributes(image.info, plan.levels, model, areas, made_by))
    ngff.write_group(root / "labels", ngff.labels_attributes([model.name]))
    ngff.write_group(root, ngff.image_attributes(image.info, plan.levels, "image", made_by))
    return open_result(root)
