"""Tests that a model brings along: its author's recorded tensors, and the test vector of a model folder."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from gigamask.errors import BadModel
from gigamask.manifest import checked_file, read_manifest
from model.adoption.description import Sample, Scaling
from model.adoption.engine import Graph
from model.adoption.folder import predict_picture
from model.adoption.wiring import Wiring

LEAST_AGREEMENT = 0.999
_LARGEST_BYTES = 1 << 30
_BROKEN = (OSError, ValueError, LookupError, EOFError, AttributeError, MemoryError, zipfile.BadZipFile, zlib.error)
_APART = 1e-3  # absolute and relative, as BioImage.IO's own tests
_MOST_APART = 1e-3  # share of the elements that may be further apart


@dataclass(frozen=True, slots=True)
class Checkup:
    """label_agreement: with the recorded labels, None where the folder has no test vector."""

    name: str
    files: tuple[str, ...]
    label_agreement: float | None


def check_folder(folder: Path) -> Checkup:
    """Every file has its sha256, and the test vector gives its labels again. Raises BadModel."""
    manifest = read_manifest(folder)
    files = tuple(checked_file(folder, manifest, role).name for role in manifest.files)
    if folder.name != manifest.name:
        raise BadModel(f"the folder {folder.name!r} holds the model {manifest.name!r}: rename one of them")
    if "test_vector" not in manifest.files:
        return Checkup(manifest.name, files, None)
    picture, labels = _read_vector(checked_file(folder, manifest, "test_vector"))
    same = float((predict_picture(folder, picture) == labels).mean())
    if same < LEAST_AGREEMENT:
        raise BadModel(
            f"{manifest.name} gives {same:.3%} of the recorded labels here, expected {LEAST_AGREEMENT:.1%} or more"
        )
    return Checkup(manifest.name, files, same)


def _read_vector(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The picture and its labels. Raises BadModel."""
    try:
        with np.load(path, allow_pickle=False) as vector:
            return vector["picture"], vector["labels"]
    except _BROKEN as exc:
        raise BadModel(f"{path.name} is no test vector: {exc}") from exc


def accept_sample(model: onnx.ModelProto, wiring: Wiring, sample: Sample) -> float:
    """The share of values that are as the author recorded them. Raises BadModel below 99.9 %."""
    given, expected = _read(sample.given), _read(sample.expected)
    scaling, image = wiring.scaling, wiring.image
    fed = _scaled(given.astype(np.float32), scaling.over(given.shape[sample.channel_axis]), sample.channel_axis)
    found = Graph(model).run([wiring.map.name], {image.name: fed.astype(image.dtype)})[0].astype(np.float64)
    if sample.sigmoid:
        found = 1 / (1 + np.exp(-found))
    if sample.threshold is not None:
        found = (found > sample.threshold).astype(np.float64)
    if found.shape != expected.shape:
        raise BadModel(f"the test input gives {found.shape}, the recorded output is {expected.shape}")
    same = float((np.abs(found - expected) <= _APART + _APART * np.abs(expected)).mean())
    if not same >= 1 - _MOST_APART:
        raise BadModel(f"of the author's test output {same:.2%} is found again, expected {1 - _MOST_APART:.1%} or more")
    return same


def _scaled(values: NDArray[np.float32], scaling: Scaling, axis: int) -> NDArray[np.float32]:
    shape = [1] * values.ndim
    shape[axis] = -1
    gain, shift = (np.array(part, np.float32).reshape(shape) for part in (scaling.gain, scaling.shift))
    return values * gain + shift


def _read(path: Path) -> NDArray[np.float64]:
    """A .npy of numbers; pickled objects are refused. Raises BadModel."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise BadModel(f"{path.name} has more than {_LARGEST_BYTES:,} bytes")
        with path.open("rb") as stream:
            found: NDArray[np.float64] = np.lib.format.read_array(stream, allow_pickle=False).astype(np.float64)
    except _BROKEN as exc:  # MemoryError: a head that tells of terabytes
        raise BadModel(f"{path.name} is no plain .npy array: {exc}") from exc
    return found
