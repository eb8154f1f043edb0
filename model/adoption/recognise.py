"""What a path holds: an ONNX file, a TorchScript file, or a folder in one of the forms that describe themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from gigamask.errors import BadModel
from model.adoption.bioimageio import RDF_NAMES, describe_bioimageio, is_bioimageio
from model.adoption.description import Description
from model.adoption.monai_bundle import describe_monai_bundle, is_monai_bundle
from model.adoption.onnx_file import read_onnx
from model.adoption.torchscript import convert, is_archive, refuse_pickles
from model.adoption.wsinfer import describe_wsinfer, is_wsinfer

_FORMS = (
    (is_bioimageio, describe_bioimageio),
    (is_monai_bundle, describe_monai_bundle),
    (is_wsinfer, describe_wsinfer),
)
_KNOWN = "rdf.yaml (BioImage.IO), configs/metadata.json (MONAI bundle) or config.json (WSInfer)"


@dataclass(frozen=True, slots=True)
class Origin:
    """The file that a graph came from, as it lay there."""

    name: str
    sha256: str
    bytes: int


def find_source(path: Path) -> tuple[Path, Description]:
    """The graph's file, and what lies beside it says of it. Raises BadModel."""
    if not path.exists():
        raise BadModel(f"{path}: no such file or folder")
    if path.is_file() and path.name in (*RDF_NAMES, "config.json"):
        path = path.parent
    if path.is_file():
        return path, Description()
    for recognises, describe in _FORMS:
        if recognises(path):
            return _described(describe, path)
    raise BadModel(f"{path} describes no model: expected {_KNOWN}, or give the .onnx file itself")


def _described(describe: Callable[[Path], tuple[Path, Description]], folder: Path) -> tuple[Path, Description]:
    """Steps and transforms have arguments of any kind; what cannot be read of them is told. Raises BadModel."""
    try:
        return describe(folder)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as exc:
        raise BadModel(f"{folder.name} describes its model in a way that is not known here: {exc!r}") from exc


def read_graph(path: Path, told: Description) -> onnx.ModelProto:
    """Raises BadModel: pickles are refused, whatever they are called."""
    try:
        refuse_pickles(path)
        return convert(path, told) if is_archive(path) else read_onnx(path)
    except OSError as exc:
        raise BadModel(f"{path}: {exc.strerror}") from exc


def origin_of(path: Path) -> Origin:
    with path.open("rb") as stream:
        return Origin(path.name, hashlib.file_digest(stream, "sha256").hexdigest(), path.stat().st_size)
