"""HRNet-W18 (Wang et al., TPAMI 2020) with mmsegmentation's `fcn_hr18` head: all four resolutions, one 1x1 of 270.

Four branches at strides 4 to 32, exchanged after every four blocks. Key names are those of the official ImageNet
checkpoints (`hrnetv2_w18`), which mmsegmentation shares.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from model.hosts.checkpoint import load_checkpoint
from model.hosts.network import HostNetwork, resize
from model.hosts.resnet import Bottleneck
from model.parts.conv import conv_norm, conv_norm_relu

_WIDTHS = (18, 36, 72, 144)
_MODULES = (1, 4, 3)  # of stages 2, 3, 4
_BLOCKS = 4


def build_host(classes: int, extra_channels: int = 0) -> HostNetwork:
    """D (B, 270, h/4, w/4)"""
    channels = sum(_WIDTHS)
    decoder = ConcatDecoder(channels + extra_channels, channels)
    return HostNetwork(HrNet(), decoder, nn.Conv2d(channels, classes, 1), _WIDTHS[-1])


class ConcatDecoder(nn.Module):
    """Every map at the finest one's resolution, then one 1x1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv_norm_relu(inputs, outputs)

    def forward(self, features: list[Tensor]) -> Tensor:
        maps = [features[0], *(resize(x, features[0]) for x in features[1:])]
        return cast(Tensor, self.conv(torch.cat(maps, dim=1)))


class HrNet(nn.Module):
    """(B, 3, h, w) -> 18, 36, 72, 144 channels at strides 4, 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_norm(3, 64, 3, stride=2)
        self.conv2, self.bn2 = conv_norm(64, 64, 3, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Bottleneck(64, 64), *(Bottleneck(256, 64) for _ in range(_BLOCKS - 1)))
        before: tuple[int, ...] = (256,)
        for i, modules in enumerate(_MODULES, 1):
            widths = _WIDTHS[: i + 1]
            self.add_module(f"transition{i}", _transition(before, widths))
            self.add_module(f"stage{i + 1}", nn.Sequential(*(Exchange(widths) for _ in range(modules))))
            before = widths

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        maps = [self.layer1(x)]
        for i in range(1, len(_MODULES) + 1):
            transition = cast(nn.ModuleList, self.get_submodule(f"transition{i}"))
            maps = [step(y) for step, y in zip(transition, [*maps, maps[-1]], strict=True)]
            maps = self.get_submodule(f"stage{i + 1}")(maps)
        return maps


def _transition(before: tuple[int, ...], after: tuple[int, ...]) -> nn.ModuleList:
    """To one branch more, made from the coarsest there is."""
    kept: list[nn.Module] = [
        nn.Identity() if old == new else conv_norm_relu(old, new, 3) for old, new in zip(before, after, strict=False)
    ]
    return nn.ModuleList([*kept, nn.Sequential(conv_norm_relu(before[-1], after[-1], 3, stride=2))])


class Exchange(nn.Module):
    """Four blocks on each branch; then each branch becomes the sum of all, brought to its resolution (Fig. 3)."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(c) for _ in range(_BLOCKS))) for c in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_bring(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [
            self._sum(cast(nn.ModuleList, row), maps, target)
            for row, target in zip(self.fuse_layers, maps, strict=True)
        ]

    def _sum(self, row: nn.ModuleList, maps: list[Tensor], target: Tensor) -> Tensor:
        total = torch.zeros_like(target)
        for bring, x in zip(row, maps, strict=True):
            y = bring(x)
            total = total + (y if y.shape[-1] == target.shape[-1] else resize(y, target))
        return torch.relu(total)


def _bring(widths: tuple[int, ...], source: int, target: int) -> nn.Module:
    """From a coarser branch: a 1x1 (and a resize). From a finer one: 3x3 of stride 2, once per octave."""
    if source == target:
        return nn.Identity()
    if source > target:
        return conv_norm(widths[source], widths[target])
    steps: list[nn.Module] = [
        conv_norm_relu(widths[source], widths[source], 3, stride=2) for _ in range(target - source - 1)
    ]
    return nn.Sequential(*steps, conv_norm(widths[source], widths[target], 3, stride=2))


class BasicBlock(nn.Module):
    """Two 3x3 and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_norm(channels, channels, 3)
        self.conv2, self.bn2 = conv_norm(channels, channels, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        return cast(Tensor, self.relu(x + self.bn2(self.conv2(out))))


def load_backbone(backbone: nn.Module, checkpoint: Path) -> None:
    """The official `hrnetv2_w18`; its classification head (incre_modules and on) is left out."""
    load_checkpoint(backbone, checkpoint, "an ImageNet HRNet-W18")
