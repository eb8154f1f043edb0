"""The two heads for phone-sized backbones that end at output stride 16: DeepLabV3+ and LR-ASPP.

Such a backbone gives maps at strides 2, 4, 8, 16, 16. DeepLabV3+ has the sizes of its paper at stride 16 (256 channels,
rates 6, 12, 18), LR-ASPP those of its own (128 channels).
"""

from __future__ import annotations

from torch import nn

from model.hosts.heads import DeepLabDecoder, LrAsppDecoder
from model.hosts.network import HostNetwork

_STRIDE_4, _STRIDE_8 = 1, 2  # places in the backbone's list
_DEEPLAB, _LRASPP = 256, 128


def deeplab_host(backbone: nn.Module, channels: tuple[int, ...], classes: int, extra_channels: int) -> HostNetwork:
    """D (B, 256, h/4, w/4)"""
    deep = channels[-1] + extra_channels
    decoder = DeepLabDecoder(deep, channels[_STRIDE_4], _DEEPLAB, rates=(6, 12, 18), tap=_STRIDE_4)
    return HostNetwork(backbone, decoder, nn.Conv2d(_DEEPLAB, classes, 1), channels[-1], dropout=0.1)


def lraspp_host(backbone: nn.Module, channels: tuple[int, ...], classes: int, extra_channels: int) -> HostNetwork:
    """D (B, 128 + c, h/8, w/8), c those of the backbone at stride 8."""
    decoder = LrAsppDecoder(channels[-1] + extra_channels, _LRASPP, tap=_STRIDE_8)
    classifier = nn.Conv2d(_LRASPP + channels[_STRIDE_8], classes, 1)
    return HostNetwork(backbone, decoder, classifier, channels[-1])


def dilate_strides(strides: list[int], first: int = 2, last: int = 16) -> list[tuple[int, int]]:
    """(stride, dilation) of each block so that the maps stay at `last`, after a stem of stride `first`.

    A stride of 2 too many becomes a dilation of the blocks after it; its own block still reads an undilated map.
    """
    reached, dilation, out = first, 1, []
    for stride in strides:
        keep = stride if reached * stride <= last else 1
        out.append((keep, dilation))
        reached *= keep
        dilation *= stride // keep
    return out
