"""A training recipe: one plain TOML file that holds every knob of a run. Unknown names and wrong types are errors."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch

from gigamask.plan import REGION_SIDES_PX
from model.data.crops import CropRules
from model.deployed import context_rule
from model.hosts import build_host
from model.losses import LossWeights
from model.sgnet import Architecture, Surround, check

RECIPES = Path(__file__).parent / "recipes"

T = TypeVar("T")

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # as a model folder may be called (gigamask.manifest)
_STRIDE = 32  # of the deepest map of a host


@dataclass(frozen=True, slots=True)
class Network:
    """host: one of model.hosts. tile_px: t. surround: the branch; without it the host alone is trained."""

    host: str
    tile_px: int
    imagenet: bool = True  # start the host's backbone from ImageNet weights ...
    imagenet_file: str = ""  # ... of this file; "" = of the Python package that brings them, where there is one
    trunk_file: str = ""  # an ImageNet checkpoint of STDC1 for the surround's trunk (the paper's); "" = from scratch
    surround: Surround | None = None
    host_scale: int = 1
    ensemble: bool = False
    context: Literal["tile", "trunk_shared", "neighbourhood"] = "tile"  # what the model folder is exported for


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
    validate_every: int = 1000  # and at the end, where the data set has pictures for it; the best is kept. 0: never


@dataclass(frozen=True, slots=True)
class Machine:
    """How a run uses the machine it is on. The crops it sees and its schedule are the same on any."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 (autocast) on a GPU, float32 on a CPU
    compile: bool = False  # torch.compile, on a GPU
    loaders: int = -1  # processes that draw crops ahead; -1: up to 12 for a GPU, none for a CPU
    tensorboard: bool = True  # write a TensorBoard log too, where the package is installed


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
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        for complaint in complaints(self):
            raise ValueError(complaint)
        check(self.architecture(classes=1))
        context_rule(self.network.context, self.network.surround)

    def architecture(self, classes: int) -> Architecture:
        told = self.network
        return Architecture(told.host, classes, told.tile_px, told.surround, told.host_scale, told.ensemble)


def complaints(recipe: Recipe) -> Iterator[str]:
    """What is wrong with a recipe whatever the data: the knob, what is expected of it, what it has."""
    network, schedule = recipe.network, recipe.schedule
    if not _NAME.fullmatch(recipe.name):
        yield f"name: expected up to 63 lower-case letters, digits and hyphens, got {recipe.name!r}"
    if recipe.seed < 0:
        yield f"seed: expected 0 or more, got {recipe.seed}"
    if network.host_scale < 1 or network.tile_px < 1 or network.tile_px % (_STRIDE * network.host_scale):
        yield f"network.tile_px: expected a multiple of {_STRIDE * max(1, network.host_scale)}, got {network.tile_px}"
    if not any(side % network.tile_px == 0 for side in REGION_SIDES_PX):
        yield f"network.tile_px: expected a divisor of one of {REGION_SIDES_PX}, got {network.tile_px}"
    surround_px = network.tile_px * (network.surround.alpha if network.surround else 1)
    if surround_px > max(REGION_SIDES_PX):
        yield (
            f"network.tile_px: expected a surround of at most {max(REGION_SIDES_PX)} px, got"
            f" {network.tile_px} times network.surround.alpha, {surround_px} px"
        )
    if network.trunk_file and (network.surround is None or network.surround.trunk != "stdc"):
        yield "network.trunk_file: expected a network.surround with trunk = 'stdc' to load it into"
    for name in ("iterations", "batch", "checkpoint_every"):
        if getattr(schedule, name) < 1:
            yield f"schedule.{name}: expected 1 or more, got {getattr(schedule, name)}"
    for name in ("validate_every", "warmup_iterations"):
        if getattr(schedule, name) < 0:
            yield f"schedule.{name}: expected 0 or more, got {getattr(schedule, name)}"
    if recipe.machine.loaders < -1:
        yield f"machine.loaders: expected -1 (what suits the machine), 0 or more, got {recipe.machine.loaders}"
    if schedule.batch == 1 and not learns_from_one(network):
        yield f"schedule.batch: expected 2 or more, for {network.host} has a batch norm of one value a picture, got 1"


def learns_from_one(network: Network) -> bool:
    """Whether the host trains on a batch of one: not where it normalises a map of 1 x 1, such as the image's mean."""
    side = network.tile_px // network.host_scale
    with torch.device("meta"):  # shapes alone
        host = build_host(network.host, classes=1).train()
        try:
            host(torch.empty(1, 3, side, side))
        except ValueError:  # torch's, of a batch norm
            return False
    return True


def check_classes(recipe: Recipe, names: Sequence[str]) -> None:
    """A recipe against the classes of its data set. Raises ValueError, naming the knob and what is expected."""
    told = f"{recipe.dataset} has {len(names)} classes ({', '.join(names)})"
    weights = recipe.loss.classes
    if weights is not None and len(weights) != len(names):
        raise ValueError(f"loss.classes: expected {len(names)} weights, got {len(weights)}; {told}")
    wrong = [label for label in recipe.crops.rare_classes if not 0 <= label < len(names)]
    if wrong:
        raise ValueError(f"crops.rare_classes: expected ids from 0 to {len(names) - 1}, got {wrong[0]}; {told}")


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
    values = {name: _value(hints[name], value, f"{where}: {name}") for name, value in table.items()}
    try:
        return kind(**values)
    except ValueError as exc:  # values that each have the right type, and mean nothing together
        raise ValueError(f"{where}: {exc}") from exc


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
