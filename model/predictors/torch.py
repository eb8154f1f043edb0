"""PyTorch: the GPU's engine, and the reference that exports are held to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gigamask.errors import BadModel
from gigamask.manifest import ModelManifest, checked_file
from model.deployed import Deployed, DeployedContext, DeployedTile
from model.normalise import Normalise
from model.predictors import Device
from model.predictors.shared import SharedBatch
from model.predictors.tiles import Bytes, TileBatch
from model.recipe import from_table
from model.sgnet import Architecture, SGNet


class TorchNetwork:
    """One network in memory, in the context mode of its manifest.

    On a GPU: bfloat16 where it is safe (autocast) and, with `compiled`, fused kernels. On a CPU: float32, eager.
    """

    def __init__(
        self,
        network: SGNet,
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
        mode, normalise = manifest.context.mode, Normalise(manifest.mean, manifest.std)
        compiled = compiled and self._device.type == "cuda"
        whole: nn.Module = Deployed(network, normalise)
        if mode != "tile":
            whole = DeployedTile(network, normalise, mode)
            self._context = self._place(DeployedContext(network, normalise, mode), False)  # its shapes vary
        self._tile = self._place(whole, compiled)

    def context(self, picture: Bytes) -> Tensor:
        """(3, H, W) -> (C, H/16, W/16) on the device"""
        with _inference(self._device):
            found: Tensor = self._context(torch.from_numpy(picture).to(self._device)[None])[0]
        return found

    def labels(self, batch: TileBatch | SharedBatch) -> Bytes:
        return self._forward(batch)[0].cpu().numpy()

    def scores(self, batch: TileBatch | SharedBatch) -> NDArray[np.float32]:
        return self._forward(batch)[1].float().cpu().numpy()

    def _forward(self, batch: TileBatch | SharedBatch) -> tuple[Tensor, Tensor]:
        if isinstance(batch, SharedBatch):
            local, offset = (torch.from_numpy(part).to(self._device) for part in (batch.local, batch.offset))
            inputs = [local, torch.stack(batch.maps), offset]
        else:
            inputs = [torch.from_numpy(part).to(self._device) for part in batch if part is not None]
        with _inference(self._device):
            labels, scores = self._tile(*inputs)
        return labels, scores

    def _place(self, module: nn.Module, compiled: bool) -> nn.Module:
        placed = module.eval().to(self._device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return torch.compile(placed) if compiled else placed  # type: ignore[return-value]


@contextmanager
def _inference(device: torch.device) -> Iterator[None]:
    """No gradients; bfloat16 where a GPU can."""
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, device.type == "cuda"):
        yield


def _device(asked: Device) -> torch.device:
    if asked == "cuda" and not torch.cuda.is_available():
        raise BadModel("torch finds no CUDA device here; set GIGAMASK_DEVICE=cpu or auto")
    return torch.device("cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu")


def load_shipped(network: SGNet, state: dict[str, Tensor]) -> None:
    """Weights that may lack the heads of training. Raises ValueError, naming the first key that is wrong."""
    missing, unexpected = network.load_state_dict(state, strict=False)
    lacking = [name for name in missing if not network.is_for_training(name)]
    if lacking or unexpected:
        raise ValueError(
            f"{len(lacking)} weights are missing and {len(unexpected)} unexpected, first {[*lacking, *unexpected][0]!r}"
        )


def load_network(folder: Path, manifest: ModelManifest) -> SGNet:
    """The torch module of a model folder, with its weights. Raises BadModel."""
    path = checked_file(folder, manifest, "safetensors")
    if path.suffix != ".safetensors":
        raise BadModel(f"{manifest.name}: weights are .safetensors, not {path.name}; pickles are refused")
    try:
        architecture = from_table(Architecture, manifest.architecture, f"{manifest.name}: architecture")
        network = SGNet(architecture)
        load_shipped(network, load_file(path))
    except (ValueError, RuntimeError, SafetensorError) as exc:
        raise BadModel(f"{manifest.name}: {path.name} does not fit its architecture: {exc}") from exc
    return network
