"""A MONAI bundle: `configs/metadata.json` and `models/model.onnx` or `model.ts`; `configs/inference.json` where plain.

https://docs.monai.io/en/stable/mb_specification.html. Expressions (`$...`, `@...`) are not evaluated: they are Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from gigamask.errors import BadModel
from gigamask.manifest import LabelClass
from model.adoption.classes import name_classes
from model.adoption.description import Description, Scaling, byte_range
from model.adoption.texts import read_json, validated
from model.adoption.transforms import Refused, clip, per_channel

_GRAPHS = ("model.onnx", "model.ts")
_NEUTRAL = {
    "AddChannel",
    "AsChannelFirst",
    "CastToType",
    "EnsureChannelFirst",
    "EnsureType",
    "Identity",
    "LoadImage",
    "ToTensor",
    "ToDevice",
}


class _Port(BaseModel):
    num_channels: int
    spatial_shape: tuple[int | str, ...] = ()
    value_range: tuple[float, ...] = ()
    channel_def: dict[str, str] = {}


class _Format(BaseModel):
    inputs: Annotated[dict[str, _Port], Field(min_length=1)]
    outputs: Annotated[dict[str, _Port], Field(min_length=1)]


class _Metadata(BaseModel):
    version: str
    name: str | None = None
    task: str | None = None
    description: str | None = None
    authors: str | list[str] = ""
    license: str | None = None
    network_data_format: _Format


def is_monai_bundle(folder: Path) -> bool:
    return (folder / "configs" / "metadata.json").is_file()


def describe_monai_bundle(folder: Path) -> tuple[Path, Description]:
    """The graph's file and what the folder says of it. Raises BadModel."""
    told = validated(_Metadata, read_json(folder / "configs" / "metadata.json"), "metadata.json")
    given, made = _only(told.network_data_format.inputs), _only(told.network_data_format.outputs)
    if len(given.spatial_shape) != 2:
        raise BadModel(f"metadata.json: the input has {len(given.spatial_shape)} spatial axes, expected 2 (no volumes)")
    path = folder / "configs" / "inference.json"
    inference = read_json(path) if path.is_file() else {}
    refusals, notes = dict[str, str](), list[str]()
    return _graph(folder), Description(
        name=told.name or folder.name,
        version=told.version,
        title=told.task,
        classes=_classes(made),
        tile_px=_tile(inference, given),
        scaling=_scaling(inference, given, refusals, notes),
        activation=_activation(inference),
        threshold=_threshold(inference),
        license=told.license,
        provenance={
            "format": "MONAI bundle",
            "authors": told.authors if isinstance(told.authors, str) else ", ".join(told.authors),
        },
        notes=tuple(notes),
        refusals=refusals,
    )


def _only(ports: Mapping[str, _Port]) -> _Port:
    if len(ports) != 1:
        raise BadModel(f"metadata.json names {', '.join(ports)}, expected one picture in and one map out")
    (port,) = ports.values()
    return port


def _graph(folder: Path) -> Path:
    found = next((folder / "models" / name for name in _GRAPHS if (folder / "models" / name).is_file()), None)
    if found is None:
        raise BadModel(
            f"{folder.name}/models holds none of {', '.join(_GRAPHS)}; model.pt is a pickle and is not read:"
            " export one with `python -m monai.bundle ckpt_export` or `onnx_export`"
        )
    return found


def _classes(made: _Port) -> tuple[LabelClass, ...] | None:
    names = [name for _, name in sorted(made.channel_def.items(), key=lambda entry: int(entry[0]))]
    if not names:
        return None
    return name_classes(("background", *names) if len(names) == 1 else names)


def _tile(inference: Mapping[str, Any], given: _Port) -> int | None:
    inferer = inference.get("inferer")
    sides = inferer.get("roi_size") if isinstance(inferer, Mapping) else None
    chosen: Sequence[Any] = sides if isinstance(sides, list) else given.spatial_shape
    if len(chosen) != 2 or not all(isinstance(side, int) for side in chosen):
        return None
    if chosen[0] != chosen[1]:
        raise BadModel(f"the bundle's windows are {chosen[0]} x {chosen[1]} px, expected a square")
    return int(chosen[0])


def _scaling(inference: Mapping[str, Any], given: _Port, refusals: dict[str, str], notes: list[str]) -> Scaling | None:
    steps = _steps(inference, "preprocessing")
    if steps is None:
        if len(given.value_range) != 2:
            return None
        low, high = given.value_range
        notes.append(f"metadata.json says values in {low:g}..{high:g}: 0..255 becomes that")
        return byte_range(low, high)
    scaling = Scaling()
    try:
        for kind, told in steps:
            scaling = _then(scaling, kind, told)
    except Refused as exc:
        refusals["scaling"] = f"inference.json: {exc}; say --mean and --std, or --range, to do without"
        return None
    return scaling


def _steps(inference: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, Any]]] | None:
    """(transform, arguments); its name without its package and the `d` of dictionaries. None: not there."""
    told = inference.get(key)
    if not isinstance(told, Mapping) or not isinstance(told.get("transforms"), list):
        return None
    return [
        (_plain_name(str(entry.get("_target_"))), entry) for entry in told["transforms"] if isinstance(entry, Mapping)
    ]


def _plain_name(target: str) -> str:
    name = target.rsplit(".", 1)[-1]
    for ending in ("Dict", "d", "D"):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


def _then(scaling: Scaling, kind: str, told: Mapping[str, Any]) -> Scaling:
    if kind in _NEUTRAL:
        return scaling
    if kind == "ScaleIntensityRange":
        return _ranged(scaling, told)
    if kind == "NormalizeIntensity" and told.get("subtrahend") is not None and told.get("divisor") is not None:
        if told.get("nonzero"):
            raise Refused("NormalizeIntensity leaves zeros out")
        return scaling.normalised(per_channel(told["subtrahend"]), per_channel(told["divisor"]))
    raise Refused(f"{kind} depends on the values of a whole picture, or is not known here")


def _ranged(scaling: Scaling, told: Mapping[str, Any]) -> Scaling:
    """b_min + (v - a_min) (b_max - b_min) / (a_max - a_min)"""
    (a_min,), (a_max,) = per_channel(told["a_min"]), per_channel(told["a_max"])
    if told.get("b_min") is None or told.get("b_max") is None:
        raise Refused("ScaleIntensityRange has no b_min and b_max")
    (b_min,), (b_max,) = per_channel(told["b_min"]), per_channel(told["b_max"])
    gain = (b_max - b_min) / (a_max - a_min)
    found = scaling.then((gain,), (b_min - a_min * gain,))
    return clip(found, b_min, b_max) if told.get("clip") else found


def _activation(inference: Mapping[str, Any]) -> Any:
    """What follows the graph in the bundle tells that the graph gives raw scores."""
    for kind, told in _steps(inference, "postprocessing") or ():
        if kind == "Activations" and (told.get("sigmoid") or told.get("softmax")):
            return "none"
    return None


def _threshold(inference: Mapping[str, Any]) -> float | None:
    for kind, told in _steps(inference, "postprocessing") or ():
        if kind == "AsDiscrete" and isinstance(told.get("threshold"), int | float):
            return float(told["threshold"])
    return None
