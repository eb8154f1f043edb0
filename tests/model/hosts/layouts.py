"""Random state dicts in the key names and shapes of the public ImageNet checkpoints, written from their layouts.

No name of ours is used here. Batch norms come without `num_batches_tracked`, as many published files do.
"""

from __future__ import annotations

import torch

State = dict[str, torch.Tensor]


def conv_norm(conv: str, norm: str, outputs: int, inputs: int, kernel: int = 1) -> State:
    state = {f"{conv}.weight": torch.randn(outputs, inputs, kernel, kernel)}
    return state | {f"{norm}.{leaf}": torch.rand(outputs) for leaf in ("weight", "bias", "running_mean", "running_var")}


def layer(name: str, *shape: int) -> State:
    return {f"{name}.weight": torch.randn(*shape), f"{name}.bias": torch.randn(shape[0])}


def bottlenecks(prefix: str, count: int, inputs: int, width: int) -> State:
    state: State = {}
    for i in range(count):
        block = f"{prefix}.{i}"
        state |= conv_norm(f"{block}.conv1", f"{block}.bn1", width, inputs)
        state |= conv_norm(f"{block}.conv2", f"{block}.bn2", width, width, 3)
        state |= conv_norm(f"{block}.conv3", f"{block}.bn3", 4 * width, width)
        if i == 0:
            state |= conv_norm(f"{block}.downsample.0", f"{block}.downsample.1", 4 * width, inputs)
        inputs = 4 * width
    return state


def resnet50(stem: tuple[tuple[str, str], ...]) -> State:
    """`stem`: the names of its three convolutions and their norms, which open-mmlab and timm choose differently."""
    state: State = {}
    for (conv, norm), outputs, inputs in zip(stem, (32, 32, 64), (3, 32, 32), strict=True):
        state |= conv_norm(conv, norm, outputs, inputs, 3)
    inputs = 64
    for i, (count, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
        state |= bottlenecks(f"layer{i}", count, inputs, width)
        inputs = 4 * width
    return state


OPENMMLAB_STEM = (("stem.0", "stem.1"), ("stem.3", "stem.4"), ("stem.6", "stem.7"))
TIMM_STEM = (("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1"))


def hrnet_w18() -> State:
    widths = (18, 36, 72, 144)
    state = conv_norm("conv1", "bn1", 64, 3, 3) | conv_norm("conv2", "bn2", 64, 64, 3)
    state |= bottlenecks("layer1", 4, 64, 64)
    state |= conv_norm("transition1.0.0", "transition1.0.1", 18, 256, 3)
    for i, inputs in enumerate((256, 36, 72), 1):
        state |= conv_norm(f"transition{i}.{i}.0.0", f"transition{i}.{i}.0.1", widths[i], inputs, 3)
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        for m in range(modules):
            state |= hrnet_module(f"stage{stage}.{m}", widths[:stage])
    return state


def hrnet_module(prefix: str, widths: tuple[int, ...]) -> State:
    state: State = {}
    for b, width in enumerate(widths):
        for block in (f"{prefix}.branches.{b}.{i}" for i in range(4)):
            state |= conv_norm(f"{block}.conv1", f"{block}.bn1", width, width, 3)
            state |= conv_norm(f"{block}.conv2", f"{block}.bn2", width, width, 3)
    for target, outputs in enumerate(widths):
        for source, inputs in enumerate(widths):
            fuse = f"{prefix}.fuse_layers.{target}.{source}"
            if source > target:
                state |= conv_norm(f"{fuse}.0", f"{fuse}.1", outputs, inputs)
            for step in range(target - source):
                last = step == target - source - 1
                state |= conv_norm(f"{fuse}.{step}.0", f"{fuse}.{step}.1", outputs if last else inputs, inputs, 3)
    return state


def stdc(modules: tuple[int, int, int]) -> State:
    state = conv_norm("features.0.conv", "features.0.bn", 32, 3, 3)
    state |= conv_norm("features.1.conv", "features.1.bn", 64, 32, 3)
    inputs, n = 64, 2
    for count, outputs in zip(modules, (256, 512, 1024), strict=True):
        for i in range(count):
            shapes = ((inputs, 2, 1), (outputs // 2, 4, 3), (outputs // 4, 8, 3), (outputs // 8, 8, 3))
            for c, (c_in, share, kernel) in enumerate(shapes):
                name = f"features.{n}.conv_list.{c}"
                state |= conv_norm(f"{name}.conv", f"{name}.bn", outputs // share, c_in, kernel)
            if i == 0:
                state |= conv_norm(f"features.{n}.avd_layer.0", f"features.{n}.avd_layer.1", outputs // 2, 1, 3)
            inputs, n = outputs, n + 1
    return state


def mit_b0() -> State:
    state: State = {}
    inputs = 3
    for n, (width, reduction) in enumerate(((32, 8), (64, 4), (160, 2), (256, 1)), 1):
        state |= layer(f"patch_embed{n}.proj", width, inputs, *((7, 7) if n == 1 else (3, 3)))
        for name in (f"patch_embed{n}.norm", f"norm{n}"):
            state |= layer(name, width)
        for block in (f"block{n}.0", f"block{n}.1"):
            state |= layer(f"{block}.norm1", width) | layer(f"{block}.norm2", width)
            state |= layer(f"{block}.attn.q", width, width) | layer(f"{block}.attn.kv", 2 * width, width)
            state |= layer(f"{block}.attn.proj", width, width)
            if reduction > 1:
                state |= layer(f"{block}.attn.sr", width, width, reduction, reduction)
                state |= layer(f"{block}.attn.norm", width)
            state |= layer(f"{block}.mlp.fc1", 4 * width, width) | layer(f"{block}.mlp.fc2", width, 4 * width)
            state |= layer(f"{block}.mlp.dwconv.dwconv", 4 * width, 1, 3, 3)
        inputs = width
    return state
