"""ONNX files as people bring them, with closed-form answers: the class is whether red is over 127."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gigamask.manifest import LabelClass
from model.adoption.adopt import Proposal, propose
from model.adoption.description import Description, byte_range

OPSET = 18
FLOAT, UINT8 = TensorProto.FLOAT, TensorProto.UINT8
CLASSES = (LabelClass(id=0, name="dark", color="#000000"), LabelClass(id=1, name="bright", color="#ffffff"))
TOLD = Description(
    name="mine", classes=CLASSES, tile_px=64, scaling=byte_range(0, 1), license="Apache-2.0", activation="sigmoid"
)

Nodes = list[onnx.NodeProto]
Shape = list[int | str]


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def save(
    path: Path,
    nodes: Nodes,
    given: Shape,
    made: Shape,
    *,
    given_type: int = FLOAT,
    made_type: int = FLOAT,
    constants: dict[str, Any] | None = None,
    opset: int = OPSET,
    extra_imports: tuple[str, ...] = (),
) -> Path:
    """Input `image`, output `map`."""
    graph = helper.make_graph(
        nodes,
        "brought",
        [helper.make_tensor_value_info("image", given_type, given)],
        [helper.make_tensor_value_info("map", made_type, made)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in extra_imports)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path


ANY: Shape = ["B", 3, "h", "w"]
ONE: Shape = ["B", 1, "h", "w"]
ZERO = {"zero": np.array([0], np.int64)}


def red_graph(path: Path, given: Shape | None = None, made: Shape | None = None, opset: int = OPSET) -> Path:
    """(B, 3, h, w) in 0..1 -> (B, 1, h, w): red itself, as a probability."""
    nodes = [node("Gather", "image zero", "map", axis=1)]
    return save(path, nodes, given or ANY, made or ONE, constants=ZERO, opset=opset)


def shifted_graph(path: Path, shift_px: int) -> Path:
    """As red_graph, of the pixel so many to the right; 0 beyond what it sees: it needs a halo of shift_px."""
    nodes = [
        node("Gather", "image zero", "red", axis=1),
        node("Slice", "red start end axis", "right"),
        node("Pad", "right pads", "map"),
    ]
    constants = {
        **ZERO,
        "start": np.array([shift_px], np.int64),
        "end": np.array([2**31], np.int64),
        "axis": np.array([3], np.int64),
        "pads": np.array([0, 0, 0, 0, 0, 0, 0, shift_px], np.int64),
    }
    return save(path, nodes, ANY, ONE, constants=constants)


def valid_graph(path: Path, crop_px: int, look_px: int = 0) -> Path:
    """As red_graph, without crop_px on each side: what unpadded convolutions give.

    look_px: it gives the pixel so many up and to the left, as a kernel may that reaches no further than crop_px.
    """
    nodes = [node("Gather", "image zero", "red", axis=1), node("Slice", "red start end axes", "map")]
    constants = {
        **ZERO,
        "start": np.array([crop_px - look_px] * 2, np.int64),
        "end": np.array([-crop_px - look_px] * 2, np.int64),
        "axes": np.array([2, 3], np.int64),
    }
    return save(path, nodes, ANY, ["B", 1, "oh", "ow"], constants=constants)


def labels_graph(path: Path, flat: bool = True, top: int = 1) -> Path:
    """int64 labels (B, h, w) or (B, 1, h, w): 0 or `top`."""
    nodes = [
        node("Gather", "image zero", "red", axis=1),
        node("Greater", "red half", "over"),
        node("Cast", "over", "ones", to=TensorProto.INT64),
        node("Mul", "ones top", "found"),
        node("Squeeze", "found one", "map") if flat else node("Identity", "found", "map"),
    ]
    constants = {**ZERO, "half": np.float32(0.5), "top": np.int64(top), "one": np.array([1], np.int64)}
    made: Shape = ["B", "h", "w"] if flat else ONE
    return save(path, nodes, ANY, made, made_type=TensorProto.INT64, constants=constants)


def proposed(path: Path, **told: Any) -> Proposal:
    return propose(path, TOLD.overridden_by(Description(**told)))


def adopted(path: Path, root: Path, **told: Any) -> Path:
    return proposed(path, **told).write(root)
