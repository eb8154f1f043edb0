"""SegFormer MiT-B0 (Xie et al., NeurIPS 2021): four stages of attention over overlapping patches, a decoder of 1x1s.

Attention at full resolution against keys and values that a strided convolution has made fewer (Eq. 2), and a depthwise
3x3 inside each MLP in place of a position code (Eq. 3). Tokens are (B, N, C), N = h w, row by row.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.hosts.checkpoint import State, fill, read_checkpoint
from model.hosts.network import HostNetwork, resize
from model.parts.conv import conv_norm_relu

_WIDTHS = (32, 64, 160, 256)
_HEADS = (1, 2, 5, 8)
_REDUCTIONS = (8, 4, 2, 1)
_DEPTH = 2
_DROP_PATH = 0.1  # of the last block; rises linearly from 0
_INNER = 256
_EPS = 1e-6


def build_host(classes: int, extra_channels: int = 0) -> HostNetwork:
    """D (B, 256, h/4, w/4)"""
    decoder = MlpDecoder((*_WIDTHS[:-1], _WIDTHS[-1] + extra_channels), _INNER)
    return HostNetwork(MixTransformer(), decoder, nn.Conv2d(_INNER, classes, 1), _WIDTHS[-1], dropout=0.1)


class MixTransformer(nn.Module):
    """(B, 3, h, w) -> 32, 64, 160, 256 channels at strides 4, 8, 16, 32."""

    def __init__(self) -> None:
        super().__init__()
        drops = torch.linspace(0, _DROP_PATH, _DEPTH * len(_WIDTHS), device="cpu").tolist()
        self.stages = nn.ModuleList(
            Stage(inputs, width, heads, reduction, first=i == 0, drops=drops[_DEPTH * i : _DEPTH * (i + 1)])
            for i, (inputs, width, heads, reduction) in enumerate(
                zip((3, *_WIDTHS), _WIDTHS, _HEADS, _REDUCTIONS, strict=False)
            )
        )
        self.apply(_initialise)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Stage(nn.Module):
    """Overlapping patches of a map become tokens, pass the blocks, and become a map again."""

    def __init__(self, inputs: int, width: int, heads: int, reduction: int, *, first: bool, drops: list[float]) -> None:
        super().__init__()
        kernel, stride = (7, 4) if first else (3, 2)
        self.embed = nn.Conv2d(inputs, width, kernel, stride, kernel // 2)
        self.embed_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, heads, reduction, drop) for drop in drops)
        self.norm = nn.LayerNorm(width, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        shape = x.shape[-2:]
        tokens = self.embed_norm(_to_tokens(x))
        for block in self.blocks:
            tokens = block(tokens, shape)
        return _to_map(self.norm(tokens), shape)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); in training whole samples skip either (stochastic depth)."""

    def __init__(self, width: int, heads: int, reduction: int, drop: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=_EPS), nn.LayerNorm(width, eps=_EPS)
        self.attn = ReducedAttention(width, heads, reduction)
        self.mlp = MixMlp(width, 4 * width)
        self.drop = drop

    def forward(self, x: Tensor, shape: torch.Size) -> Tensor:
        x = x + self._skip(self.attn(self.norm1(x), shape))
        return x + self._skip(self.mlp(self.norm2(x), shape))

    def _skip(self, x: Tensor) -> Tensor:
        if not self.training or self.drop == 0:
            return x
        kept = torch.rand(x.shape[0], 1, 1, device=x.device) >= self.drop
        return x * kept / (1 - self.drop)


class ReducedAttention(nn.Module):
    """Multi-head attention whose keys and values come from a map `reduction` times smaller on each side."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads, self.reduction = heads, reduction
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, shape: torch.Size) -> Tensor:
        fewer = self.norm(_to_tokens(self.sr(_to_map(x, shape)))) if self.reduction > 1 else x
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, c)
        k, v = self.kv(fewer).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N', c)
        out = F.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.proj(out.transpose(1, 2).flatten(2)))


class MixMlp(nn.Module):
    """Linear, depthwise 3x3, GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)

    def forward(self, x: Tensor, shape: torch.Size) -> Tensor:
        x = _to_tokens(self.dwconv(_to_map(self.fc1(x), shape)))
        return cast(Tensor, self.fc2(F.gelu(x)))


class MlpDecoder(nn.Module):
    """Each map through a linear layer to one width, all at stride 4, joined by a 1x1 (Eq. 4)."""

    def __init__(self, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.linear = nn.ModuleList(nn.Conv2d(width, outputs, 1) for width in widths)
        self.fuse = conv_norm_relu(len(widths) * outputs, outputs)

    def forward(self, features: list[Tensor]) -> Tensor:
        maps = [linear(x) for linear, x in zip(self.linear, features, strict=True)]
        return cast(Tensor, self.fuse(torch.cat([maps[0], *(resize(x, maps[0]) for x in maps[1:])], dim=1)))


def _to_tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def _to_map(tokens: Tensor, shape: torch.Size) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, tuple(shape))  # type: ignore[no-any-return, no-untyped-call]


def _initialise(module: nn.Module) -> None:
    """Linear layers from N(0, 0.02), as transformers are; without it training from scratch starts slowly."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def load_backbone(backbone: nn.Module, checkpoint: Path) -> None:
    """The authors' `mit_b0.pth` (patch_embed1.proj, block1.0.attn.q) or the `nvidia/mit-b0` file of transformers."""
    state = read_checkpoint(checkpoint)
    state = _from_transformers(state) if any("patch_embeddings.0." in key for key in state) else state
    fill(backbone, state, checkpoint, "an ImageNet MiT-B0", _public_name)


def _public_name(key: str) -> str:
    """stages.0.blocks.1.attn.q.weight -> block1.1.attn.q.weight"""
    _, stage, rest = key.split(".", 2)
    n = int(stage) + 1
    for ours, public in (
        (r"^embed\.", f"patch_embed{n}.proj."),
        (r"^embed_norm\.", f"patch_embed{n}.norm."),
        (r"^norm\.", f"norm{n}."),
        (r"^blocks\.", f"block{n}."),
        (r"\.dwconv\.", ".dwconv.dwconv."),
    ):
        rest = re.sub(ours, public, rest)
    return rest


_TRANSFORMERS = (
    (r"^(segformer\.)?encoder\.", ""),
    (r"^patch_embeddings\.(\d)\.proj", r"patch_embed\1.proj"),
    (r"^patch_embeddings\.(\d)\.layer_norm", r"patch_embed\1.norm"),
    (r"^block\.(\d)\.", r"block\1."),
    (r"^layer_norm\.(\d)\.", r"norm\1."),
    (r"\.layer_norm_(\d)\.", r".norm\1."),
    (r"\.attention\.self\.layer_norm\.", ".attn.norm."),
    (r"\.attention\.self\.query\.", ".attn.q."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.mlp\.dense(\d)\.", r".mlp.fc\1."),
)


def _from_transformers(state: State) -> State:
    """Their names to the authors': stages count from 0 there, and keys and values are two matrices."""
    named: State = {}
    for key, value in state.items():
        for pattern, authors in _TRANSFORMERS:
            key = re.sub(pattern, authors, key)
        named[re.sub(r"^(patch_embed|block|norm)(\d)", lambda m: f"{m[1]}{int(m[2]) + 1}", key)] = value
    for key in [key for key in named if ".attn.key." in key]:
        partner = key.replace(".key.", ".value.")
        if partner in named:
            named[key.replace(".key.", ".kv.")] = torch.cat([named.pop(key), named.pop(partner)])
    return named
