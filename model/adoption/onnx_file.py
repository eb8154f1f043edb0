"""An ONNX file of unknown origin: what it must be before anything runs it, and one self-contained graph out of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import checker, inliner, version_converter
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from gigamask.errors import BadModel

MAX_BYTES = 2_000_000_000  # protobuf takes no message of 2 GiB
LEAST_OPSET = 13  # below, Softmax and Squeeze mean something else: such graphs are converted
_OLDEST_OPSET = 7  # of ONNX Runtime
_DOMAINS = ("", "ai.onnx", "com.microsoft")  # standard operators and those that every ONNX Runtime carries


def read_onnx(path: Path) -> onnx.ModelProto:
    """The model with its weights inside, its functions inlined, at opset 13 or later. Raises BadModel."""
    _require_size(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as exc:
        raise BadModel(f"{path.name} is no ONNX file: {exc}") from exc
    if not model.graph.node:
        raise BadModel(f"{path.name} is no ONNX file: it holds no graph")
    _embed(model, path)
    return to_standard(model, path.name)


def to_standard(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Checked, without functions and custom operators, at opset 13 or later. Raises BadModel."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    _require_known_operators(model, name)
    if any(map(uses_external_data, _tensors(model.graph))):
        raise BadModel(f"{name} keeps weights in other files in a way that is not known here: export them inside")
    try:
        checker.check_model(model)
    except checker.ValidationError as exc:
        raise BadModel(f"{name} is not a valid ONNX model: {exc}") from exc
    return _at_least_opset(model, name)


def opset_of(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _require_size(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as exc:
        raise BadModel(f"{path}: {exc.strerror}") from exc
    if size > MAX_BYTES:
        raise BadModel(f"{path.name} has {size:,} bytes, more than {MAX_BYTES:,}")


def _embed(model: onnx.ModelProto, path: Path) -> None:
    """Take weights in files beside the graph into it. Raises BadModel where such a file is not simply beside it."""
    outside = {tensor_file(tensor) for tensor in _tensors(model.graph) if uses_external_data(tensor)}
    for name in outside:
        beside = path.parent / name
        if Path(name).name != name or name in ("", ".", "..") or beside.is_symlink() or not beside.is_file():
            raise BadModel(f"{path.name} keeps weights in {name!r}, which is no file beside it")
    if sum((path.parent / name).stat().st_size for name in outside) > MAX_BYTES:
        raise BadModel(f"{path.name} has more than {MAX_BYTES:,} bytes of weights")
    try:
        load_external_data_for_model(model, str(path.parent))
    except (checker.ValidationError, ValueError, OSError) as exc:
        raise BadModel(f"{path.name}: its weights cannot be read: {exc}") from exc


def tensor_file(tensor: onnx.TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from chain.from_iterable((sparse.values, sparse.indices) for sparse in graph.sparse_initializer)
    for node in _nodes(graph, deep=False):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for body in (attribute.g, *attribute.graphs):
                if body.node or body.initializer:
                    yield from _tensors(body)


def _nodes(graph: onnx.GraphProto, deep: bool = True) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute if deep else ():
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


def _require_known_operators(model: onnx.ModelProto, name: str) -> None:
    strange = sorted({f"{n.domain}.{n.op_type}" for n in _nodes(model.graph) if n.domain not in _DOMAINS})
    if strange:
        raise BadModel(f"{name} uses operators that ONNX Runtime does not have: {', '.join(strange[:5])}")
    used = {node.domain for node in _nodes(model.graph)} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used or entry.domain == "ai.onnx"]
    versions = {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in kept}
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in versions.items())


def _at_least_opset(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    found = opset_of(model)
    if found < _OLDEST_OPSET:
        raise BadModel(f"{name} has opset {found}, older than ONNX Runtime reads ({_OLDEST_OPSET} and later)")
    if found >= LEAST_OPSET:
        return model
    with contextlib.suppress(Exception):  # the converter raises whatever it meets
        return version_converter.convert_version(model, LEAST_OPSET)
    raise BadModel(
        f"{name} has opset {found}, which cannot be brought to {LEAST_OPSET};"
        f" export it with opset {LEAST_OPSET} or later"
    )
