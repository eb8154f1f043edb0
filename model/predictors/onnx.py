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
from model.predictors.tiles import Bytes, TileBatch

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_LOG_ERRORS = 3


class OnnxNetwork:
    def __init__(
        self,
        folder: Path,
        manifest: ModelManifest,
        *,
        threads: int | None = None,
        device: Device = "auto",
    ) -> None:
        path = checked_file(folder, manifest, "onnx")
        self._session = open_session(path, threads, device)
        self.fixed_batch = CUDA in self._session.get_providers()
        self._inputs = tuple(item.name for item in self._session.get_inputs())
        expected = ("local",) if manifest.alpha == 1 else ("local", "surround", "offset")
        if set(self._inputs) != set(expected):
            raise BadModel(f"{manifest.name}: inputs of {path.name} are {self._inputs}, expected {expected}")

    def labels(self, batch: TileBatch) -> Bytes:
        return self._run("labels", batch)

    def scores(self, batch: TileBatch) -> NDArray[np.float32]:
        return self._run("scores", batch)

    def _run(self, output: str, batch: TileBatch) -> NDArray[Any]:
        # only what is asked for is computed: scores never leave the engine when labels are wanted
        found: NDArray[Any] = self._session.run([output], {name: getattr(batch, name) for name in self._inputs})[0]
        return found


def open_session(path: Path, threads: int | None, device: Device) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
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
