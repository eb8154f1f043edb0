"""How pixels become what a network was trained on, as people write it: a scale or a range, then mean and std."""

from __future__ import annotations

import re

from gigamask.errors import InvalidOption
from model.adoption.description import Description, Scaling, byte_range


def parse_normalisation(scale: str | None, pixel_range: str | None, mean: str | None, std: str | None) -> Description:
    """The scaling, with a note where a unit was assumed; empty where nobody said a thing. Raises GigamaskError."""
    if scale and pixel_range:
        raise InvalidOption("pixels are brought to a range or multiplied by a scale: --range or --scale, not both")
    if not any((scale, pixel_range, mean, std)):
        return Description()
    means, stds = _numbers(mean or "0", "--mean"), _numbers(std or "1", "--std")
    first, notes = _unit_of(means, stds)
    if scale:
        first, notes = Scaling((_fraction(scale),)), ()
    if pixel_range:
        first, notes = byte_range(*_pair(pixel_range)), ()
    return Description(scaling=first.normalised(means, stds), notes=notes)


def _unit_of(means: tuple[float, ...], stds: tuple[float, ...]) -> tuple[Scaling, tuple[str, ...]]:
    """Figures of at most 1 are of pixels in 0..1, as torchvision's; larger ones of bytes."""
    small = max((*map(abs, means), *stds)) <= 1
    note = f"mean and std are of pixels in {'0..1' if small else '0..255'}, by their size (--range)"
    return (byte_range(0, 1) if small else Scaling()), (note,)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as exc:
        raise InvalidOption(f"{option} is a number or three, such as 0.485,0.456,0.406, not {text!r}") from exc


def _pair(text: str) -> tuple[float, float]:
    found = _numbers(text, "--range")
    if len(found) != 2:
        raise InvalidOption(f"--range is two numbers, such as 0,1, not {text!r}")
    return found[0], found[1]


def _fraction(text: str) -> float:
    """`1/255`, or a number."""
    match = re.fullmatch(r"([0-9.eE+-]+)(?:/([0-9.eE+-]+))?", text.strip())
    try:
        found = float(match[1]) / float(match[2] or 1) if match else 0.0
    except (ValueError, ZeroDivisionError):
        found = 0.0
    if found <= 0:
        raise InvalidOption(f"--scale is a positive number or a fraction, such as 1/255, not {text!r}")
    return found
