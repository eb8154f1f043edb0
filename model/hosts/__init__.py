"""Host networks: any segmentation model in three functions, and `build_host` that makes one by name.

    features(x) -> list     backbone maps, finest first
    decode(list) -> D       (B, channels, H/stride, W/stride), what the host's last 1x1 reads
    classify(D) -> scores   that 1x1

SGNet calls the first two and brings a wider 1x1 of its own (section 3.2, late concatenation).
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from model.hosts.mobilenet import MobileNetHost


class Host(Protocol):
    channels: int  # of D
    classifier: nn.Conv2d

    def features(self, x: Tensor) -> list[Tensor]: ...

    def decode(self, features: list[Tensor]) -> Tensor: ...

    def classify(self, decoded: Tensor) -> Tensor: ...


HOSTS = {"mobilenet_v2": MobileNetHost}


def build_host(name: str, classes: int) -> MobileNetHost:
    if name not in HOSTS:
        raise ValueError(f"unknown host {name!r}: expected one of {sorted(HOSTS)}")
    return HOSTS[name](classes)
