"""What is known of a model: told by its owner or read from the file beside it. None is what nobody said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from gigamask.errors import BadModel
from gigamask.manifest import LabelClass, PixelSize

Activation = Literal["none", "sigmoid", "softmax"]
Layout = Literal["NCHW", "NHWC"]
Channels = Literal["rgb", "bgr", "grey"]

BYTE = 255.0
USUAL_TILE_PX = 512
USUAL_STEP_PX = 32  # five halvings


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the network is given for a pixel in 0..255: gain * pixel + shift, per channel (one or three of each)."""

    gain: tuple[float, ...] = (1.0,)
    shift: tuple[float, ...] = (0.0,)

    def then(self, gain: tuple[float, ...], shift: tuple[float, ...]) -> Scaling:
        """This, and then gain * value + shift. Raises BadModel where the numbers of channels do not meet."""
        count = max(map(len, (self.gain, gain, shift)))
        a, b, c, d = (_spread(values, count) for values in (self.gain, self.shift, gain, shift))
        return Scaling(
            tuple(x * g for x, g in zip(a, c, strict=True)),
            tuple(x * g + s for x, g, s in zip(b, c, d, strict=True)),
        )

    def normalised(self, mean: tuple[float, ...], std: tuple[float, ...]) -> Scaling:
        """This, and then (value - mean) / std. Raises BadModel for a std that is not positive."""
        if min(std) <= 0:
            raise BadModel(f"std is positive, not {std}")
        count = max(len(mean), len(std))
        means, stds = _spread(mean, count), _spread(std, count)
        gains = tuple(1 / s for s in stds)
        return self.then(gains, tuple(-m / s for m, s in zip(means, stds, strict=True)))

    def over(self, channels: int) -> Scaling:
        """The same with a figure for each of so many channels. Raises BadModel."""
        return Scaling(_spread(self.gain, channels), _spread(self.shift, channels))

    @property
    def mean(self) -> tuple[float, ...]:
        """The pixel that becomes 0."""
        return tuple(-s / g for g, s in zip(self.gain, self.shift, strict=True))

    @property
    def std(self) -> tuple[float, ...]:
        return tuple(1 / g for g in self.gain)


def byte_range(low: float, high: float) -> Scaling:
    """0..255 to low..high. Raises BadModel."""
    if not low < high:
        raise BadModel(f"a range is low,high with low < high, not {low:g},{high:g}")
    return Scaling(((high - low) / BYTE,), (low,))


def _spread(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    if len(values) not in (1, count):
        raise BadModel(f"normalisation of {count} channels has 1 or {count} figures, not {len(values)}")
    return values * count if len(values) == 1 else values


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture and what the model makes of it, as its author recorded them (.npy): the acceptance test.

    sigmoid, threshold: the author's own last steps, after the graph. channel_axis: of the picture.
    """

    given: Path
    expected: Path
    channel_axis: int = 1
    sigmoid: bool = False
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Sides:
    """Pictures that a graph of free size takes: least, least + step, least + 2 step, ... px."""

    least: int
    step: int

    def round_up(self, side: int) -> int:
        return self.least + max(0, -(-(side - self.least) // self.step)) * self.step


@dataclass(frozen=True, slots=True)
class Description:
    """tile_px: side of what is labelled at once. network_px: of all that the network sees, where it must be that;
    sides: where there is a choice. halo_px: outer pixels on each side whose labels are not to be kept.

    activation: what the graph's last step was; none = raw scores. threshold: a probability. provenance: what the
    manifest repeats. notes: what was read where, and what was passed over. refusals: field -> why the file's word on it
    cannot be kept; whoever says that field lifts it.
    """

    name: str | None = None
    version: str | None = None
    title: str | None = None
    classes: tuple[LabelClass, ...] | None = None
    pixel_size: PixelSize | None = None
    tile_px: int | None = None
    network_px: int | None = None
    sides: Sides | None = None
    halo_px: int | None = None
    scaling: Scaling | None = None
    channels: Channels | None = None
    layout: Layout | None = None
    input_name: str | None = None
    output_name: str | None = None
    activation: Activation | None = None
    threshold: float | None = None
    license: str | None = None
    sample: Sample | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    refusals: Mapping[str, str] = field(default_factory=dict)

    @property
    def seen_px(self) -> int:
        """The side of what the network sees where its graph takes any: what it must be, or a tile with its halo."""
        tile_px, halo_px = self.tile_px or USUAL_TILE_PX, self.halo_px or 0
        sides = self.sides or (Sides(tile_px, USUAL_STEP_PX) if halo_px else None)
        return self.network_px or (sides.round_up(tile_px + 2 * halo_px) if sides else tile_px)

    def overridden_by(self, other: Description) -> Description:
        """What `other` says, and what only this says."""
        chosen: dict[str, Any] = {f.name: _first(getattr(other, f.name), getattr(self, f.name)) for f in fields(self)}
        chosen["provenance"] = {**self.provenance, **other.provenance}
        chosen["notes"] = (*self.notes, *other.notes)
        chosen["refusals"] = {name: why for name, why in self.refusals.items() if getattr(other, name) is None}
        return Description(**chosen)


def _first(a: object, b: object) -> object:
    return b if a is None else a
