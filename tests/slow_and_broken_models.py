"""Models that take their time, or raise, so that a test can disturb a worker in the midst of a region."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from tests.models_for_tests import THRESHOLD, _write

KERNEL_PX, CHANNELS = 15, 8


def slow_model(folder: Path, tile_px: int = 64) -> Path:
    """The threshold model's labels, after a convolution whose result is too small to matter (0.1 s a region or so)."""
    nodes = [
        helper.make_node("Cast", ["local"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "kernels"], ["waves"], pads=[KERNEL_PX // 2] * 4),
        helper.make_node("ReduceMean", ["waves", "one"], ["ripple"], keepdims=0),
        helper.make_node("Gather", ["pixels", "zero"], ["red"], axis=1),
        helper.make_node("Add", ["red", "ripple"], ["disturbed"]),
        helper.make_node("Greater", ["disturbed", "threshold"], ["bright"]),
        helper.make_node("Cast", ["bright"], ["labels"], to=TensorProto.UINT8),
    ]
    constants = {
        "kernels": np.full((CHANNELS, 3, KERNEL_PX, KERNEL_PX), 1e-9, np.float32),
        "one": np.array([1], np.int64),
        "zero": np.int64(0),
        "threshold": np.float32(THRESHOLD + 0.5),
    }
    return _write(folder, "slow", ("dark", "bright"), nodes, constants, tile_px, 1)


def broken_model(folder: Path, tile_px: int = 64) -> Path:
    """It loads, and raises at every prediction: it asks for the channel that there is not."""
    nodes = [
        helper.make_node("Gather", ["local", "beyond"], ["red"], axis=1),
        helper.make_node("Cast", ["red"], ["labels"], to=TensorProto.UINT8),
    ]
    return _write(folder, "broken", ("a",), nodes, {"beyond": np.int64(7)}, tile_px, 1)
