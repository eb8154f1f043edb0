"""A WSInfer model folder: `config.json` beside a TorchScript (or ONNX) file.

Its zoo holds classifiers of patches; what gives no map of the picture is refused at the trial.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gigamask.errors import BadModel
from gigamask.manifest import PixelSize
from model.adoption.classes import name_classes
from model.adoption.description import Description, Scaling, byte_range
from model.adoption.texts import read_json, validated

_GRAPHS = ("model.onnx", "torchscript_model.pt", "torchscript_model.bin")


class _Transform(BaseModel):
    name: str
    arguments: dict[str, Any] | None = None


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore")

    spec_version: Literal["1.0"]
    architecture: str
    num_classes: Annotated[int, Field(ge=1)]
    patch_size_pixels: Annotated[int, Field(ge=1)]
    spacing_um_px: Annotated[float, Field(gt=0)]
    class_names: tuple[str, ...]
    transform: tuple[_Transform, ...]


def is_wsinfer(folder: Path) -> bool:
    path = folder / "config.json"
    return path.is_file() and {"spec_version", "patch_size_pixels"} <= set(read_json(path))


def describe_wsinfer(folder: Path) -> tuple[Path, Description]:
    """The graph's file and what the folder says of it. Raises BadModel."""
    config = validated(_Config, read_json(folder / "config.json"), "config.json")
    if len(config.class_names) != config.num_classes:
        raise BadModel(f"config.json names {len(config.class_names)} classes, expected {config.num_classes}")
    scaling, side = _pipeline(config.transform)
    graph = next((folder / name for name in _GRAPHS if (folder / name).is_file()), None)
    if graph is None:
        raise BadModel(f"{folder.name} holds none of {', '.join(_GRAPHS)}")
    resized = (side or config.patch_size_pixels) / config.patch_size_pixels
    return graph, Description(
        name=folder.name,
        classes=name_classes(config.class_names),
        pixel_size=PixelSize(value=config.spacing_um_px / resized, unit="micrometer"),
        tile_px=side or config.patch_size_pixels,
        scaling=scaling,
        provenance={"format": "WSInfer 1.0", "architecture": config.architecture},
    )


def _pipeline(transforms: tuple[_Transform, ...]) -> tuple[Scaling, int | None]:
    """What the transforms do to a pixel, and the side that they resize a patch to. Raises BadModel for others."""
    scaling, side = Scaling(), None
    for step in transforms:
        told = step.arguments or {}
        if step.name == "ToTensor":
            scaling = byte_range(0, 1)
        elif step.name == "Normalize":
            scaling = scaling.normalised(tuple(map(float, told["mean"])), tuple(map(float, told["std"])))
        elif step.name == "Resize":
            side = int(told["size"][0] if isinstance(told["size"], list) else told["size"])
        else:
            raise BadModel(f"config.json asks for the transform {step.name!r}, expected Resize, ToTensor, Normalize")
    return scaling, side
