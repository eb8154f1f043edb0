"""PyTorch: the GPU's engine, and the reference that exports are held to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gigamask.errors import BadModel
from gigamask.manifest import ModelManifest, checked_file
from model.deployed import Deployed
from model.normalise import Normalise
from model.predictors import Device
from model.predictors.tiles import Bytes, TileBatch
from model.recipe import from_table
from model.sgnet import Architecture, SGNet


class TorchNetwork:
    """On a GPU: bfloat16 where it is safe (autocast) and, with `compiled`, fused kernels. On a CPU: float32, eager."""

    def __init__(
        self,
        folder: Path,
        manifest: ModelManifest,
        *,
        threads: int | None = None,
        device: Device = "auto",
        compiled: bool = False,
    ) -> None:
        self._device = _device(device)
        self.fixed_batch = self._device.type == "cuda"
        if threads and self._device.type == "cpu":
            torch.set_num_threads(threads)
        network = Deployed(load_network(folder, manifest), Normalise(manifest.mean, manifest.std)).eval()
        self._network = network.to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._run = torch.compile(self._network) if compiled and self._device.type == "cuda" else self._network

    def labels(self, batch: TileBatch) -> Bytes:
        return self._forward(batch)[0].cpu().numpy()

    def scores(self, batch: TileBatch) -> NDArray[np.float32]:
        return self._forward(batch)[1].float().cpu().numpy()

    def _forward(self, batch: TileBatch) -> tuple[Tensor, Tensor]:
        inputs = [torch.from_numpy(part).to(self._device) for part in batch if part is not None]
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, self._device.type == "cuda"):
            labels, scores = self._run(*inputs)
        return labels, scores


def _device(asked: Device) -> torch.device:
    if asked == "cuda" and not torch.cuda.is_available():
        raise BadModel("torch finds no CUDA device here; set GIGAMASK_DEVICE=cpu or auto")
    return torch.device("cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu")


def load_network(folder: Path, manifest: ModelManifest) -> SGNet:
    """The torch module of a model folder, with its weights. Raises BadModel."""
    path = checked_file(folder, manifest, "safetensors")
    if path.suffix != ".safetensors":
        raise BadModel(f"{manifest.name}: weights are .safetensors, not {path.name}; pickles are refused")
    try:
        architecture = from_table(Architecture, manifest.architecture, f"{manifest.name}: architecture")
        network = SGNet(architecture)
        network.load_state_dict(load_file(path))
    except (ValueError, RuntimeError, SafetensorError) as exc:
        raise BadModel(f"{manifest.name}: {path.name} does not fit its architecture: {exc}") from exc
    return network
