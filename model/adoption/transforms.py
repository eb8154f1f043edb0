"""Steps before a network that act on each pixel alone, as one Scaling; others are Refused."""

from __future__ import annotations

from typing import Any

from model.adoption.description import BYTE, Scaling


class Refused(Exception):
    """A step that cannot be done tile by tile; the message says which."""


def per_channel(told: Any) -> tuple[float, ...]:
    """A number or a list of them. Raises Refused for an expression."""
    values = told if isinstance(told, list | tuple) else (told,)
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError) as exc:
        raise Refused(f"with {told!r} is no plain number") from exc


def clip(scaling: Scaling, low: Any, high: Any) -> Scaling:
    """Unchanged where 0..255 never reaches the ends. Raises Refused."""
    ends = [shift + gain * byte for gain, shift in zip(scaling.gain, scaling.shift, strict=True) for byte in (0, BYTE)]
    if (low is not None and min(ends) < float(low) - 1e-6) or (high is not None and max(ends) > float(high) + 1e-6):
        raise Refused(f"clips to {low}..{high}, and pixels are {min(ends):g}..{max(ends):g}")
    return scaling
