"""A host as an ONNX graph with a dynamic batch, beside torch."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnxruntime
import torch
from torch import nn


def onnx_difference(host: nn.Module, side: int, path: Path) -> float:
    """Exported at batch 2, run at batch 3: the largest difference of scores over the largest score."""
    host.eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    batch = torch.export.Dim("batch", min=1, max=1024)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            host,
            (torch.zeros(2, 3, side, side),),
            path,
            dynamic_shapes=({0: batch},),
            opset_version=18,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    x = torch.randn(3, 3, side, side)
    session = onnxruntime.InferenceSession(path)
    (scores,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.inference_mode():
        expected = host(x)
    return float((torch.from_numpy(scores) - expected).abs().max() / expected.abs().max())
