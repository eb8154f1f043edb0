"""`rdf.yaml` of formats 0.4 and 0.5 in one form: their tensors, axes, steps and weights have other names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gigamask.errors import BadModel
from model.adoption.texts import read_yaml

_READ = ("0.4", "0.5")
_PLANE = ("y", "x", "z")


@dataclass(frozen=True, slots=True)
class Axis:
    """name: b, c, y, x, ... size: fixed, or the least one where step is not 0. scale: in `unit`."""

    name: str
    kind: Literal["batch", "channel", "space", "other"]
    size: int | None = None
    step: int = 0
    halo: int = 0
    unit: str | None = None
    scale: float | None = None
    channel_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """Of the pre- or postprocessing."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    axes: tuple[Axis, ...]
    steps: tuple[Step, ...]
    test: str | None


@dataclass(frozen=True, slots=True)
class Weights:
    source: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Rdf:
    format_version: str
    title: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    weights: dict[str, Weights]
    version: str | None = None
    license: str | None = None
    authors: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return self.title


def read_rdf(path: Path) -> Rdf:
    """Raises BadModel where it is of another format, or lacks what a model has."""
    told = read_yaml(path)
    version = str(told.get("format_version", "none"))
    if told.get("type", "model") != "model" or not version.startswith(_READ):
        raise BadModel(
            f"{path.name} describes a {told.get('type')} in format {version}, expected a model in 0.4 or 0.5"
        )
    try:
        return _rdf(told, version)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as exc:
        raise BadModel(f"{path.name} lacks what a model of format {version} has: {type(exc).__name__} {exc}") from exc


def _rdf(told: Mapping[str, Any], version: str) -> Rdf:
    newer = version.startswith("0.5")
    tensor = _tensor_05 if newer else _tensor_04
    tests = [None, None] if newer else [told.get("test_inputs"), told.get("test_outputs")]
    inputs, outputs = (
        tuple(tensor(entry, _nth(test, index)) for index, entry in enumerate(told[key]))
        for key, test in zip(("inputs", "outputs"), tests, strict=True)
    )
    weights = {kind: Weights(_source(entry), entry.get("sha256")) for kind, entry in told["weights"].items() if entry}
    authors = tuple(str(author.get("name")) for author in told.get("authors") or ())
    mark = told.get("version")
    return Rdf(
        version_text(version),
        str(told["name"]),
        inputs,
        outputs,
        weights,
        None if mark is None else str(mark),
        told.get("license"),
        authors,
    )


def version_text(version: str) -> str:
    return ".".join(version.split(".")[:3])


def _tensor_04(told: Mapping[str, Any], test: Any) -> Tensor:
    shape, halo = told.get("shape"), told.get("halo")
    axes = []
    for index, name in enumerate(told["axes"]):
        size, step = _size_04(shape, index)
        kind = {"b": "batch", "c": "channel"}.get(name, "space" if name in _PLANE else "other")
        axes.append(Axis(name, kind, size, step, int(halo[index]) if halo else 0))  # type: ignore[arg-type]
    steps = [*(told.get("preprocessing") or ()), *(told.get("postprocessing") or ())]
    return Tensor(
        str(told["name"]),
        tuple(axes),
        tuple(Step(s["name"], s.get("kwargs") or {}) for s in steps),
        None if test is None else _source(test),
    )


def _size_04(shape: Any, index: int) -> tuple[int | None, int]:
    if isinstance(shape, Sequence):
        return int(shape[index]), 0
    if isinstance(shape, Mapping) and "min" in shape:
        return int(shape["min"][index]), int(shape["step"][index])
    return None, 0


def _tensor_05(told: Mapping[str, Any], _test: Any) -> Tensor:
    steps = [*(told.get("preprocessing") or ()), *(told.get("postprocessing") or ())]
    test = told.get("test_tensor")
    return Tensor(
        str(told.get("id", "tensor")),
        tuple(_axis_05(axis) for axis in told["axes"]),
        tuple(Step(s["id"], s.get("kwargs") or {}) for s in steps),
        None if test is None else _source(test),
    )


def _axis_05(told: Mapping[str, Any]) -> Axis:
    kind = told["type"]
    if kind in ("batch", "channel"):
        return Axis(kind[0], kind, channel_names=tuple(map(str, told.get("channel_names") or ())))
    size, step = told.get("size"), 0
    if isinstance(size, Mapping):
        size, step = (int(size["min"]), int(size["step"])) if "min" in size else (None, 0)
    return Axis(
        str(told["id"]),
        "space" if kind == "space" else "other",
        size,
        step,
        int(told.get("halo") or 0),
        told.get("unit"),
        float(told.get("scale") or 1.0),
    )


def _source(entry: Any) -> str:
    return str(entry["source"] if isinstance(entry, Mapping) else entry)


def _nth(tests: Sequence[Any] | None, index: int) -> Any:
    return tests[index] if tests and index < len(tests) else None
