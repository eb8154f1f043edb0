"""SGNet: a host that reads the local patch, a branch that reads its surroundings, one classifier for both.

    surround (B,3,S,S) -> trunk -> mixing layers -> F' (B,C,S/16,S/16) -> RoIAlign over the local patch -> A
    local    (B,3,t,t) -> host features, decode -> D (B,C_D,t/s,t/s)
    scores = conv1x1(cat(D, A))                                                        (section 3.2, late concatenation)

A 1x1 is linear and interpolation weights sum to one, so conv1x1(cat(D, A)) = W_D D + b + RoIAlign(W_A F'): the
surround's half is applied to the small map first and K maps are resampled instead of C. Exact, and what `forward` does;
`fuse_literal` is the paper's order, kept for the test that holds the two equal. Adding instead of concatenating is
the same with W_A = W_D M, M the 1x1 that matches channels. What is resampled is the *context map*.

The surround's side of the work comes in three steps, so that neighbouring tiles can share the first or all of them:
`branch.trunk` -> `branch.mix` -> `context_map`; `fuse` does the rest of a tile.

With `surround=None` the same class is the host alone: the control of every experiment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.hosts import Host, build_host
from model.parts.branch import Surround, SurroundBranch
from model.parts.conv import conv_norm_relu
from model.parts.roialign import roi_align
from model.parts.stdc import STRIDE

__all__ = ["Architecture", "SGNet", "Surround", "TrainingOutput"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """All that is needed to rebuild a network before its weights are loaded.

    host_scale: the host sees the tile at 1/host_scale. 1 is the paper's; 4, with alpha 1, one block and a light host,
    is its fast version (ISDNet's way, Table 6): the branch reads every pixel, the host a thumbnail.
    ensemble: scores are the mean of both branches' (section 4.4.1); the auxiliary head then stays at inference.
    """

    host: str
    classes: int
    tile_px: int
    surround: Surround | None = None
    host_scale: int = 1
    ensemble: bool = False

    @property
    def alpha(self) -> int:
        return self.surround.alpha if self.surround else 1

    @property
    def surround_px(self) -> int:
        return self.tile_px * self.alpha


class TrainingOutput(NamedTuple):
    local: Tensor  # P_local (B, K, t, t)
    surround: Tensor | None  # P_global (B, K, S, S), the auxiliary head's
    host: list[tuple[Tensor, float]]  # the host's own auxiliary scores (B, K, t, t), and their weights


class SGNet(nn.Module):
    """host: one that is built already, such as an `AdaptedHost`, instead of the one that the architecture names.

    Such a host takes its context late; its own stride may be any.
    """

    def __init__(self, architecture: Architecture, host: Host | None = None) -> None:
        super().__init__()
        check(architecture)
        if host is not None:
            check_host(host, architecture)
        self.architecture = architecture
        surround, classes = architecture.surround, architecture.classes
        branch = SurroundBranch(surround) if surround else None
        early = (
            branch.channels if surround and branch and (surround.fusion, surround.join) == ("early", "concat") else 0
        )
        self.host = build_host(architecture.host, classes, early) if host is None else host
        self.branch = branch
        self.context: nn.Conv2d | None = None
        self.auxiliary: nn.Sequential | None = None
        if surround and branch:
            outputs = context_channels(surround, self.host, classes)
            # W_A or M; with the host's classifier as [W_D, b], the widened 1x1
            self.context = nn.Conv2d(branch.channels, outputs, 1, bias=False) if outputs else None
            self.auxiliary = auxiliary_head(branch.channels, classes) if surround.auxiliary else None

    def forward(self, local: Tensor, surround: Tensor | None = None, offset: Tensor | None = None) -> Tensor:
        """local: (B,3,t,t), surround: (B,3,S,S), normalised; offset: (B,2) integer (y, x) -> scores (B,K,t,t)

        With alpha 1 the local patch is its own surround.
        """
        if self.branch is None:
            return _resize(self.host.classify(self._decode(local)), local.shape[-1])
        if surround is None or offset is None:
            surround, offset = local, local.new_zeros((local.shape[0], 2), dtype=torch.int32)
        return self.fuse(local, self.context_map(self.branch(surround)), offset)

    def forward_training(self, local: Tensor, surround: Tensor, offset: Tensor) -> TrainingOutput:
        """As `forward`, with the auxiliary head's view of the whole surround (section 3.4) and the host's own heads."""
        features = self._features(local)
        side = local.shape[-1]
        heads = self.host.auxiliary(features) if self.host.auxiliary is not None else []
        host = [(_resize(scores, side), weight) for scores, weight in heads]
        if self.branch is None:
            return TrainingOutput(_resize(self.host.classify(self.host.decode(features)), side), None, host)
        context = self.branch(surround)
        scores = self._scores(features, self._context(context), offset, side)
        auxiliary = _resize(self.auxiliary(context), surround.shape[-1]) if self.auxiliary is not None else None
        return TrainingOutput(scores, auxiliary, host)

    def is_for_training(self, name: str) -> bool:
        """Of a parameter: it belongs to a head that inference has no use for, and is not shipped."""
        own = name.startswith("auxiliary.") and not self.architecture.ensemble
        return own or name.startswith("host.auxiliary.")

    def context_map(self, context: Tensor) -> Tensor:
        """F' (B,C,h,w) -> what is laid over the tile: W_A F', with the auxiliary scores behind it for an ensemble."""
        found = self._context(context)
        if self.architecture.ensemble:
            assert self.auxiliary is not None
            found = torch.cat([found, self.auxiliary(context)], dim=1)
        return found

    def fuse(self, local: Tensor, context: Tensor, offset: Tensor) -> Tensor:
        """local: (B,3,t,t); context: a context map around it; offset: (B,2) px of the tile in the map's picture."""
        side = local.shape[-1]
        if not self.architecture.ensemble:
            return self._scores(self._features(local), context, offset, side)
        own, auxiliary = context[:, : -self.architecture.classes], context[:, -self.architecture.classes :]
        scores = self._scores(self._features(local), own, offset, side)
        return (scores + roi_align(auxiliary, offset, side, STRIDE, side)) / 2

    def fuse_literal(self, decoded: Tensor, context: Tensor, offset: Tensor, tile_px: int) -> Tensor:
        """conv1x1(cat(D, RoIAlign(F'))), from F' itself"""
        assert self.context is not None
        aligned = roi_align(context, offset, tile_px, STRIDE, decoded.shape[-1])
        host = self.host.classifier
        weight = torch.cat([host.weight, self.context.weight], dim=1)  # (K, C_D + C, 1, 1)
        return _resize(F.conv2d(torch.cat([decoded, aligned], dim=1), weight, host.bias), tile_px)

    def _context(self, context: Tensor) -> Tensor:
        if self.context is None:  # early concatenation takes F' as it is
            return context
        found: Tensor = self.context(context)
        surround = cast(Surround, self.architecture.surround)
        if (surround.fusion, surround.join) == ("late", "add"):
            found = F.conv2d(found, self.host.classifier.weight)  # W_D M F'
        return found

    def _scores(self, features: list[Tensor], context: Tensor, offset: Tensor, side: int) -> Tensor:
        surround = cast(Surround, self.architecture.surround)
        if surround.fusion == "late":
            scores = self.host.classify(self.host.decode(features))  # W_D D + b + RoIAlign(W_A F')
            return _resize(scores + self._lay(context, offset, side, scores.shape[-1]), side)
        deepest = features[-1]
        laid = self._lay(context, offset, side, deepest.shape[-1])
        joined = torch.cat([deepest, laid], dim=1) if surround.join == "concat" else deepest + laid
        return _resize(self.host.classify(self.host.decode([*features[:-1], joined])), side)

    def _lay(self, context: Tensor, offset: Tensor, side: int, size: int) -> Tensor:
        """The part of the map that lies over the tile; unaligned (Table 2, B): all of it, squeezed onto the tile."""
        if not cast(Surround, self.architecture.surround).align:
            return _resize(context, size)
        return roi_align(context, offset, side, STRIDE, size)

    def _features(self, local: Tensor) -> list[Tensor]:
        scale = self.architecture.host_scale
        if scale > 1:
            local = F.avg_pool2d(local, scale)
        return self.host.features(local)

    def _decode(self, local: Tensor) -> Tensor:
        return self.host.decode(self._features(local))


def check(architecture: Architecture) -> None:
    """Raises ValueError for a combination that means nothing, with what would."""
    surround = architecture.surround
    if architecture.ensemble and not (surround and surround.auxiliary and surround.align):
        raise ValueError("an ensemble needs a surround with auxiliary = true and align = true")
    if surround is None:
        return
    cells = architecture.surround_px / STRIDE
    if surround.mixing in ("sci", "sci_conv", "windows") and cells % surround.window:
        raise ValueError(
            f"a surround of {architecture.surround_px} px has {cells:g} cells of {STRIDE} px a side:"
            f" expected a multiple of the window, {surround.window}"
        )


def check_host(host: Host, architecture: Architecture) -> None:
    """Raises ValueError for a host that is no host of this architecture."""
    if host.classifier.out_channels != architecture.classes:
        raise ValueError(f"the host classifies {host.classifier.out_channels} classes, expected {architecture.classes}")
    if architecture.surround and architecture.surround.fusion != "late":
        raise ValueError(
            "a host that is built already takes its context late: expected fusion = 'late',"
            f" got {architecture.surround.fusion!r}"
        )


def context_channels(surround: Surround, host: Host, classes: int) -> int:
    """Outputs of the 1x1 on F': K (late concat), the channels of what it is added to, 0 for none (early concat)."""
    if surround.fusion == "late":
        return classes if surround.join == "concat" else host.channels
    return 0 if surround.join == "concat" else host.feature_channels


def auxiliary_head(channels: int, classes: int) -> nn.Sequential:
    """3x3 to half the channels, 1x1 to classes (mmsegmentation's FCNHead). Training, and an ensemble's inference."""
    return nn.Sequential(*conv_norm_relu(channels, channels // 2, 3), nn.Conv2d(channels // 2, classes, 1))


def _resize(scores: Tensor, side: int) -> Tensor:
    if scores.shape[-1] == side:
        return scores
    return F.interpolate(scores, size=(side, side), mode="bilinear", align_corners=False)
