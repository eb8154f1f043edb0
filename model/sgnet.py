"""SGNet: a host that reads the local patch, a branch that reads its surroundings, one classifier for both.

    surround (B,3,S,S) -> trunk -> SCI x N -> F' (B,C,S/16,S/16) -> RoIAlign over the local patch -> A
    local    (B,3,t,t) -> host features, decode -> D (B,C_D,t/s,t/s)
    scores = conv1x1(cat(D, A))                                                        (section 3.2, late concatenation)

A 1x1 is linear and interpolation weights sum to one, so conv1x1(cat(D, A)) = W_D D + b + RoIAlign(W_A F'): the
surround's half is applied to the small map first and K maps are resampled instead of C. Exact, and what `forward` does;
`fuse_literal` is the paper's order, kept for the test that holds the two equal.

With `surround=None` the same class is the host alone: the control of every experiment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.hosts import Host, build_host
from model.parts.conv import conv_norm_relu
from model.parts.roialign import roi_align
from model.parts.sci import Sci
from model.parts.stdc import STRIDE, StdcTrunk


@dataclass(frozen=True, slots=True)
class Surround:
    """The surrounding branch. width 1.0 and blocks 4 are the paper's size as far as it can be known."""

    alpha: int = 2
    width: float = 1.0
    blocks: int = 4  # N
    window: int = 8  # w


@dataclass(frozen=True, slots=True)
class Architecture:
    """All that is needed to rebuild a network before its weights are loaded."""

    host: str
    classes: int
    tile_px: int
    surround: Surround | None = None

    @property
    def alpha(self) -> int:
        return self.surround.alpha if self.surround else 1

    @property
    def surround_px(self) -> int:
        return self.tile_px * self.alpha


class TrainingOutput(NamedTuple):
    local: Tensor  # P_local (B, K, t, t)
    surround: Tensor | None  # P_global (B, K, S, S), the auxiliary head's


class SGNet(nn.Module):
    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.host = build_host(architecture.host, architecture.classes)
        self.branch = SurroundBranch(architecture.surround) if architecture.surround else None
        self.context = None
        self.auxiliary = None
        if self.branch is not None:
            # W_A: with the host's classifier as [W_D, b], the widened 1x1
            self.context = nn.Conv2d(self.branch.channels, architecture.classes, 1, bias=False)
            self.auxiliary = auxiliary_head(self.branch.channels, architecture.classes)

    def forward(self, local: Tensor, surround: Tensor | None = None, offset: Tensor | None = None) -> Tensor:
        """local: (B,3,t,t), surround: (B,3,S,S), normalised; offset: (B,2) integer (y, x) -> scores (B,K,t,t)"""
        decoded = self._decode(local)
        if self.branch is None:
            return _resize(self.host.classify(decoded), local.shape[-1])
        return self._fuse(decoded, self.branch(surround), cast(Tensor, offset), local.shape[-1])

    def forward_training(self, local: Tensor, surround: Tensor, offset: Tensor) -> TrainingOutput:
        """As `forward`, with the auxiliary head's view of the whole surround (section 3.4)."""
        decoded = self._decode(local)
        if self.branch is None or self.auxiliary is None:
            return TrainingOutput(_resize(self.host.classify(decoded), local.shape[-1]), None)
        context = self.branch(surround)
        scores = self._fuse(decoded, context, offset, local.shape[-1])
        return TrainingOutput(scores, _resize(self.auxiliary(context), surround.shape[-1]))

    def fuse_literal(self, decoded: Tensor, context: Tensor, offset: Tensor, tile_px: int) -> Tensor:
        """conv1x1(cat(D, RoIAlign(F')))"""
        assert self.context is not None
        aligned = roi_align(context, offset, tile_px, STRIDE, decoded.shape[-1])
        host = self.host.classifier
        weight = torch.cat([host.weight, self.context.weight], dim=1)  # (K, C_D + C, 1, 1)
        return _resize(F.conv2d(torch.cat([decoded, aligned], dim=1), weight, host.bias), tile_px)

    def _fuse(self, decoded: Tensor, context: Tensor, offset: Tensor, tile_px: int) -> Tensor:
        """W_D D + b + RoIAlign(W_A F')"""
        assert self.context is not None
        aligned = roi_align(self.context(context), offset, tile_px, STRIDE, decoded.shape[-1])
        return _resize(self.host.classify(decoded) + aligned, tile_px)

    def _decode(self, local: Tensor) -> Tensor:
        host: Host = self.host
        return host.decode(host.features(local))


class SurroundBranch(nn.Module):
    """Trunk and N SCI blocks: (B, 3, S, S) -> F' (B, C, S/16, S/16)."""

    def __init__(self, surround: Surround) -> None:
        super().__init__()
        self.trunk = StdcTrunk(surround.width)
        self.channels = self.trunk.channels
        self.blocks = nn.Sequential(*(Sci(self.channels, surround.window) for _ in range(surround.blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.blocks(self.trunk(x)))


def auxiliary_head(channels: int, classes: int) -> nn.Sequential:
    """3x3 to half the channels, 1x1 to classes (mmsegmentation's FCNHead). Training only."""
    return nn.Sequential(*conv_norm_relu(channels, channels // 2, 3), nn.Conv2d(channels // 2, classes, 1))


def _resize(scores: Tensor, side: int) -> Tensor:
    if scores.shape[-1] == side:
        return scores
    return F.interpolate(scores, size=(side, side), mode="bilinear", align_corners=False)
