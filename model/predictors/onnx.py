"""ONNX Runtime: the CPU's engine, and that of any ONNX segmentation model with the shipped inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gigamask.errors import BadModel
from gigamask.manifest import ModelManifest, checked_file
from model.predictors import Device
from model.predictors.shared import SharedBatch
from model.predictors.tiles import Bytes, TileBatch

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_LOG_ERRORS = 3


class OnnxNetwork:
    """One graph that sees a tile and its surround, or two where tiles share their context."""

    def __init__(
        self,
        folder: Path,
        manifest: ModelManifest,
        *,
        threads: int | None = None,
        device: Device = "auto",
    ) -> None:
        self._name = manifest.name
        shared = manifest.context.mode != "tile"
        self._tile, self._inputs = self._open(folder, manifest, "onnx_tile" if shared else "onnx", threads, device)
        if shared:
            self._context, _ = self._open(folder, manifest, "onnx_context", threads, device)
        self._one_by_one = self._tile.get_inputs()[0].shape[0] == 1
        self.fixed_batch = CUDA in self._tile.get_providers() and not self._one_by_one

    def context(self, picture: Bytes) -> NDArray[np.float32]:
        """(3, H, W) -> (C, H/16, W/16)"""
        found: NDArray[np.float32] = self._context.run(["context"], {"picture": picture[None]})[0][0]
        return found

    def labels(self, batch: TileBatch | SharedBatch) -> Bytes:
        return self._run("labels", batch)

    def scores(self, batch: TileBatch | SharedBatch) -> NDArray[np.float32]:
        """Raises BadModel where the graph gives labels alone."""
        if "scores" not in (item.name for item in self._tile.get_outputs()):
            raise BadModel(f"{self._name} gives no scores, which overlap and probabilities are made of")
        return self._run("scores", batch)

    def _run(self, output: str, batch: TileBatch | SharedBatch) -> NDArray[Any]:
        told = batch._asdict()
        if isinstance(batch, SharedBatch):
            told["context"] = np.stack(batch.maps)
        # only what is asked for is computed: scores never leave the engine when labels are wanted
        inputs = {name: told[name] for name in self._inputs}
        if self._one_by_one:  # a graph from elsewhere may take no more (model.adoption)
            each = ({name: value[[i]] for name, value in inputs.items()} for i in range(len(batch.local)))
            return np.concatenate([self._tile.run([output], one)[0] for one in each])
        found: NDArray[Any] = self._tile.run([output], inputs)[0]
        return found

    def _open(
        self, folder: Path, manifest: ModelManifest, role: str, threads: int | None, device: Device
    ) -> tuple[onnxruntime.InferenceSession, tuple[str, ...]]:
        path = checked_file(folder, manifest, role)
        # a whole region goes through the context's graph at once: an arena would keep what that took, and grow
        session = open_session(path, threads, device, arena=role != "onnx_context")
        inputs, expected = tuple(item.name for item in session.get_inputs()), inputs_of(role, manifest.alpha)
        if set(inputs) != set(expected):
            raise BadModel(f"{manifest.name}: inputs of {path.name} are {inputs}, expected {expected}")
        return session, inputs


def inputs_of(role: str, alpha: int) -> tuple[str, ...]:
    if role == "onnx":
        return ("local",) if alpha == 1 else ("local", "surround", "offset")
    return ("picture",) if role == "onnx_context" else ("local", "context", "offset")


def open_session(path: Path, threads: int | None, device: Device, arena: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = _LOG_ERRORS
    options.intra_op_num_threads = threads or 0
    # threads that spin while they wait take the cores of the reader and the writer beside us
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    offered = onnxruntime.get_available_providers()
    providers = [name for name in (CUDA, CPU) if name in offered and (name == CPU or device != "cpu")]
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as exc:  # onnxruntime's own exception classes are not public
        raise BadModel(f"{path.parent.name}/{path.name} is not a model that ONNX Runtime opens: {exc}") from exc
    # it falls back to the CPU with no more than a log line
    if device == "cuda" and CUDA not in session.get_providers():
        raise BadModel(f"ONNX Runtime has {session.get_providers()} here, not {CUDA}; set GIGAMASK_DEVICE=cpu or auto")
    return session
