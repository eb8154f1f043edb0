"""A trained model behind one seam: the pixels of a region's window in, the labels of its box out.

Arrays in, arrays out: a predictor knows no file but its model's, no queue and no HTTP.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from gigamask.errors import BadModel
from gigamask.manifest import ModelManifest, read_manifest
from gigamask.plan import Region

if TYPE_CHECKING:
    from model.predictors.tiles import TileNetwork, TilePredictor

Engine = Literal["onnx", "torch"]
Device = Literal["auto", "cpu", "cuda"]
ContextMode = Literal["tile", "trunk_shared", "neighbourhood"]

# On two cores a batch of 4 took 124 ms a tile and a batch of 1 took 85 (docs/log.md, 2026-11-22); a GPU wants work.
CPU_BATCH, GPU_BATCH = 1, 8


class RegionPredictor(Protocol):
    """manifest: what regions must be planned with (gigamask.plan.plan_regions). How tiles overlap is the region's."""

    @property
    def manifest(self) -> ModelManifest: ...

    def predict(self, window: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
        """window: (3, h, w) RGB of region.window -> (h, w) class ids of region.work; 255 where it has no tile"""
        ...

    def predict_scored(self, window: NDArray[np.uint8], region: Region) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """As `predict`, and (C, h, w) probabilities, round(255 p). Raises BadModel where the model gives no scores."""
        ...


def load_predictor(
    folder: Path,
    engine: Engine = "onnx",
    batch: int = 0,
    threads: int | None = None,
    device: Device = "auto",
    context: ContextMode | None = None,
    compiled: bool = False,
) -> RegionPredictor:
    """batch: tiles in one call, 0 for what suits the device. threads: CPU threads of one prediction, None for the
    engine's choice. device: auto = a GPU where there is one. context: None = the mode that the manifest names.
    compiled: torch.compile, on a GPU.

    Raises gigamask.errors.BadModel, also where a GPU is asked for by name and the engine has none, and where the model
    cannot work in that context mode (torch can in any that the network allows, ONNX Runtime in what was exported).
    """
    manifest = read_manifest(folder)
    if context is not None and context != manifest.context.mode:
        manifest = in_context(manifest, context)
    network = _load_network(folder, manifest, engine, threads, device, compiled)
    return tile_predictor(manifest, network, batch)


def tile_predictor(manifest: ModelManifest, network: TileNetwork, batch: int = 0) -> TilePredictor:
    """A predictor around a network in any engine, in the context mode of the manifest."""
    from model.predictors.shared import SharedNetwork, shared_look
    from model.predictors.tiles import TilePredictor

    shared = manifest.context.mode != "tile"
    share = shared_look(cast(SharedNetwork, network), manifest) if shared else None
    size = batch or (GPU_BATCH if network.fixed_batch else CPU_BATCH)
    return TilePredictor(manifest, network, size, share)


def in_context(manifest: ModelManifest, mode: ContextMode) -> ModelManifest:
    """The same model, its tiles seeing their surroundings in another way. Raises BadModel."""
    from model.deployed import context_rule
    from model.recipe import from_table
    from model.sgnet import Architecture

    try:
        architecture = from_table(Architecture, manifest.architecture, "architecture")
        return manifest.model_copy(update={"context": context_rule(mode, architecture.surround)})
    except ValueError as exc:
        raise BadModel(f"{manifest.name}: {exc}") from exc


def _load_network(
    folder: Path, manifest: ModelManifest, engine: Engine, threads: int | None, device: Device, compiled: bool
) -> TileNetwork:
    if engine == "onnx":
        from model.predictors.onnx import OnnxNetwork

        return OnnxNetwork(folder, manifest, threads=threads, device=device)
    if engine == "torch":
        from model.predictors.torch import TorchNetwork, load_network

        network = load_network(folder, manifest)
        return TorchNetwork(network, manifest, threads=threads, device=device, compiled=compiled)
    raise ValueError(f"engine is 'onnx' or 'torch', not {engine!r}")
