"""STDC1 and STDC2 (Fan et al., CVPR 2021) in mmsegmentation's sizes (`STDCContextPathNet`).

A light backbone, a context path that carries the image's mean and the deep maps down to stride 8, and a fusion with
the map the backbone has there. Two auxiliary heads read the context path. The paper's third, the detail head that
predicts edges in training, is left out: its loss is no cross-entropy over classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.hosts.checkpoint import load_checkpoint
from model.hosts.network import AuxiliaryHeads, HostNetwork, fcn_head
from model.parts.conv import conv_norm, conv_norm_relu
from model.parts.stdc import StdcModule, StdcTrunk

_CHANNELS = (256, 512, 1024)  # at strides 8, 16, 32
_PATH, _FUSED = 128, 256


def build_stdc1(classes: int, extra_channels: int = 0) -> HostNetwork:
    return _build((2, 2, 2), classes, extra_channels)


def build_stdc2(classes: int, extra_channels: int = 0) -> HostNetwork:
    return _build((4, 5, 3), classes, extra_channels)


def _build(modules: tuple[int, ...], classes: int, extra_channels: int) -> HostNetwork:
    """features: the backbone's stride 8, the context path at 16 and 8, and both fused; D (B, 256, h/8, w/8)"""
    return HostNetwork(
        StdcNet(modules),
        FusedDecoder(_FUSED + extra_channels, _FUSED),
        nn.Conv2d(_FUSED, classes, 1),
        _FUSED,
        neck=ContextPath(),
        dropout=0.1,
        auxiliary=AuxiliaryHeads([1, 2], [fcn_head(_PATH, 64, classes) for _ in range(2)], weight=1.0),
    )


class StdcNet(nn.Module):
    """(B, 3, h, w) -> 256, 512, 1024 channels at strides 8, 16, 32; `modules` of each stage."""

    def __init__(self, modules: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm_relu(3, 32, 3, stride=2), conv_norm_relu(32, 64, 3, stride=2)]
        inputs = 64
        self.taps = []
        for count, outputs in zip(modules, _CHANNELS, strict=True):
            layers += [StdcModule(inputs, outputs, 2), *(StdcModule(outputs, outputs, 1) for _ in range(count - 1))]
            self.taps.append(len(layers) - 1)
            inputs = outputs
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in self.taps:
                maps.append(x)
        return maps


class ContextPath(nn.Module):
    """[x8, x16, x32] -> [x8, path at 16, path at 8, both fused at 8] (STDC Fig. 4, after BiSeNet)."""

    def __init__(self) -> None:
        super().__init__()
        x8, x16, x32 = _CHANNELS
        self.image = conv_norm_relu(x32, _PATH)
        self.refine = nn.ModuleList([Refinement(x32, _PATH), Refinement(x16, _PATH)])
        self.smooth = nn.ModuleList([conv_norm_relu(_PATH, _PATH, 3), conv_norm_relu(_PATH, _PATH, 3)])
        self.fusion = Fusion(x8 + _PATH, _FUSED)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x8, x16, x32 = maps
        path = self.image(x32.mean(dim=(2, 3), keepdim=True))
        steps = []
        for refine, smooth, x, finer in zip(self.refine, self.smooth, (x32, x16), (x16, x8), strict=True):
            path = smooth(F.interpolate(refine(x) + path, size=finer.shape[-2:], mode="nearest"))
            steps.append(path)
        return [x8, *steps, self.fusion(torch.cat([x8, path], dim=1))]


class Refinement(nn.Module):
    """A 3x3 whose channels are weighed by their means (BiSeNet's attention refinement)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv_norm_relu(inputs, outputs, 3)
        self.gate = nn.Sequential(*conv_norm(outputs, outputs), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return cast(Tensor, x * self.gate(x.mean(dim=(2, 3), keepdim=True)))


class Fusion(nn.Module):
    """A 1x1 whose channels are weighed by their means, added to itself (BiSeNet's feature fusion)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.conv = conv_norm_relu(inputs, outputs)
        self.gate = nn.Sequential(
            nn.Conv2d(outputs, inner, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return cast(Tensor, x + x * self.gate(x.mean(dim=(2, 3), keepdim=True)))


class FusedDecoder(nn.Module):
    """One 3x3 on the last map."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv_norm_relu(inputs, outputs, 3)

    def forward(self, features: list[Tensor]) -> Tensor:
        return cast(Tensor, self.conv(features[-1]))


def load_backbone(backbone: nn.Module, checkpoint: Path) -> None:
    """The authors' STDCNet813M_73.91.tar (STDC1) or STDCNet1446_76.47.tar (STDC2): keys features.0.conv.weight."""
    load_checkpoint(backbone, checkpoint, "an ImageNet STDC of this size", _public_name)


def load_trunk(trunk: StdcTrunk, checkpoint: Path) -> None:
    """The surrounding branch's trunk from STDC1's checkpoint: its first six layers. Only for width 1.0."""
    load_checkpoint(trunk, checkpoint, "an ImageNet STDC1 (a trunk of width 1.0)", _public_name)


def _public_name(key: str) -> str:
    """layers.2.rest.0.1.bias -> features.2.conv_list.1.bn.bias"""
    _, layer, *part, place, leaf = key.split(".")
    if part == ["shrink"]:
        return f"features.{layer}.avd_layer.{place}.{leaf}"
    conv = "" if not part else f"conv_list.{0 if part == ['first'] else int(part[-1]) + 1}."
    return f"features.{layer}.{conv}{('conv', 'bn')[int(place)]}.{leaf}"
