"""The surrounding context branch (SGNet section 3.3) and everything the paper puts in its place.

    surround (B, 3, S, S) -> trunk -> (B, C, S/16, S/16) -> mixing layers -> F' (B, C, S/16, S/16)

| paper | trunk | mixing | blocks |
|---|---|---|---|
| SGNet: W-MSA + GAP (Table 3)      | stdc  | sci         | 4 (ours) |
| W-MSA + Conv                      | stdc  | sci_conv    | 4 |
| W-MSA                             | stdc  | windows     | 4 |
| naive SA                          | stdc  | global      | 4 |
| six residual layers               | stdc  | residual    | 6 |
| Table 2, groups B and C           | stdc  | none        | 0 |
| Table 8, the trivial branch       | plain | global      | 4 |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor, nn

from model.parts.attention import TransformerBlock
from model.parts.conv import conv_norm, conv_norm_relu
from model.parts.sci import Reach, Sci, Tokens
from model.parts.stdc import STRIDE, StdcTrunk

Mixing = Literal["sci", "sci_conv", "windows", "global", "residual", "none"]
_TOKENS: dict[str, Tokens] = {"sci": "mean", "sci_conv": "convolution", "windows": "none"}
TRUNK_FIELD_PX = 160  # a trunk's cell sees 159 px about itself (STDC1 at stride 16), rounded up to whole cells
EDGE_PX = 3 * STRIDE  # cells beside a tile, on the lattice or not, that RoIAlign and an ensemble's 3x3 head read


@dataclass(frozen=True, slots=True)
class Surround:
    """Every knob of the branch and of its fusion. The defaults are the paper's where it speaks, else ours.

    alpha: side of the surround in tiles. width: of every trunk channel count, 1.0 = 512 out. channels: a 1x1 to so
    many before the mixing layers, 0 = none. window: w, in cells of 16 px. reach, span: see parts/sci.py.
    fusion, join: Table 4. align: RoIAlign (Table 2, C); off: the whole map is resized onto the tile (B).
    auxiliary: the head that the surround's own labels train (Table 2, E).
    """

    alpha: int = 2
    trunk: Literal["stdc", "plain"] = "stdc"
    width: float = 1.0
    channels: int = 0
    mixing: Mixing = "sci"
    blocks: int = 4  # N
    window: int = 8  # w
    reach: Reach = "all"
    span: int = 0
    ffn_prenorm: bool = True
    token_norm: bool = False
    fusion: Literal["late", "early"] = "late"
    join: Literal["concat", "add"] = "concat"
    align: bool = True
    auxiliary: bool = True

    @property
    def lattice_px(self) -> int:
        """Pictures come in multiples of this; a shift by it is a shift of the map."""
        return STRIDE * (self.window if self.mixing in _TOKENS else 1)

    @property
    def halo_px(self) -> int:
        """How far a tile's share of F' sees beyond it, where that is bounded: reach "neighbourhood", or no mixing.

        Raises ValueError where it is not: a tile's F' then depends on where its surround ends.
        """
        near = EDGE_PX + TRUNK_FIELD_PX
        if self.mixing == "none" or self.blocks == 0:
            return near
        if self.mixing == "windows":
            return near + self.lattice_px
        if self.mixing in ("sci", "sci_conv") and self.reach == "neighbourhood":
            # the window that a cell lies in, and span windows further in each block
            return near + (self.blocks * self.span + 1) * self.lattice_px
        raise ValueError(f"mixing {self.mixing!r} with reach {self.reach!r} sees the whole surround: no bounded halo")


class SurroundBranch(nn.Module):
    """(B, 3, S, S) -> F' (B, C, S/16, S/16). `trunk` and `mix` are its halves, for those who share the first."""

    def __init__(self, surround: Surround) -> None:
        super().__init__()
        self.trunk = StdcTrunk(surround.width) if surround.trunk == "stdc" else PlainTrunk(surround.width)
        self.channels = surround.channels or self.trunk.channels
        if self.channels != self.trunk.channels:
            self.project = conv_norm_relu(self.trunk.channels, self.channels)
        self.blocks = nn.Sequential(*(mixing_layer(surround, self.channels) for _ in range(_depth(surround))))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.trunk(x))

    def mix(self, x: Tensor) -> Tensor:
        if self.channels != self.trunk.channels:
            x = self.project(x)
        return cast(Tensor, self.blocks(x))


def _depth(surround: Surround) -> int:
    return 0 if surround.mixing == "none" else surround.blocks


def mixing_layer(surround: Surround, channels: int) -> nn.Module:
    if surround.mixing == "residual":
        return ResidualLayer(channels)
    if surround.mixing == "global":
        return TransformerBlock(channels)
    return Sci(
        channels,
        surround.window,
        tokens=_TOKENS[surround.mixing],
        reach=surround.reach,
        span=surround.span,
        ffn_prenorm=surround.ffn_prenorm,
        token_norm=surround.token_norm,
    )


class ResidualLayer(nn.Module):
    """Two 3x3 and a shortcut (ResNet's basic block): Table 3's baseline in place of attention."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_norm_relu(channels, channels, 3)
        self.second = conv_norm(channels, channels, 3)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.second(self.first(x)) + x))


class PlainTrunk(nn.Module):
    """Sixteen plain 3x3 convolutions in four stages of halving size (appendix C; its widths are ours).

    (B, 3, S, S) -> (B, 512 width, S/16, S/16): the same map as the STDC trunk's.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.channels = round(512 * width)
        layers: list[nn.Module] = []
        inputs = 3
        for stage in (32, 64, 128, 256):
            outputs = round(stage * width)
            for i in range(4):
                layers.append(conv_norm_relu(inputs, outputs, 3, stride=2 if i == 0 else 1))
                inputs = outputs
        layers[-1] = conv_norm_relu(inputs, self.channels, 3)
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))
