"""A graph in memory, opened in ONNX Runtime; its failures are BadModel."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray

from gigamask.errors import BadModel

_LOG_FATAL = 4  # what goes wrong is raised, and told once
_LONGEST = 400  # of ONNX Runtime's words


class Graph:
    """One graph on the CPU. Raises BadModel where ONNX Runtime does not take it."""

    def __init__(self, model: onnx.ModelProto, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _LOG_FATAL
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # onnxruntime's own exception classes are not public
            raise BadModel(f"ONNX Runtime {onnxruntime.__version__} does not open it: {_short(exc)}") from exc

    def run(self, outputs: list[str], inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Raises BadModel where it fails on these inputs."""
        try:
            found: list[NDArray[Any]] = self._session.run(outputs, inputs)
        except Exception as exc:
            shapes = ", ".join(f"{name} {value.dtype} {value.shape}" for name, value in inputs.items())
            raise BadModel(f"the graph fails on {shapes}: {_short(exc)}") from exc
        return found


def _short(exc: Exception) -> str:
    words = " ".join(str(exc).split())
    return words if len(words) <= _LONGEST else words[:_LONGEST] + " ..."
