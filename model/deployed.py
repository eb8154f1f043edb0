"""The network as it is shipped: bytes in, labels and scores out, normalisation and argmax inside.

    local (B,3,t,t) uint8, surround (B,3,S,S) uint8, offset (B,2) int32
    -> labels (B,t,t) uint8, scores (B,K,t,t) float32

offset is (y, x) of the local patch inside its surround, px. A network without surround takes `local` alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.normalise import Normalise
from model.sgnet import SGNet

INPUTS = ("local", "surround", "offset")
OUTPUTS = ("labels", "scores")


class Deployed(nn.Module):
    def __init__(self, network: SGNet, normalise: Normalise) -> None:
        super().__init__()
        self.network, self.normalise = network, normalise

    def forward(
        self, local: Tensor, surround: Tensor | None = None, offset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        context = None if surround is None else self.normalise(surround)
        scores = self.network(self.normalise(local), context, offset)
        return scores.argmax(dim=1).to(torch.uint8), scores
