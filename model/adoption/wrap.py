"""The served form around somebody's graph, in ONNX operators: pixels in, labels and scores out.

    local (B,3,t,t) uint8                                              where the tile is all that the network sees
    local, surround (B,3,S,S) uint8, offset (B,2) int32 (y, x)         where it sees more
    -> labels (B,t,t) uint8, scores (B,K,t,t) float32

Scores are logits, whatever the graph gave: softmax(scores) are the probabilities again, and argmax(scores) the labels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper
from onnx.onnx_pb import GraphProto

from model.adoption.description import Scaling
from model.adoption.frame import Frame
from model.adoption.maps import MapPort
from model.adoption.wiring import Wiring

PREFIX = "network/"
TINY = 1e-30  # the least probability that has a logarithm here
CERTAIN = 16.0  # the score of a label that came without scores
NO_LABEL = 255
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_LEAST_IR = 8


class _Sketch:
    """Operators in the order they are added, and their constants."""

    def __init__(self, name: str) -> None:
        self._name, self.nodes, self.constants = name, list[onnx.NodeProto](), list[onnx.TensorProto]()

    def op(self, kind: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        """The name of what it gives: `to`, or one of our own."""
        out = to or f"{self._name}/{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"{self._name}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name


def wrap(model: onnx.ModelProto, wiring: Wiring, *, any_batch: bool) -> onnx.ModelProto:
    """One graph with the served inputs and outputs."""
    inner, frame = compose.add_prefix(_without_notes(model), PREFIX).graph, wiring.frame
    before, after = _Sketch("before"), _Sketch("after")
    pixels, place = ("local", None) if frame.whole else _cut_window(before, frame)
    _give(before, pixels, wiring)
    _take(after, place, wiring)
    batch: str | int = "B" if any_batch else 1
    graph = helper.make_graph(
        [*before.nodes, *inner.node, *after.nodes],
        "gigamask",
        _inputs(frame, batch),
        _outputs(frame, batch, wiring.classes),
        [*before.constants, *inner.initializer, *after.constants],
        sparse_initializer=list(inner.sparse_initializer),
    )
    wrapped = helper.make_model(graph, opset_imports=model.opset_import, producer_name="gigamask")
    wrapped.ir_version = max(model.ir_version, _LEAST_IR)
    onnx.checker.check_model(wrapped)
    return wrapped


def _inputs(frame: Frame, batch: str | int) -> list[onnx.ValueInfoProto]:
    t, s = frame.tile_px, frame.surround_px
    local = helper.make_tensor_value_info("local", TensorProto.UINT8, [batch, 3, t, t])
    if frame.whole:
        return [local]
    surround = helper.make_tensor_value_info("surround", TensorProto.UINT8, [batch, 3, s, s])
    return [local, surround, helper.make_tensor_value_info("offset", TensorProto.INT32, [batch, 2])]


def _outputs(frame: Frame, batch: str | int, classes: int) -> list[onnx.ValueInfoProto]:
    t = frame.tile_px
    return [
        helper.make_tensor_value_info("labels", TensorProto.UINT8, [batch, t, t]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, classes, t, t]),
    ]


def _cut_window(g: _Sketch, frame: Frame) -> tuple[str, str | None]:
    """The network's window out of `surround`, and where the tile lies in it (None: always at the margin).

    Shifted into the surround at the image's borders; where the network keeps nothing of its edge, mirrored instead.
    """
    offset = _cast(g, "offset", TensorProto.INT64)
    pixels = _cast(g, "surround", TensorProto.FLOAT)
    if frame.crop_px:
        edge = frame.mirror_px
        pads = g.constant([0, 0, edge, edge, 0, 0, edge, edge], np.int64)
        pixels = g.op("Pad", pixels, pads, mode="reflect")
        start = g.op("Add", offset, g.constant(edge - frame.margin_px, np.int64))
        return _square_at(g, pixels, start, frame.network_px), None
    first = g.op("Sub", offset, g.constant(frame.margin_px, np.int64))
    last = g.constant(frame.surround_px - frame.network_px, np.int64)
    start = g.op("Clip", first, g.constant(0, np.int64), last)
    return _square_at(g, pixels, start, frame.network_px), g.op("Sub", offset, start)


def _square_at(g: _Sketch, planes: str, start: str, side: int) -> str:
    """(B, C, H, W), start (B, 2) (y, x) -> (B, C, side, side); each picture from a place of its own."""
    rows = g.op("Transpose", planes, perm=[0, 2, 3, 1])
    tall = g.op("GatherND", rows, _steps(g, start, 0, side), batch_dims=1)
    columns = g.op("Transpose", tall, perm=[0, 2, 1, 3])
    square = g.op("GatherND", columns, _steps(g, start, 1, side), batch_dims=1)
    return g.op("Transpose", square, perm=[0, 3, 2, 1])


def _steps(g: _Sketch, start: str, axis: int, side: int) -> str:
    """(B, side, 1): start[axis], start[axis] + 1, ..."""
    first = g.op("Gather", start, g.constant([axis], np.int64), axis=1)
    return g.op("Unsqueeze", g.op("Add", first, g.constant(np.arange(side), np.int64)), g.constant([2], np.int64))


def _give(g: _Sketch, pixels: str, wiring: Wiring) -> None:
    """RGB in 0..255 becomes what the network was trained on, under the name of its input."""
    image, channels = wiring.image, wiring.channels
    found = _cast(g, pixels, TensorProto.FLOAT)
    if channels == "bgr":
        found = g.op("Gather", found, g.constant([2, 1, 0], np.int64), axis=1)
    if channels == "grey":
        weighted = g.op("Mul", found, g.constant(np.reshape(LUMA, (1, 3, 1, 1))))
        found = g.op("ReduceSum", weighted, g.constant([1], np.int64), keepdims=1)
    even = wiring.scaling.over(image.channels)
    if even != Scaling().over(image.channels):
        found = g.op("Mul", found, g.constant(np.reshape(even.gain, (1, -1, 1, 1))))
        found = g.op("Add", found, g.constant(np.reshape(even.shift, (1, -1, 1, 1))))
    if image.elem_type == TensorProto.UINT8:
        found = g.op("Round", found)
    if image.layout == "NHWC":
        found = g.op("Transpose", found, perm=[0, 2, 3, 1])
    _cast(g, found, image.elem_type, PREFIX + image.name)


def _take(g: _Sketch, place: str | None, wiring: Wiring) -> None:
    """The network's map becomes labels and scores of the tile."""
    map_ = wiring.map
    planes = _cast(g, PREFIX + map_.name, TensorProto.INT32 if map_.labels else TensorProto.FLOAT)
    if map_.flat:
        planes = g.op("Unsqueeze", planes, g.constant([1], np.int64))
    if map_.channels_last:
        planes = g.op("Transpose", planes, perm=[0, 3, 1, 2])
    planes = _tile_of(g, _full_size(g, planes, map_), wiring.frame, place)
    if map_.labels:
        _labels_alone(g, planes, wiring.classes)
        return
    g.op("Identity", _logits(g, planes, map_), to="scores")
    _cast(g, g.op("ArgMax", "scores", axis=1, keepdims=0), TensorProto.UINT8, "labels")


def _full_size(g: _Sketch, planes: str, map_: MapPort) -> str:
    if map_.reduction == 1:
        return planes
    scales = g.constant([1, 1, map_.reduction, map_.reduction])
    if map_.labels:
        return g.op(
            "Resize",
            planes,
            "",
            scales,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    return g.op("Resize", planes, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")


def _tile_of(g: _Sketch, planes: str, frame: Frame, place: str | None) -> str:
    if frame.whole:
        return planes
    if place is not None:
        return _square_at(g, planes, place, frame.tile_px)
    first = frame.margin_px - frame.crop_px
    last = first + frame.tile_px
    corners = (g.constant([edge, edge], np.int64) for edge in (first, last))
    return g.op("Slice", planes, *corners, g.constant([2, 3], np.int64))


def _labels_alone(g: _Sketch, planes: str, classes: int) -> None:
    """(B, 1, t, t) int32. A label that no class has is no data; a score is CERTAIN or 0."""
    one = g.constant([1], np.int64)
    known = g.op(
        "And",
        g.op("GreaterOrEqual", planes, g.constant(0, np.int32)),
        g.op("Less", planes, g.constant(classes, np.int32)),
    )
    told = g.op("Squeeze", g.op("Where", known, planes, g.constant(NO_LABEL, np.int32)), one)
    _cast(g, told, TensorProto.UINT8, "labels")
    ids = g.constant(np.arange(classes).reshape(1, -1, 1, 1), np.int32)
    hits = _cast(g, g.op("Equal", planes, ids), TensorProto.FLOAT)
    g.op("Mul", hits, g.constant(CERTAIN), to="scores")


def _logits(g: _Sketch, planes: str, map_: MapPort) -> str:
    """(B, C, t, t) as the network gave them -> (B, K, t, t), whose softmax are the probabilities.

    Of independent ones (K sigmoids) they are the shares.
    """
    if map_.activation != "none" and not map_.foreground:
        return g.op("Log", _clip(g, planes))
    if map_.activation == "sigmoid":
        rest = g.op("Sub", g.constant(1.0), _clip(g, planes))
        planes = g.op("Sub", g.op("Log", _clip(g, planes)), g.op("Log", _clip(g, rest)))
    if not map_.foreground:
        return planes
    if map_.threshold != 0.5:
        planes = g.op("Sub", planes, g.constant(math.log(map_.threshold / (1 - map_.threshold))))
    first = g.op("Gather", planes, g.constant([0], np.int64), axis=1)
    background = g.op("ConstantOfShape", g.op("Shape", first), value=numpy_helper.from_array(np.zeros(1, np.float32)))
    return g.op("Concat", background, planes, axis=1)


def _clip(g: _Sketch, planes: str) -> str:
    return g.op("Clip", planes, g.constant(TINY), g.constant(1.0))


def _cast(g: _Sketch, name: str, elem_type: int, to: str | None = None) -> str:
    out = to or f"{name}/as_{TensorProto.DataType.Name(elem_type).lower()}_{len(g.nodes)}"
    g.nodes.append(helper.make_node("Cast", [name], [out], to=elem_type))
    return out


def _without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Exporters note source lines, with paths of their machine, for each operator; and shapes that batches change."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.value_info[:], plain.metadata_props[:]
    for part in (plain.graph, *plain.graph.node, *plain.graph.input, *plain.graph.output, *plain.graph.initializer):
        _forget(part)
    return plain


def _forget(part: GraphProto) -> None:
    part.doc_string = ""
    del part.metadata_props[:]
