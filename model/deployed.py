"""The network as it is shipped: bytes in, labels and scores out, normalisation and argmax inside.

    local (B,3,t,t) uint8, surround (B,3,S,S) uint8, offset (B,2) int32
    -> labels (B,t,t) uint8, scores (B,K,t,t) float32

offset is (y, x) of the local patch inside its surround, px. A network without surround takes `local` alone.

Where tiles share their context there are two halves:

    picture (1,3,H,W) uint8 -> context (1,C,H/16,W/16) float32
    local (B,3,t,t) uint8, context (B,C,n,n) float32, offset (B,2) int32 of the tile in its part -> labels, scores
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gigamask.manifest import Context
from model.normalise import Normalise
from model.parts.branch import TRUNK_FIELD_PX, Surround
from model.parts.stdc import STRIDE
from model.sgnet import SGNet

INPUTS = ("local", "surround", "offset")
OUTPUTS = ("labels", "scores")
CONTEXT_INPUTS, CONTEXT_OUTPUTS = ("picture",), ("context",)
TILE_INPUTS = ("local", "context", "offset")


class Deployed(nn.Module):
    def __init__(self, network: SGNet, normalise: Normalise) -> None:
        super().__init__()
        self.network, self.normalise = network, normalise

    def forward(
        self, local: Tensor, surround: Tensor | None = None, offset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        context = None if surround is None else self.normalise(surround)
        return _told(self.network(self.normalise(local), context, offset))


class DeployedContext(nn.Module):
    """What is done once for a region."""

    def __init__(self, network: SGNet, normalise: Normalise, mode: str) -> None:
        super().__init__()
        assert network.branch is not None
        self.network, self.normalise, self.trunk_only = network, normalise, mode == "trunk_shared"

    def forward(self, picture: Tensor) -> Tensor:
        branch, pixels = self.network.branch, self.normalise(picture)
        assert branch is not None
        found: Tensor = branch.trunk(pixels) if self.trunk_only else self.network.context_map(branch(pixels))
        return found


class DeployedTile(nn.Module):
    """What is left for each tile."""

    def __init__(self, network: SGNet, normalise: Normalise, mode: str) -> None:
        super().__init__()
        self.network, self.normalise, self.mixes = network, normalise, mode == "trunk_shared"

    def forward(self, local: Tensor, context: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
        branch = self.network.branch
        assert branch is not None
        laid = self.network.context_map(branch.mix(context)) if self.mixes else context
        return _told(self.network.fuse(self.normalise(local), laid, offset))


def context_rule(mode: str, surround: Surround | None) -> Context:
    """The manifest's word on a mode. Raises ValueError where the network cannot do it, and why."""
    if mode == "tile":
        return Context()
    if surround is None:
        raise ValueError(f"context {mode!r} needs a network with a surround")
    if mode == "trunk_shared":
        return Context(mode="trunk_shared", lattice_px=STRIDE, halo_px=TRUNK_FIELD_PX + STRIDE)
    if mode == "neighbourhood":
        if not surround.align:
            raise ValueError("context 'neighbourhood' needs align = true: an unaligned map belongs to one surround")
        return Context(mode="neighbourhood", lattice_px=surround.lattice_px, halo_px=surround.halo_px)
    raise ValueError(f"context is 'tile', 'trunk_shared' or 'neighbourhood', not {mode!r}")


def _told(scores: Tensor) -> tuple[Tensor, Tensor]:
    return scores.argmax(dim=1).to(torch.uint8), scores
