"""EfficientNet-Lite0 (Tan and Le, ICML 2019; the Lite variant: no squeeze-and-excitation, ReLU6, a fixed stem).

Output stride 16: the last down-sampling stage dilates instead. Strided convolutions pad as TensorFlow's SAME does, one
pixel less before than after, since the public weights were trained so; batch norm has TensorFlow's epsilon.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from model.hosts.checkpoint import load_checkpoint
from model.hosts.light import deeplab_host, dilate_strides, lraspp_host
from model.hosts.network import HostNetwork
from model.parts.conv import conv_norm

# repeats, kernel, stride, expansion, channels
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_TAPS = (0, 2, 4, 10, 15)  # last block at strides 2, 4, 8, 16, and at 16 dilated
_TAP_CHANNELS = (16, 24, 40, 112, 320)
_EPS = 1e-3


def build_deeplab(classes: int, extra_channels: int = 0) -> HostNetwork:
    return deeplab_host(EfficientNetLite(), _TAP_CHANNELS, classes, extra_channels)


def build_lraspp(classes: int, extra_channels: int = 0) -> HostNetwork:
    return lraspp_host(EfficientNetLite(), _TAP_CHANNELS, classes, extra_channels)


class EfficientNetLite(nn.Module):
    """(B, 3, h, w) -> 16, 24, 40, 112, 320 channels at strides 2, 4, 8, 16, 16."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_same_conv_norm(3, 32, 3, stride=2), nn.ReLU6(inplace=True))
        rows = [(kernel, stride if i == 0 else 1, t, c) for n, kernel, stride, t, c in _STAGES for i in range(n)]
        strides = dilate_strides([stride for _, stride, _, _ in rows])
        blocks: list[nn.Module] = []
        inputs = 32
        for (kernel, _, expansion, channels), (stride, dilation) in zip(rows, strides, strict=True):
            blocks.append(Block(inputs, channels, kernel, stride, dilation, expansion))
            inputs = channels
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in _TAPS:
                maps.append(x)
        return maps


class Block(nn.Module):
    """1x1 expand, depthwise, 1x1 project without activation; a shortcut where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, dilation: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = _same_conv_norm(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = _same_conv_norm(hidden, hidden, kernel, stride=stride, groups=hidden, dilation=dilation)
        self.project = _same_conv_norm(hidden, outputs, 1)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        out = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(out)))
        return cast(Tensor, x + out if self.shortcut else out)


class HalvingConv(nn.Conv2d):
    """Stride 2 on even sides: k - 2 pixels of padding, the smaller half before."""

    def forward(self, x: Tensor) -> Tensor:
        total = self.kernel_size[0] - 2
        before = total // 2
        return super().forward(F.pad(x, (before, total - before, before, total - before)))


def _same_conv_norm(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Sequential:
    block = conv_norm(inputs, outputs, kernel, groups=groups, dilation=dilation)
    conv = HalvingConv(inputs, outputs, kernel, stride, groups=groups, bias=False) if stride == 2 else block[0]
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=_EPS))


def load_backbone(backbone: nn.Module, checkpoint: Path) -> None:
    """`efficientnet-lite0-57934424.pth` (keys _conv_stem, _blocks.0._depthwise_conv); head and classifier are left."""
    load_checkpoint(backbone, checkpoint, "an ImageNet EfficientNet-Lite0", _public_name)


def _public_name(key: str) -> str:
    """blocks.1.depthwise.1.bias -> _blocks.1._bn1.bias"""
    *block, step, place, leaf = key.split(".")
    if step == "stem":
        return f"{('_conv_stem', '_bn0')[int(place)]}.{leaf}"
    conv = (f"_{step}_conv", f"_bn{('expand', 'depthwise', 'project').index(step)}")
    return f"_{'.'.join(block)}.{conv[int(place)]}.{leaf}"
