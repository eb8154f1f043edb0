"""The three convolution blocks that everything else is made of."""

from __future__ import annotations

from torch import nn


def conv_norm(
    inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, dilation: int = 1
) -> nn.Sequential:
    """Convolution (no bias, same padding) and batch norm."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation=dilation, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def conv_norm_relu(inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*conv_norm(inputs, outputs, kernel, stride=stride), nn.ReLU(inplace=True))


def separable(inputs: int, outputs: int, *, dilation: int = 1) -> nn.Sequential:
    """Depthwise 3x3 then pointwise 1x1, each with batch norm and ReLU (DeepLabV3+, section 3.1)."""
    depthwise = conv_norm(inputs, inputs, 3, groups=inputs, dilation=dilation)
    return nn.Sequential(*depthwise, nn.ReLU(inplace=True), *conv_norm_relu(inputs, outputs))
