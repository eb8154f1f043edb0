"""MobileNetV2 (Sandler et al., CVPR 2018) with a light DeepLabV3+-like decoder that reaches full resolution.

Also with DeepLabV3+'s own head and with LR-ASPP (`model.hosts.light`).

DeepLabV3+ joins low-level features once, at stride 4. Lakes and coasts here are a pixel or two wide, so this decoder
joins at strides 16, 8, 4 and 2, and a pixel shuffle (Shi et al., CVPR 2016) spreads the stride-2 channels over their
four pixels: the classifier then sees every pixel for the price of stride 2.
Key names below `backbone` are torchvision's, so that its ImageNet checkpoints load as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.hosts.checkpoint import load_checkpoint
from model.hosts.light import deeplab_host, dilate_strides, lraspp_host
from model.hosts.network import HostNetwork
from model.parts.conv import conv_norm, conv_norm_relu, separable

# t, c, n, s of Table 2: expansion, channels, repeats, stride of the first
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_TAPS = (1, 3, 6, 13, 17)  # last block at strides 2, 4, 8, 16, 32
_TAP_CHANNELS = (16, 24, 32, 96, 320)
_CHANNELS = 16  # of D


def build_light(classes: int, extra_channels: int = 0) -> HostNetwork:
    """(B, 3, t, t) -> D (B, 16, t, t) -> scores (B, K, t, t); t in multiples of 32."""
    backbone, decoder = Backbone(), Decoder(_CHANNELS, extra_channels)
    return HostNetwork(backbone, decoder, nn.Conv2d(_CHANNELS, classes, 1), _TAP_CHANNELS[-1])


def build_deeplab(classes: int, extra_channels: int = 0) -> HostNetwork:
    return deeplab_host(Backbone(last_stride=16), _TAP_CHANNELS, classes, extra_channels)


def build_lraspp(classes: int, extra_channels: int = 0) -> HostNetwork:
    return lraspp_host(Backbone(last_stride=16), _TAP_CHANNELS, classes, extra_channels)


class Backbone(nn.Module):
    """MobileNetV2 without its last 1x1: maps at strides 2, 4, 8, 16, and 32 or, dilated, 16."""

    def __init__(self, last_stride: int = 32) -> None:
        super().__init__()
        rows = [(t, c, s if i == 0 else 1) for t, c, n, s in _STAGES for i in range(n)]
        strides = dilate_strides([stride for _, _, stride in rows], last=last_stride)
        blocks: list[nn.Module] = [_conv_relu6(3, 32, 3, stride=2)]
        inputs = 32
        for (expansion, channels, _), (stride, dilation) in zip(rows, strides, strict=True):
            blocks.append(InvertedResidual(inputs, channels, stride, expansion, dilation))
            inputs = channels
        self.features = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for i, block in enumerate(self.features):
            x = block(x)
            if i in _TAPS:
                maps.append(x)
        return maps


class InvertedResidual(nn.Module):
    """1x1 expand, 3x3 depthwise, 1x1 project without activation; a shortcut where shapes agree (Fig. 3b)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, dilation: int = 1) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [_conv_relu6(inputs, hidden, 1)] if expansion != 1 else []
        self.conv = nn.Sequential(
            *expand,
            _conv_relu6(hidden, hidden, 3, stride=stride, groups=hidden, dilation=dilation),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = cast(Tensor, self.conv(x))
        return x + out if self.shortcut else out


class Decoder(nn.Module):
    """Context at stride 32, four joins with finer maps, a pixel shuffle to stride 1."""

    def __init__(self, outputs: int, extra_channels: int = 0) -> None:
        super().__init__()
        self.context = Context(_TAP_CHANNELS[4] + extra_channels, 128)
        self.joins = nn.ModuleList(
            [
                Join(128, _TAP_CHANNELS[3], 64, 128),
                Join(128, _TAP_CHANNELS[2], 32, 96),
                Join(96, _TAP_CHANNELS[1], 24, 64),
                Join(64, _TAP_CHANNELS[0], 16, 64),
            ]
        )
        self.shuffle = nn.Sequential(*conv_norm_relu(64, 4 * outputs), nn.PixelShuffle(2))

    def forward(self, features: list[Tensor]) -> Tensor:
        x = self.context(features[-1])
        for join, fine in zip(self.joins, features[-2::-1], strict=True):
            x = join(x, fine)
        return cast(Tensor, self.shuffle(x))


class Context(nn.Module):
    """Atrous spatial pyramid pooling with an image-level mean (DeepLabV3, section 3.3), at stride 32."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.point = conv_norm_relu(inputs, outputs)
        self.near = separable(inputs, outputs, dilation=2)
        self.far = separable(inputs, outputs, dilation=4)
        self.image = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU(inplace=True))
        self.project = conv_norm_relu(4 * outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        image = self.image(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        return cast(Tensor, self.project(torch.cat([self.point(x), self.near(x), self.far(x), image], dim=1)))


class Join(nn.Module):
    """Upsample by 2, concatenate the finer map after a 1x1, one separable 3x3 (DeepLabV3+, section 3.1)."""

    def __init__(self, coarse: int, fine: int, fine_kept: int, outputs: int) -> None:
        super().__init__()
        self.reduce = conv_norm_relu(fine, fine_kept)
        self.fuse = separable(coarse + fine_kept, outputs)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        up = F.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False)
        return cast(Tensor, self.fuse(torch.cat([up, self.reduce(fine)], dim=1)))


def load_backbone(backbone: nn.Module, checkpoint: Path) -> None:
    """torchvision's `mobilenet_v2-*.pth`; its classifier and last 1x1 (features.18) are left out."""
    load_checkpoint(backbone, checkpoint, "a torchvision MobileNetV2")


def _conv_relu6(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Sequential:
    block = conv_norm(inputs, outputs, kernel, stride=stride, groups=groups, dilation=dilation)
    return nn.Sequential(*block, nn.ReLU6(inplace=True))
