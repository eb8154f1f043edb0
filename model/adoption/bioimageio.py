"""A BioImage.IO model: `rdf.yaml` (format 0.4 or 0.5) beside its weights and its test tensors.

https://github.com/bioimage-io/spec-bioimage-io. Read are planes with channels, fixed normalisation, halo, ONNX or
TorchScript weights, and the recorded test tensors; what depends on a whole picture's values is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from gigamask.errors import BadModel
from gigamask.manifest import LabelClass, PixelSize
from model.adoption.classes import name_classes
from model.adoption.description import Description, Sample, Scaling, Sides
from model.adoption.rdf import Axis, Rdf, Step, Tensor, read_rdf
from model.adoption.texts import file_beside
from model.adoption.transforms import Refused, clip, per_channel

RDF_NAMES = ("rdf.yaml", "bioimageio.yaml")
_WEIGHTS = ("onnx", "torchscript")


def is_bioimageio(folder: Path) -> bool:
    return any((folder / name).is_file() for name in RDF_NAMES)


def describe_bioimageio(folder: Path) -> tuple[Path, Description]:
    """The graph's file and what the folder says of it. Raises BadModel."""
    rdf = read_rdf(next(folder / name for name in RDF_NAMES if (folder / name).is_file()))
    if len(rdf.inputs) != 1:
        raise BadModel(f"rdf.yaml has {len(rdf.inputs)} inputs, expected one picture")
    given, made = rdf.inputs[0], rdf.outputs[0]
    _require_plane(given)
    refusals = dict[str, str]()
    scaling = _scaling(given.steps, refusals)
    network_px, sides = _sides(given)
    return _weights(folder, rdf), Description(
        name=rdf.name,
        version=rdf.version,
        title=rdf.title,
        classes=_classes(made),
        pixel_size=_pixel_size(given),
        network_px=network_px,
        sides=sides,
        halo_px=max((axis.halo for axis in made.axes if axis.kind == "space"), default=0) or None,
        scaling=scaling,
        layout="NHWC" if [axis.name for axis in given.axes][-1] == "c" else "NCHW",
        activation="none" if {"sigmoid", "softmax"} & {step.name for step in made.steps} else None,
        threshold=_threshold(made.steps),
        license=rdf.license,
        sample=_sample(folder, rdf),
        provenance={"format": f"BioImage.IO {rdf.format_version}", "authors": ", ".join(rdf.authors)},
        refusals=refusals,
    )


def _require_plane(tensor: Tensor) -> None:
    names = "".join(axis.name for axis in tensor.axes)
    if names not in ("bcyx", "byxc"):
        raise BadModel(f"input {tensor.name!r} has the axes {names!r}, expected bcyx or byxc (planes, not volumes)")


def _scaling(steps: Sequence[Step], refusals: dict[str, str]) -> Scaling | None:
    scaling = Scaling()
    try:
        for step in steps:
            scaling = _then(scaling, step)
    except Refused as exc:
        refusals["scaling"] = f"rdf.yaml: preprocessing {exc}; say --mean and --std, or --range, to do without"
        return None
    return scaling


def _then(scaling: Scaling, step: Step) -> Scaling:
    told = step.arguments
    if step.name == "scale_linear":
        return scaling.then(per_channel(told.get("gain", 1.0)), per_channel(told.get("offset", 0.0)))
    fixed = step.name == "zero_mean_unit_variance" and told.get("mode") == "fixed"
    if fixed or step.name == "fixed_zero_mean_unit_variance":
        eps = float(told.get("eps", 0 if step.name.startswith("fixed") else 1e-6))
        return scaling.normalised(per_channel(told["mean"]), tuple(s + eps for s in per_channel(told["std"])))
    if step.name == "clip":
        return clip(scaling, told.get("min"), told.get("max"))
    if step.name == "ensure_dtype":
        return scaling
    mode = f" ({told['mode']})" if "mode" in told else ""
    raise Refused(f"{step.name}{mode} depends on the values of a whole picture, or is not known here")


def _sides(tensor: Tensor) -> tuple[int | None, Sides | None]:
    """(fixed side, None), or (None, the sides that there are)."""
    planes = [axis for axis in tensor.axes if axis.kind == "space"]
    if len({(axis.size, axis.step) for axis in planes}) != 1 or planes[0].size is None:
        raise BadModel(f"input {tensor.name!r} is no square: {[(axis.name, axis.size) for axis in planes]}")
    size, step = planes[0].size, planes[0].step
    return (None, Sides(size, step)) if step else (size, None)


def _classes(made: Tensor) -> tuple[LabelClass, ...] | None:
    channels: Axis | None = next((axis for axis in made.axes if axis.kind == "channel"), None)
    if channels is None or not channels.channel_names:
        return None
    names = channels.channel_names
    return name_classes(("background", *names) if len(names) == 1 else names)


def _pixel_size(given: Tensor) -> PixelSize | None:
    axis = next(axis for axis in given.axes if axis.kind == "space")
    if axis.unit not in ("micrometer", "meter") or not axis.scale:
        return None
    return PixelSize(value=axis.scale, unit="micrometer" if axis.unit == "micrometer" else "meter")


def _threshold(steps: Sequence[Step]) -> float | None:
    found = next((step for step in steps if step.name == "binarize"), None)
    return None if found is None else float(found.arguments["threshold"])


def _weights(folder: Path, rdf: Rdf) -> Path:
    kind = next((kind for kind in _WEIGHTS if kind in rdf.weights), None)
    if kind is None:
        raise BadModel(f"rdf.yaml has weights as {', '.join(rdf.weights) or 'nothing'}, expected onnx or torchscript")
    entry = rdf.weights[kind]
    path = file_beside(folder, entry.source, f"weights.{kind}")
    if entry.sha256 is not None:
        with path.open("rb") as stream:
            got = hashlib.file_digest(stream, "sha256").hexdigest()
        if got != entry.sha256:
            raise BadModel(f"weights.{kind} has sha256 {got}, expected {entry.sha256}")
    return path


def _sample(folder: Path, rdf: Rdf) -> Sample | None:
    """The first test tensors, where the steps after the graph are ones that we can do."""
    given, made = rdf.inputs[0], rdf.outputs[0]
    if (
        given.test is None
        or made.test is None
        or {s.name for s in made.steps} - {"sigmoid", "binarize", "ensure_dtype"}
    ):
        return None
    return Sample(
        file_beside(folder, given.test, "the test input"),
        file_beside(folder, made.test, "the test output"),
        [axis.name for axis in given.axes].index("c"),
        any(step.name == "sigmoid" for step in made.steps),
        _threshold(made.steps),
    )
