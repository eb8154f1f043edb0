"""Decode heads that serve several backbones: FCN, DeepLabV3+, LR-ASPP. Each gives D, what the last 1x1 reads."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from model.hosts.network import resize
from model.parts.conv import conv_norm_relu, separable


class FcnDecoder(nn.Module):
    """Two 3x3 on the last map, joined with that map by a third (mmsegmentation's FCNHead with `concat_input`)."""

    def __init__(self, deep: int, outputs: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(conv_norm_relu(deep, outputs, 3), conv_norm_relu(outputs, outputs, 3))
        self.join = conv_norm_relu(deep + outputs, outputs, 3)

    def forward(self, features: list[Tensor]) -> Tensor:
        deep = features[-1]
        return cast(Tensor, self.join(torch.cat([deep, self.convs(deep)], dim=1)))


class DeepLabDecoder(nn.Module):
    """Separable atrous pyramid, one join with a finer map at `tap` (DeepLabV3+, Chen et al., ECCV 2018, Fig. 2)."""

    def __init__(self, deep: int, fine: int, outputs: int, *, rates: tuple[int, ...], tap: int = 0) -> None:
        super().__init__()
        self.tap = tap
        self.pyramid = AtrousPyramid(deep, outputs, rates)
        self.reduce = conv_norm_relu(fine, 48)
        self.fuse = nn.Sequential(separable(outputs + 48, outputs), separable(outputs, outputs))

    def forward(self, features: list[Tensor]) -> Tensor:
        fine = self.reduce(features[self.tap])
        deep = resize(self.pyramid(features[-1]), fine)
        return cast(Tensor, self.fuse(torch.cat([deep, fine], dim=1)))


class AtrousPyramid(nn.Module):
    """A 1x1, a separable 3x3 per rate and the image's mean, side by side (DeepLabV3, section 3.3)."""

    def __init__(self, inputs: int, outputs: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.image = conv_norm_relu(inputs, outputs)
        branches = [conv_norm_relu(inputs, outputs), *(separable(inputs, outputs, dilation=rate) for rate in rates)]
        self.branches = nn.ModuleList(branches)
        self.project = conv_norm_relu((2 + len(rates)) * outputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        image = self.image(x.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        return cast(Tensor, self.project(torch.cat([image, *(branch(x) for branch in self.branches)], dim=1)))


class LrAsppDecoder(nn.Module):
    """Lite R-ASPP (Howard et al., "Searching for MobileNetV3", section 6.4): the deep map, gated by the image's mean.

    Its two 1x1 classifiers, on the deep map and on the finer one at `tap`, are summed: that is one 1x1 on both
    concatenated, which is D.
    """

    def __init__(self, deep: int, inner: int, *, tap: int) -> None:
        super().__init__()
        self.tap = tap
        self.point = conv_norm_relu(deep, inner)
        self.gate = nn.Sequential(nn.Conv2d(deep, inner, 1, bias=False), nn.Sigmoid())

    def forward(self, features: list[Tensor]) -> Tensor:
        fine, deep = features[self.tap], features[-1]
        gated = self.point(deep) * self.gate(deep.mean(dim=(2, 3), keepdim=True))
        return torch.cat([resize(gated, fine), fine], dim=1)
