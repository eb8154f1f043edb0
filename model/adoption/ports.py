"""Where a graph takes its picture and gives its map: names, axes, types, sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import TensorProto, helper

from gigamask.errors import BadModel
from model.adoption.description import Channels, Description, Layout

_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8)


@dataclass(frozen=True, slots=True)
class ImagePort:
    """side_px: the fixed height and width, None where any will do. one_picture: the batch is fixed at 1."""

    name: str
    elem_type: int
    layout: Layout
    channels: int
    side_px: int | None
    one_picture: bool

    @property
    def dtype(self) -> DTypeLike:
        found: DTypeLike = helper.tensor_dtype_to_np_dtype(self.elem_type)
        return found

    def shape(self, batch: int, side_px: int) -> tuple[int, ...]:
        if self.layout == "NCHW":
            return batch, self.channels, side_px, side_px
        return batch, side_px, side_px, self.channels

    def lay(self, pixels: np.ndarray) -> np.ndarray:
        """(B, C, h, w) -> the axes and the type of the port"""
        laid = pixels if self.layout == "NCHW" else pixels.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(laid.astype(self.dtype))


def find_image(model: onnx.ModelProto, told: Description) -> ImagePort:
    """Raises BadModel where there is no picture of 1 or 3 channels to be given, or more is asked for."""
    value = _only_input(model, told.input_name)
    tensor = value.type.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if tensor.elem_type not in _TYPES:
        expected = ", ".join(map(_type_name, _TYPES))
        raise BadModel(f"input {value.name!r} is {_type_name(tensor.elem_type)}, expected one of {expected}")
    if len(dims) != 4:
        raise BadModel(
            f"input {value.name!r} has {len(dims)} axes {_shown(dims)}, expected 4: batch, channels and a plane"
        )
    layout = told.layout or ("NHWC" if dims[3] in (1, 3) and dims[1] not in (1, 3) else "NCHW")
    batch, channels, height, width = dims if layout == "NCHW" else (dims[0], dims[3], dims[1], dims[2])
    _require_plane(value.name, dims, batch, height, width)
    return ImagePort(
        value.name, tensor.elem_type, layout, _channel_count(value.name, channels, told.channels), height, batch == 1
    )


def choose_channels(port: ImagePort, told: Description) -> Channels:
    return told.channels or ("grey" if port.channels == 1 else "rgb")


def choose_output(model: onnx.ModelProto, wanted: str | None) -> str:
    """Raises BadModel where there are several and none is named."""
    names: list[str] = [value.name for value in model.graph.output]
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted is None:
        raise BadModel(f"the graph has the outputs {', '.join(names)}: name the map's with --output")
    if wanted not in names:
        raise BadModel(f"the graph has no output {wanted!r}, only {', '.join(names)}")
    return wanted


def loosen_batch(model: onnx.ModelProto, port: ImagePort) -> onnx.ModelProto:
    """The same graph, its input's batch of any size; nothing is said of what follows from it."""
    loose = onnx.ModelProto()
    loose.CopyFrom(model)
    value = next(value for value in loose.graph.input if value.name == port.name)
    value.type.tensor_type.shape.dim[0].dim_param = "B"
    del loose.graph.value_info[:]
    for out in loose.graph.output:
        rank = len(out.type.tensor_type.shape.dim)
        axes = [f"{out.name}_{axis}" for axis in range(rank)]
        out.CopyFrom(helper.make_tensor_value_info(out.name, out.type.tensor_type.elem_type, axes))
    return loose


def _only_input(model: onnx.ModelProto, wanted: str | None) -> onnx.ValueInfoProto:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in constants}
    if len(inputs) != 1:
        raise BadModel(f"a model takes one picture; the graph takes {', '.join(inputs) or 'nothing'}")
    (name,) = inputs
    if wanted not in (None, name):
        raise BadModel(f"the graph has no input {wanted!r}, only {name!r}")
    found: onnx.ValueInfoProto = inputs[name]
    return found


def _require_plane(name: str, dims: list[int | None], batch: int | None, height: int | None, width: int | None) -> None:
    if batch not in (None, 1):
        raise BadModel(f"input {name!r} takes {batch} pictures at once {_shown(dims)}, expected 1 or any number")
    if (height is None) != (width is None) or height != width:
        raise BadModel(f"input {name!r} is {height} x {width} px {_shown(dims)}, expected a square or any size")


def _channel_count(name: str, found: int | None, told: Channels | None) -> int:
    """A free axis takes what was told, or 3."""
    wanted = None if told is None else (1 if told == "grey" else 3)
    count = found or wanted or 3
    if count not in (1, 3):
        raise BadModel(f"input {name!r} has {count} channels, expected 3 (RGB) or 1 (grey)")
    if wanted not in (None, count):
        raise BadModel(f"input {name!r} has {count} channels, not {wanted} ({told})")
    return count


def _type_name(elem_type: int) -> str:
    return str(TensorProto.DataType.Name(elem_type)).lower()


def _shown(dims: list[int | None]) -> str:
    return "(" + ", ".join("?" if dim is None else str(dim) for dim in dims) + ")"
