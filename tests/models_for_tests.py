"""Model folders with closed-form answers: `model.json` and a small ONNX graph.

Inputs: local (B, 3, t, t) uint8 and, where alpha > 1, surround (B, 3, alpha t, alpha t) uint8 and offset (B, 2) int32,
the local window's place (y, x) in its surround. Output: labels (B, t, t) uint8, and of one scores (B, C, t, t) float32.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gigamask.manifest import MANIFEST_NAME, LabelClass, ModelFile, ModelManifest, PixelSize

THRESHOLD = 127
GREY = (128.0, 128.0, 128.0)


def threshold_model(folder: Path, tile_px: int = 64, alpha: int = 1, name: str = "threshold") -> Path:
    """label = red > THRESHOLD."""
    nodes = [
        helper.make_node("Gather", ["local", "zero"], ["red"], axis=1),
        helper.make_node("Cast", ["red"], ["red32"], to=TensorProto.INT32),
        helper.make_node("Greater", ["red32", "threshold"], ["bright"]),
        helper.make_node("Cast", ["bright"], ["labels"], to=TensorProto.UINT8),
    ]
    constants = {"zero": np.int64(0), "threshold": np.int32(THRESHOLD)}
    return _write(folder, name, ("dark", "bright"), nodes, constants, tile_px, alpha)


def scored_model(folder: Path, tile_px: int = 64, name: str = "scored", size: PixelSize | None = None) -> Path:
    """The threshold model's labels, with scores: x and -x, x = (THRESHOLD + 0.5 - red) / SOFTNESS."""
    nodes = [
        helper.make_node("Gather", ["local", "first"], ["red"], axis=1),
        helper.make_node("Cast", ["red"], ["red32"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["border", "red32"], ["below"]),
        helper.make_node("Div", ["below", "softness"], ["dark"]),
        helper.make_node("Neg", ["dark"], ["bright"]),
        helper.make_node("Concat", ["dark", "bright"], ["scores"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
    ]
    constants = {
        "first": np.array([0], np.int64),
        "border": np.float32(THRESHOLD + 0.5),
        "softness": np.float32(SOFTNESS),
    }
    return _write(folder, name, ("dark", "bright"), nodes, constants, tile_px, 1, scores=True, size=size)


SOFTNESS = 64.0


def offset_model(folder: Path, tile_px: int = 64, alpha: int = 2, name: str = "offset") -> Path:
    """label = offset_label(y, x) of the local window's place in its surround, one value a tile."""
    step = offset_step(tile_px, alpha)
    nodes = [
        helper.make_node("Div", ["offset", "step"], ["steps"]),
        helper.make_node("Mul", ["steps", "weights"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "one"], ["sums"], keepdims=1),
        helper.make_node("Unsqueeze", ["sums", "two"], ["tiles"]),
        *_spread("tiles"),
    ]
    constants = {
        "step": np.int32(step),
        "weights": np.array([[OFFSET_STEPS, 1]], np.int32),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
    }
    names = tuple(f"at {row} {col}" for row in range(OFFSET_STEPS) for col in range(OFFSET_STEPS))
    return _write(folder, name, names, nodes, constants, tile_px, alpha)


OFFSET_STEPS = 9


def offset_step(tile_px: int, alpha: int) -> int:
    """Offsets lie in [0, (alpha - 1) * tile_px]: nine values a side, 0 and the last included."""
    return max(1, (alpha - 1) * tile_px // (OFFSET_STEPS - 1))


def offset_label(y: int, x: int, tile_px: int, alpha: int) -> int:
    step = offset_step(tile_px, alpha)
    return (y // step) * OFFSET_STEPS + x // step


def context_model(folder: Path, tile_px: int = 64, alpha: int = 2, name: str = "context") -> Path:
    """label = the sum of all values of the surround, modulo MODULUS: a single wrong pixel changes it."""
    nodes = [
        helper.make_node("Cast", ["surround"], ["surround32"], to=TensorProto.INT32),
        helper.make_node("ReduceSum", ["surround32", "pixels"], ["sums"], keepdims=1),
        helper.make_node("Mod", ["sums", "modulus"], ["remainders"]),
        helper.make_node("Squeeze", ["remainders", "one"], ["tiles"]),
        *_spread("tiles"),
    ]
    constants = {
        "pixels": np.array([1, 2, 3], np.int64),
        "modulus": np.int32(MODULUS),
        "one": np.array([1], np.int64),
    }
    names = tuple(f"remainder {k}" for k in range(MODULUS))
    return _write(folder, name, names, nodes, constants, tile_px, alpha)


MODULUS = 251


def _spread(tiles: str) -> list[onnx.NodeProto]:
    """(B, 1, 1) int32 -> labels (B, t, t)"""
    return [
        helper.make_node("Expand", [tiles, "tile_shape"], ["spread"]),
        helper.make_node("Cast", ["spread"], ["labels"], to=TensorProto.UINT8),
    ]


def _write(
    folder: Path,
    name: str,
    classes: tuple[str, ...],
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.generic | np.ndarray],
    tile_px: int,
    alpha: int,
    scores: bool = False,
    size: PixelSize | None = None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    constants = constants | {"tile_shape": np.array([1, tile_px, tile_px], np.int64)}
    used = {name for node in nodes for name in node.input}
    outputs = [helper.make_tensor_value_info("labels", TensorProto.UINT8, ["B", tile_px, tile_px])]
    if scores:
        shape = ["B", len(classes), tile_px, tile_px]
        outputs.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, shape))
    graph = helper.make_graph(
        nodes,
        name,
        _inputs(tile_px, alpha),
        outputs,
        [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items() if key in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    manifest = _manifest(name, classes, tile_px, alpha, hashlib.sha256(content).hexdigest(), size)
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1))
    return folder


def _inputs(tile_px: int, alpha: int) -> list[onnx.ValueInfoProto]:
    local = helper.make_tensor_value_info("local", TensorProto.UINT8, ["B", 3, tile_px, tile_px])
    if alpha == 1:
        return [local]
    wide = ["B", 3, alpha * tile_px, alpha * tile_px]
    surround = helper.make_tensor_value_info("surround", TensorProto.UINT8, wide)
    return [local, surround, helper.make_tensor_value_info("offset", TensorProto.INT32, ["B", 2])]


def _manifest(
    name: str, classes: tuple[str, ...], tile_px: int, alpha: int, sha256: str, size: PixelSize | None
) -> ModelManifest:
    return ModelManifest(
        name=name,
        version="1",
        tile_px=tile_px,
        alpha=alpha,
        pixel_size=size,
        mean=GREY,
        std=GREY,
        classes=tuple(
            LabelClass(id=k, name=label, color=f"#{(k * 40503) % 2**24:06x}") for k, label in enumerate(classes)
        ),
        files={"onnx": ModelFile(path="model.onnx", sha256=sha256)},
        license="Apache-2.0",
    )
