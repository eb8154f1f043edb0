"""A trained model behind one seam: the pixels of a region's window in, the labels of its box out.

Arrays in, arrays out: a predictor knows no file but its model's, no queue and no HTTP.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gigamask.manifest import ModelManifest, read_manifest
from gigamask.plan import Region

if TYPE_CHECKING:
    from model.predictors.tiles import TileNetwork

Engine = Literal["onnx", "torch"]
Device = Literal["auto", "cpu", "cuda"]

# On two cores a batch of 4 took 124 ms a tile and a batch of 1 took 85 (docs/log.md, 2026-11-22); a GPU wants work.
CPU_BATCH, GPU_BATCH = 1, 8


class RegionPredictor(Protocol):
    @property
    def manifest(self) -> ModelManifest: ...

    def predict(self, window: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
        """window: (3, h, w) RGB of region.window -> (h, w) class ids of region.box"""
        ...


def load_predictor(
    folder: Path, engine: Engine = "onnx", batch: int = 0, threads: int | None = None, device: Device = "auto"
) -> RegionPredictor:
    """batch: tiles in one call, 0 for what suits the device. threads: CPU threads of one prediction, None for the
    engine's choice. device: auto = a GPU where there is one.

    Raises gigamask.errors.BadModel, also where a GPU is asked for by name and the engine has none.
    """
    from model.predictors.tiles import TilePredictor

    manifest = read_manifest(folder)
    network = _load_network(folder, manifest, engine, threads, device)
    return TilePredictor(manifest, network, batch or (GPU_BATCH if network.fixed_batch else CPU_BATCH))


def _load_network(
    folder: Path, manifest: ModelManifest, engine: Engine, threads: int | None, device: Device
) -> TileNetwork:
    if engine == "onnx":
        from model.predictors.onnx import OnnxNetwork

        return OnnxNetwork(folder, manifest, threads=threads, device=device)
    if engine == "torch":
        from model.predictors.torch import TorchNetwork

        return TorchNetwork(folder, manifest, threads=threads, device=device)
    raise ValueError(f"engine is 'onnx' or 'torch', not {engine!r}")
