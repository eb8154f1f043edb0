"""A host put together: a backbone, what follows it, dropout, and the last 1x1.

    features = neck(backbone(x))      decode = dropout(decoder(features))      classify = classifier

Every family of `model.hosts` is this class around parts of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from model.parts.conv import conv_norm_relu


class HostNetwork(nn.Module):
    """(B, 3, h, w) -> features -> D (B, channels, h/s, w/s) -> scores (B, K, h/s, w/s); h and w in multiples of 32.

    `feature_channels`: of features()[-1], before a caller joins more to it.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        classifier: nn.Conv2d,
        feature_channels: int,
        *,
        neck: nn.Module | None = None,
        dropout: float = 0.0,
        auxiliary: AuxiliaryHeads | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.decoder = backbone, neck, decoder
        self.dropout = nn.Dropout2d(dropout)
        self.classifier, self.auxiliary = classifier, auxiliary
        self.channels, self.feature_channels = classifier.in_channels, feature_channels

    def features(self, x: Tensor) -> list[Tensor]:
        maps = self.backbone(x)
        return cast(list[Tensor], maps if self.neck is None else self.neck(maps))

    def decode(self, features: list[Tensor]) -> Tensor:
        return cast(Tensor, self.dropout(self.decoder(features)))

    def classify(self, decoded: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(decoded))

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.decode(self.features(x)))


class AuxiliaryHeads(nn.Module):
    """The host's own heads on inner maps, in training only: features -> [(scores, weight of its loss)]."""

    def __init__(self, taps: Sequence[int], heads: Sequence[nn.Module], weight: float) -> None:
        super().__init__()
        self.taps, self.weight = tuple(taps), weight
        self.heads = nn.ModuleList(heads)

    def forward(self, features: list[Tensor]) -> list[tuple[Tensor, float]]:
        return [(head(features[tap]), self.weight) for tap, head in zip(self.taps, self.heads, strict=True)]


def fcn_head(inputs: int, inner: int, classes: int) -> nn.Sequential:
    """3x3, dropout, 1x1: mmsegmentation's FCNHead of one convolution."""
    return nn.Sequential(*conv_norm_relu(inputs, inner, 3), nn.Dropout2d(0.1), nn.Conv2d(inner, classes, 1))


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear, to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
