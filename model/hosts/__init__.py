"""Host networks: any segmentation model in three functions, and `build_host` that makes one by name.

    features(x) -> list     backbone maps; the decode head's deepest input last
    decode(list) -> D       (B, channels, H/stride, W/stride), what the host's last 1x1 reads
    classify(D) -> scores   that 1x1

SGNet calls the first two and brings a wider 1x1 of its own (section 3.2, late concatenation). For early concatenation
it joins its context to features()[-1]; `extra_channels` builds a decode head that takes so many more there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from model.hosts import efficientnet, hrnet, mobilenet, resnet, segformer, stdc
from model.hosts.network import AuxiliaryHeads, HostNetwork


class Host(Protocol):
    channels: int  # of D
    feature_channels: int  # of features()[-1], as the host alone makes it
    backbone: nn.Module  # what starts from ImageNet
    classifier: nn.Conv2d
    auxiliary: AuxiliaryHeads | None  # auxiliary(features) -> [(scores, weight)], training only

    def features(self, x: Tensor) -> list[Tensor]: ...

    def decode(self, features: list[Tensor]) -> Tensor: ...

    def classify(self, decoded: Tensor) -> Tensor: ...

    def __call__(self, x: Tensor) -> Any: ...  # all three, as torch types a module's call


_Builder = Callable[[int, int], HostNetwork]  # of classes and extra_channels
_Loader = Callable[[nn.Module, Path], None]  # of a backbone and its ImageNet checkpoint
_FAMILIES: dict[str, tuple[_Builder, _Loader]] = {
    "fcn_r50": (resnet.build_fcn, resnet.load_backbone),
    "deeplabv3plus_r50": (resnet.build_deeplab, resnet.load_backbone),
    "hrnet_w18": (hrnet.build_host, hrnet.load_backbone),
    "segformer_b0": (segformer.build_host, segformer.load_backbone),
    "stdc1": (stdc.build_stdc1, stdc.load_backbone),
    "stdc2": (stdc.build_stdc2, stdc.load_backbone),
    "mobilenet_v2": (mobilenet.build_light, mobilenet.load_backbone),
    "mobilenet_v2_deeplabv3plus": (mobilenet.build_deeplab, mobilenet.load_backbone),
    "mobilenet_v2_lraspp": (mobilenet.build_lraspp, mobilenet.load_backbone),
    "efficientnet_lite0_deeplabv3plus": (efficientnet.build_deeplab, efficientnet.load_backbone),
    "efficientnet_lite0_lraspp": (efficientnet.build_lraspp, efficientnet.load_backbone),
}
HOSTS = {name: builder for name, (builder, _) in _FAMILIES.items()}


def build_host(name: str, classes: int, extra_channels: int = 0) -> HostNetwork:
    """extra_channels: how many more channels than `feature_channels` decode() will find in features()[-1]."""
    _check_name(name)
    return HOSTS[name](classes, extra_channels)


def load_backbone(host: Host, name: str, checkpoint: Path) -> None:
    """Fill host.backbone from a public ImageNet checkpoint in its usual keys. FileNotFoundError, ValueError."""
    _check_name(name)
    _FAMILIES[name][1](host.backbone, checkpoint)


def _check_name(name: str) -> None:
    if name not in HOSTS:
        raise ValueError(f"unknown host {name!r}: expected one of {sorted(HOSTS)}")
