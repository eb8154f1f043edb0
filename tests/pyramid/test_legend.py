"""Names and colours of labels, from a result's own metadata."""

from __future__ import annotations

import numpy as np
import pytest

from gigamask.errors import InvalidOption
from gigamask.image_info import ImageInfo
from gigamask.legend import Legend, legend_of, parse_colors
from gigamask.manifest import LabelClass, ModelManifest
from gigamask.pyramid.ngff import label_attributes

CLASSES = (LabelClass(id=0, name="sea", color="#0000ff"), LabelClass(id=1, name="land", color="#00ff00"))


def test_the_legend_of_a_published_mask_is_its_models() -> None:
    manifest = ModelManifest(
        name="m", version="1", tile_px=512, alpha=1, mean=(0, 0, 0), std=(1, 1, 1), classes=CLASSES, files={},
        license="x",
    )  # fmt: skip
    info = ImageInfo(height=10, width=10, channels=3, format="tiff")
    attributes = label_attributes(info, 1, manifest, {0: 60, 1: 40}, {})
    assert legend_of(attributes["ome"]["image-label"]) == Legend(CLASSES)


def test_no_data_is_transparent_and_a_label_without_a_class_grey() -> None:
    palette = Legend(CLASSES).palette()
    assert palette.shape == (256, 4)
    assert palette.dtype == np.uint8
    assert [palette[i].tolist() for i in (0, 1, 7, 255)] == [
        [0, 0, 255, 255], [0, 255, 0, 255], [128, 128, 128, 255], [0, 0, 0, 0],
    ]  # fmt: skip


def test_a_label_has_its_class_or_a_grey_one() -> None:
    assert Legend(CLASSES).entry(1) == CLASSES[1]
    assert Legend(CLASSES).entry(7) == LabelClass(id=7, name="label 7", color="#808080")


def test_colours_change_and_names_stay() -> None:
    changed = Legend(CLASSES).recolored(parse_colors("1:FF8800"))
    assert [(c.name, c.color) for c in changed.classes] == [("sea", "#0000ff"), ("land", "#ff8800")]


@pytest.mark.parametrize("text", ["1", "1:red", "1:fff", "-1:ffffff", "x:ffffff"])
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption, match="a colour is id:rrggbb"):
        parse_colors(text)


def test_a_colour_for_a_class_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"no class has the id 7; there are \[0, 1\]"):
        Legend(CLASSES).recolored(parse_colors("7:ffffff"))
