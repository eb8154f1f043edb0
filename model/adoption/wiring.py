"""How a graph is wired into the served form: what it is given, what it gives, and where its window lies."""

from __future__ import annotations

from dataclasses import dataclass

from model.adoption.description import Channels, Scaling
from model.adoption.frame import Frame
from model.adoption.maps import MapPort
from model.adoption.ports import ImagePort


@dataclass(frozen=True, slots=True)
class Wiring:
    """classes: how many. The rest is what `wrap` builds and `reference` tells a second time."""

    image: ImagePort
    map: MapPort
    frame: Frame
    scaling: Scaling
    channels: Channels
    classes: int
