"""A trained model behind one seam: the pixels of a region's window in, the labels of its box out.

Arrays in, arrays out: a predictor knows no file but its model's, no queue and no HTTP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gigamask.manifest import ModelManifest, read_manifest
from gigamask.plan import Region

Engine = Literal["onnx", "torch"]
Device = Literal["auto", "cpu", "cuda"]


class RegionPredictor(Protocol):
    @property
    def manifest(self) -> ModelManifest: ...

    def predict(self, window: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
        """window: (3, h, w) RGB of region.window -> (h, w) class ids of region.box"""
        ...


def load_predictor(
    folder: Path, engine: Engine = "onnx", batch: int = 4, threads: int | None = None, device: Device = "auto"
) -> RegionPredictor:
    """threads: CPU threads of one prediction, None for the engine's choice. device: auto = a GPU where there is one.

    Raises gigamask.errors.BadModel, also where a GPU is asked for by name and the engine has none.
    """
    from model.predictors.tiles import TilePredictor

    manifest = read_manifest(folder)
    if engine == "onnx":
        from model.predictors.onnx import OnnxNetwork

        return TilePredictor(manifest, OnnxNetwork(folder, manifest, threads=threads, device=device), batch)
    if engine == "torch":
        from model.predictors.torch import TorchNetwork

        return TilePredictor(manifest, TorchNetwork(folder, manifest, threads=threads, device=device), batch)
    raise ValueError(f"engine is 'onnx' or 'torch', not {engine!r}")
