"""What the labels of a mask mean and how they look: names and colours, from a model's manifest or a published result.

Colours may be changed by whoever looks (`0:ff8800,3:00ff00`); names and ids stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigamask.errors import InvalidOption
from gigamask.manifest import NO_DATA, LabelClass

_COLOR = re.compile(r"(\d{1,3}):#?([0-9a-fA-F]{6})")


@dataclass(frozen=True, slots=True)
class Legend:
    """classes: id = label, in the order of their ids. Labels without a class are grey, no data (255) is transparent."""

    classes: tuple[LabelClass, ...]

    def entry(self, label: int) -> LabelClass:
        """The label's class, or a grey one of its own where it has none."""
        known = (entry for entry in self.classes if entry.id == label)
        return next(known, None) or LabelClass(id=label, name=f"label {label}", color="#808080")

    def palette(self) -> NDArray[np.uint8]:
        """(256, 4) RGBA: row i is the colour of label i."""
        rows = np.full((NO_DATA + 1, 4), (128, 128, 128, 255), np.uint8)
        for entry in self.classes:
            rows[entry.id] = entry.rgba
        rows[NO_DATA] = 0
        return rows

    def recolored(self, colors: Mapping[int, str]) -> Legend:
        """colors: label -> `#rrggbb`. Raises InvalidOption for a label that has no class."""
        known = {entry.id for entry in self.classes}
        if unknown := sorted(set(colors) - known):
            raise InvalidOption(f"no class has the id {unknown[0]}; there are {sorted(known)}")
        changed = (c.model_copy(update={"color": colors.get(c.id, c.color)}) for c in self.classes)
        return replace(self, classes=tuple(changed))


def parse_colors(text: str) -> dict[int, str]:
    """`0:ff8800,3:#00ff00` -> label -> `#rrggbb`. Raises InvalidOption."""
    found = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = _COLOR.fullmatch(part)
        if match is None:
            raise InvalidOption(f"a colour is id:rrggbb, such as 0:ff8800, not {part!r}")
        found[int(match[1])] = f"#{match[2].lower()}"
    return found


def legend_of(image_label: Mapping[str, Any]) -> Legend:
    """From the `image-label` metadata of a published mask (gigamask.pyramid.ngff.label_attributes)."""
    names = {entry["label-value"]: entry["name"] for entry in image_label["properties"]}
    entries: Sequence[Mapping[str, Any]] = image_label["colors"]
    colors = {entry["label-value"]: bytes(entry["rgba"][:3]).hex() for entry in entries}
    labels = sorted(label for label in colors if label != NO_DATA)
    return Legend(tuple(LabelClass(id=i, name=names[i], color=f"#{colors[i]}") for i in labels))
