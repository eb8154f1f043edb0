"""A training recipe: one plain TOML file that holds every knob of a run. Unknown names and wrong types are errors."""

from __future__ import annotations

import dataclasses
import tomllib
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from model.data.crops import CropRules
from model.losses import LossWeights
from model.sgnet import Architecture, Surround

RECIPES = Path(__file__).parent / "recipes"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Network:
    host: str
    tile_px: int
    imagenet: bool = True  # start the host's backbone from ImageNet weights ...
    imagenet_file: str = ""  # ... of this file; "" = of the Python package that brings them, where there is one
    trunk_file: str = ""  # an ImageNet checkpoint of STDC1 for the surround's trunk (the paper's); "" = from scratch
    surround: Surround | None = None
    host_scale: int = 1
    ensemble: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """AdamW, learning rate warmed up linearly, then (1 - progress)^poly_power to zero."""

    iterations: int
    batch: int
    learning_rate: float
    backbone_rate_share: float = 1.0  # of the learning rate, for layers that start from ImageNet
    weight_decay: float = 1e-4
    warmup_iterations: int = 0
    poly_power: float = 0.9
    clip_norm: float = 0.0  # 0: no clipping
    checkpoint_every: int = 25


@dataclass(frozen=True, slots=True)
class Recipe:
    name: str
    version: str
    dataset: str
    seed: int
    network: Network
    schedule: Schedule
    crops: CropRules = field(default_factory=CropRules)
    loss: LossWeights = field(default_factory=LossWeights)

    def architecture(self, classes: int) -> Architecture:
        told = self.network
        return Architecture(told.host, classes, told.tile_px, told.surround, told.host_scale, told.ensemble)


def find_recipe(name: str) -> Path:
    """A path to a TOML file, or the name of a shipped recipe."""
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise FileNotFoundError(f"no recipe {path}; shipped recipes: {shipped}")
    return path


def read_recipe(path: Path) -> Recipe:
    try:
        return from_table(Recipe, tomllib.loads(path.read_text()), path.name)
    except tomllib.TOMLDecodeError as exc:
        raise ValueError(f"{path}: {exc}") from exc


def from_table(kind: type[T], table: dict[str, Any], where: str) -> T:
    """A frozen dataclass from a TOML table or JSON object, nested ones included."""
    hints = get_type_hints(kind)
    unknown = sorted(table.keys() - hints.keys())
    if unknown:
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(hints)}")
    required = {f.name for f in dataclasses.fields(kind) if _is_required(f)}  # type: ignore[arg-type]
    missing = sorted(required - table.keys())
    if missing:
        raise ValueError(f"{where}: {missing[0]!r} is missing")
    return kind(**{name: _value(hints[name], value, f"{where}: {name}") for name, value in table.items()})


def _is_required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _value(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) is types.UnionType:  # X | None
        if value is None:
            return None
        hint = next(arm for arm in get_args(hint) if arm is not type(None))
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_table(hint, value, where)  # type: ignore[arg-type]
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_value(get_args(hint)[0], item, where) for item in value)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{where}: expected one of {', '.join(map(repr, get_args(hint)))}, got {value!r}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint):
        raise ValueError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {value!r}")
    return value
