"""TorchScript, converted once to ONNX. Told from pickles by what is in the file; its name is never asked.

A TorchScript archive is a program for torch's own interpreter, not bytecode for Python's; still its code is read first,
and refused where it would call what reads or writes files or what torch does not bring along.
"""

from __future__ import annotations

import io
import logging
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from gigamask.errors import BadModel
from model.adoption.description import Description
from model.adoption.engine import Graph
from model.adoption.onnx_file import MAX_BYTES, to_standard

OPSET = 18
INPUT, OUTPUT = "image", "map"
_APART = 1e-3  # of the largest value
_ASK = "export it to ONNX (torch.onnx.export) or TorchScript (torch.jit.trace(network, picture).save(path))"
_FOREIGN = re.compile(r"\bops\.(?!prim\b|aten\b)(\w+)\.")
_FILES = re.compile(r"\b(?:torch|ops\.aten)\.(from_file|save|load)\b")
_SIGNATURES = {
    b"\x80": "a pickle",
    b"\x89HDF": "an HDF5 file (Keras)",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
}


def is_archive(path: Path) -> bool:
    """A zip file: TorchScript, a pickle of torch.save, or something else of that kind."""
    with path.open("rb") as stream:
        return stream.read(4) == b"PK\x03\x04"


def refuse_pickles(path: Path) -> None:
    """Raises BadModel for the files that hold no graph, or a program for Python, with what to do instead."""
    with path.open("rb") as stream:
        head = stream.read(512)
    for signature, what in _SIGNATURES.items():
        if head.startswith(signature):
            raise BadModel(f"{path.name} is {what}: opening one runs whatever it holds, so it is refused; {_ASK}")
    if head[8:9] == b"{" and b'"dtype"' in head:
        raise BadModel(f"{path.name} is safetensors: weights without the network that they belong to; {_ASK}")


def require_torchscript(path: Path) -> None:
    """Raises BadModel where the archive holds no TorchScript program, or one that reaches beyond tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            _require_program(archive, path.name)
            _require_tame(archive, path.name)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError) as exc:
        raise BadModel(f"{path.name} is a broken archive: {exc}") from exc


def convert(path: Path, told: Description) -> onnx.ModelProto:
    """The program as a graph, held to it on one picture of the side that will be used. Raises BadModel.

    First as it is, for any batch and size. Where its loops and conditions cannot be told in ONNX, as of many scripted
    networks, what it really does to that picture is recorded: a graph for that size.
    """
    require_torchscript(path)
    torch = _torch()
    try:
        module = torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as exc:  # torch raises RuntimeError and others of its interpreter
        raise BadModel(
            f"{path.name} is no TorchScript that torch {torch.__version__} loads: {_first_line(exc)}"
        ) from exc
    shape = (1, 1 if told.channels == "grey" else 3, told.seen_px, told.seen_px)
    picture = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    expected = _run(module, picture, path.name)
    try:
        return _held(_export, module, picture, expected, path.name)
    except BadModel:
        return _held(_export_recorded, module, picture, expected, path.name)


def _held(
    export: Callable[[Any, Any, int], onnx.ModelProto], module: Any, picture: Any, expected: np.ndarray, name: str
) -> onnx.ModelProto:
    """Raises BadModel where it cannot be exported so, or gives anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the two exporters the older one alone takes TorchScript
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            exported = export(module, picture, expected.ndim)
    except ModuleNotFoundError:
        raise
    except Exception as exc:
        raise BadModel(f"{name} cannot be told in ONNX: {_first_line(exc)}") from exc
    model = to_standard(exported, name)
    _require_parity(model, picture.numpy(), expected, name)
    return model


def _require_program(archive: zipfile.ZipFile, name: str) -> None:
    inside = [entry.filename.split("/", 1)[-1] for entry in archive.infolist()]
    if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
        raise BadModel(f"{name} unpacks to more than {MAX_BYTES:,} bytes")
    if any(part.startswith("code/") for part in inside) and "constants.pkl" in inside:
        return
    if "data.pkl" in inside:
        raise BadModel(f"{name} is a checkpoint (torch.save): a pickle without the network's program; {_ASK}")
    raise BadModel(f"{name} is an archive, but no TorchScript; {_ASK}")


def _require_tame(archive: zipfile.ZipFile, name: str) -> None:
    for entry in archive.infolist():
        if "/code/" not in entry.filename or not entry.filename.endswith(".py"):
            continue
        code = archive.read(entry).decode()
        if found := _FOREIGN.search(code):
            raise BadModel(f"{name} calls operators of {found[1]!r}, which torch does not bring along; {_ASK}")
        if found := _FILES.search(code):
            raise BadModel(f"{name} calls {found[1]!r}, which touches files")


def _torch() -> Any:
    try:
        import torch
    except ImportError as exc:
        raise BadModel("TorchScript needs torch: pip install 'gigamask[torch]', or export to ONNX elsewhere") from exc
    return torch


def _run(module: Any, picture: Any, name: str) -> np.ndarray:
    torch = _torch()
    try:
        with torch.inference_mode():
            found = module(picture)
    except Exception as exc:
        raise BadModel(f"{name} fails on a picture of {tuple(picture.shape)}: {_first_line(exc)}") from exc
    if not isinstance(found, torch.Tensor):
        raise BadModel(f"{name} gives {type(found).__name__}, expected one tensor; {_ASK.split(' or ')[0]}")
    result: np.ndarray = found.numpy()
    return result


def _export(module: Any, picture: Any, rank: int) -> onnx.ModelProto:
    buffer, free = io.BytesIO(), {0: "B", 2: "h", 3: "w"}
    axes = {INPUT: free, OUTPUT: {0: "B", **({rank - 2: "oh", rank - 1: "ow"} if rank > 2 else {})}}
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT]}
    _torch().onnx.export(
        module, (picture,), buffer, dynamo=False, opset_version=OPSET, dynamic_axes=axes, **names
    )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


def _export_recorded(module: Any, picture: Any, _rank: int) -> onnx.ModelProto:
    from torch.fx.experimental.proxy_tensor import make_fx

    torch = _torch()
    with torch.no_grad():
        recorded = make_fx(lambda given: module(given))(picture).eval()
    names: dict[str, Any] = {"input_names": [INPUT], "output_names": [OUTPUT]}
    program = torch.onnx.export(recorded, (picture,), dynamo=True, opset_version=OPSET, verbose=False, **names)
    found: onnx.ModelProto = program.model_proto
    return found


def _require_parity(model: onnx.ModelProto, picture: np.ndarray, expected: np.ndarray, name: str) -> None:
    found = Graph(model).run([OUTPUT], {INPUT: picture})[0]
    if found.shape != expected.shape:
        raise BadModel(f"{name}: ONNX Runtime gives {found.shape}, torch {expected.shape}")
    apart = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())
    if not apart <= _APART * max(1.0, float(np.abs(expected).max())):
        raise BadModel(f"{name}: ONNX Runtime and torch differ by {apart:.2e} on the same picture")


def _first_line(exc: Exception) -> str:
    return next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)[:300]
