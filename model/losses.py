"""The loss of training (SGNet Eqs. 6 and 7).

    L = CE(P_local, y_local) + 0.4 CE(P_global, y_surround) + 0.1 |P'_global - P_local|_1                    (Eq. 7)

P'_global is the auxiliary prediction of the surround, cut at the local patch. The paper leaves the L1's space open:
by default softmax probabilities, summed over classes, mean over pixels, no gradient stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from model.data.pictures import IGNORE
from model.sgnet import TrainingOutput


@dataclass(frozen=True, slots=True)
class LossWeights:
    local: float = 1.0
    surround: float = 0.4
    consistency: float = 0.1
    host: float = 1.0  # of the host's own auxiliary heads, times the weight that each brings (0.4 in mmsegmentation)
    consistency_of: Literal["probabilities", "scores"] = "probabilities"  # the paper leaves Eq. 6's space open
    consistency_over_classes: Literal["sum", "mean"] = "sum"
    classes: tuple[float, ...] | None = None  # of the cross-entropies


def total_loss(
    output: TrainingOutput, local_labels: Tensor, surround_labels: Tensor, offset: Tensor, weights: LossWeights
) -> dict[str, Tensor]:
    """Labels: (B,t,t) and (B,S,S) int64; offset: (B,2) px. The parts by name, and their weighted sum as "total"."""
    per_class = None
    if weights.classes is not None:
        per_class = torch.tensor(weights.classes, device=output.local.device, dtype=output.local.dtype)
    parts = {"local": cross_entropy(output.local, local_labels, per_class)}
    total = weights.local * parts["local"]
    if output.surround is not None:
        parts["surround"] = cross_entropy(output.surround, surround_labels, per_class)
        parts["consistency"] = consistency(output.local, output.surround, offset, weights)
        total = total + weights.surround * parts["surround"] + weights.consistency * parts["consistency"]
    if output.host:
        heads = [w * cross_entropy(scores, local_labels, per_class) for scores, w in output.host]
        parts["host"] = torch.stack(heads).sum()
        total = total + weights.host * parts["host"]
    return {"total": total, **parts}


def cross_entropy(scores: Tensor, labels: Tensor, per_class: Tensor | None) -> Tensor:
    """Mean over valid pixels (mmsegmentation divides by all). All ignored: 0."""
    if not bool((labels != IGNORE).any()):
        return scores.sum() * 0
    return F.cross_entropy(scores, labels, weight=per_class, ignore_index=IGNORE)


def consistency(local: Tensor, surround: Tensor, offset: Tensor, weights: LossWeights) -> Tensor:
    """Eq. 6: |softmax(P'_global) - softmax(P_local)|, 0 to 2 (with the default knobs).

    Every pixel of the patch counts, without asking its label: also those beyond a picture smaller than the patch.
    """
    side = local.shape[-1]
    cut = torch.stack([s[:, y : y + side, x : x + side] for s, (y, x) in zip(surround, offset.tolist(), strict=True)])
    if weights.consistency_of == "probabilities":
        cut, local = cut.softmax(dim=1), local.softmax(dim=1)
    apart = (cut - local).abs()
    return (apart.sum(dim=1) if weights.consistency_over_classes == "sum" else apart.mean(dim=1)).mean()
