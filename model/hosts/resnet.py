"""ResNet-50 v1c at output stride 8 with the FCN or DeepLabV3+ head, in the sizes of mmsegmentation's `*_r50-d8`.

v1c (He et al., CVPR 2019, section 4.2): three 3x3 instead of the 7x7 stem. Stages 3 and 4 keep stride 8 and dilate by
2 and 4, the first block of each by half of that (`contract_dilation`). Key names are open-mmlab's `resnet50_v1c`.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import Tensor, nn

from model.hosts.checkpoint import fill, read_checkpoint
from model.hosts.heads import DeepLabDecoder, FcnDecoder
from model.hosts.network import AuxiliaryHeads, HostNetwork, fcn_head
from model.parts.conv import conv_norm, conv_norm_relu

_INNER = 512  # channels of D
_EXPANSION = 4
# blocks, inner width, stride, dilation of stages 1 to 4
_STAGES = ((3, 64, 1, 1), (4, 128, 2, 1), (6, 256, 1, 2), (3, 512, 1, 4))
_CHANNELS = tuple(width * _EXPANSION for _, width, _, _ in _STAGES)


def build_fcn(classes: int, extra_channels: int = 0) -> HostNetwork:
    """D (B, 512, h/8, w/8)"""
    return _build(classes, FcnDecoder(_CHANNELS[-1] + extra_channels, _INNER))


def build_deeplab(classes: int, extra_channels: int = 0) -> HostNetwork:
    """D (B, 512, h/4, w/4)"""
    return _build(classes, DeepLabDecoder(_CHANNELS[-1] + extra_channels, _CHANNELS[0], _INNER, rates=(12, 24, 36)))


def _build(classes: int, decoder: nn.Module) -> HostNetwork:
    auxiliary = AuxiliaryHeads([2], [fcn_head(_CHANNELS[2], 256, classes)], weight=0.4)
    classifier = nn.Conv2d(_INNER, classes, 1)
    return HostNetwork(ResNet50(), decoder, classifier, _CHANNELS[-1], dropout=0.1, auxiliary=auxiliary)


class ResNet50(nn.Module):
    """(B, 3, h, w) -> 256 at stride 4, and 512, 1024, 2048 at stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *conv_norm_relu(3, 32, 3, stride=2), *conv_norm_relu(32, 32, 3), *conv_norm_relu(32, 64, 3)
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        inputs = 64
        for i, (blocks, width, stride, dilation) in enumerate(_STAGES, 1):
            self.add_module(f"layer{i}", _stage(inputs, blocks, width, stride, dilation))
            inputs = width * _EXPANSION

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.pool(self.stem(x))
        maps = []
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            maps.append(x)
        return maps


def _stage(inputs: int, blocks: int, width: int, stride: int, dilation: int) -> nn.Sequential:
    first = Bottleneck(inputs, width, stride, max(1, dilation // 2))
    return nn.Sequential(first, *(Bottleneck(width * _EXPANSION, width, 1, dilation) for _ in range(blocks - 1)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which has the stride), 1x1 to four times the width, and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, inputs: int, width: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        outputs = width * _EXPANSION
        self.conv1, self.bn1 = conv_norm(inputs, width)
        self.conv2, self.bn2 = conv_norm(width, width, 3, stride=stride, dilation=dilation)
        self.conv3, self.bn3 = conv_norm(width, outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = conv_norm(inputs, outputs, stride=stride) if inputs != outputs or stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return cast(Tensor, self.relu(out + (x if self.downsample is None else self.downsample(x))))


def load_backbone(backbone: nn.Module, checkpoint: Path) -> None:
    """open-mmlab's `resnet50_v1c` (stem.0, layer1.0.conv1) or timm's `resnet50c` (conv1.0, bn1, layer1.0.conv1)."""
    state = read_checkpoint(checkpoint)
    public_name = _timm_name if "conv1.0.weight" in state else str
    fill(backbone, state, checkpoint, "a ResNet-50 v1c (deep stem)", public_name)


def _timm_name(key: str) -> str:
    return key.replace("stem.7.", "bn1.").replace("stem.", "conv1.")
