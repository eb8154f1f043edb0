"""Every host alike: its size, its shapes, that it trains, and room for what a caller joins to its last map."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from model.hosts import HOSTS, build_host, load_backbone
from model.hosts.light import dilate_strides
from model.hosts.network import HostNetwork

CLASSES = 7
# millions of parameters without auxiliary heads, with them, and GMAC at 512: to the digits of the table they come from
SIZES = {
    "fcn_r50": ("47.13", "49.49", "197.6"),
    "deeplabv3plus_r50": ("41.22", "43.58", "176.1"),
    "hrnet_w18": ("9.64", "9.64", "18.4"),
    "segformer_b0": ("3.72", "3.72", "7.8"),
    "stdc1": ("8.27", "8.42", "8.4"),
    "stdc2": ("12.30", "12.45", "11.7"),
}
# channels of D and its stride
DECODED = {
    "fcn_r50": (512, 8),
    "deeplabv3plus_r50": (512, 4),
    "hrnet_w18": (270, 4),
    "segformer_b0": (256, 4),
    "stdc1": (256, 8),
    "stdc2": (256, 8),
    "mobilenet_v2": (16, 1),
    "mobilenet_v2_deeplabv3plus": (256, 4),
    "mobilenet_v2_lraspp": (160, 8),
    "efficientnet_lite0_deeplabv3plus": (256, 4),
    "efficientnet_lite0_lraspp": (168, 8),
}
AUXILIARY = {"fcn_r50": [0.4], "deeplabv3plus_r50": [0.4], "stdc1": [1.0, 1.0], "stdc2": [1.0, 1.0]}


def meta_host(name: str, extra_channels: int = 0) -> HostNetwork:
    with torch.device("meta"):
        return build_host(name, CLASSES, extra_channels).eval()


def millions(module: torch.nn.Module | None) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6 if module else 0.0


@pytest.mark.parametrize("name", SIZES)
def test_a_host_has_the_parameters_and_the_cost_of_the_network_it_is_named_after(name: str) -> None:
    host = meta_host(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        host(torch.empty(1, 3, 512, 512, device="meta"))
    gmac = counter.get_total_flops() / 2e9
    whole = millions(host)
    assert (f"{whole - millions(host.auxiliary):.2f}", f"{whole:.2f}", f"{gmac:.1f}") == SIZES[name]


@pytest.mark.parametrize("name", HOSTS)
def test_the_decoded_map_has_the_channels_and_the_stride_that_the_host_declares(name: str) -> None:
    host, (channels, stride) = meta_host(name), DECODED[name]
    features = host.features(torch.empty(2, 3, 160, 96, device="meta"))
    decoded = host.decode(features)
    assert decoded.shape == (2, channels, 160 // stride, 96 // stride)
    assert host.channels == host.classifier.in_channels == channels
    assert host.feature_channels == features[-1].shape[1]
    assert host.classify(decoded).shape == (2, CLASSES, *decoded.shape[-2:])


@pytest.mark.parametrize("name", HOSTS)
def test_a_last_map_with_more_channels_is_decoded_by_a_host_built_for_it(name: str) -> None:
    host = meta_host(name, extra_channels=5)
    features = host.features(torch.empty(2, 3, 64, 64, device="meta"))
    joined = torch.nn.functional.pad(features[-1], (0, 0, 0, 0, 0, 5))
    decoded = host.decode([*features[:-1], joined])
    assert decoded.shape[1] == host.channels
    with pytest.raises(RuntimeError, match="channel"):
        host.decode(features)


@pytest.mark.parametrize("name", HOSTS)
def test_auxiliary_heads_give_class_scores_with_the_weight_of_their_loss(name: str) -> None:
    host = meta_host(name)
    features = host.features(torch.empty(2, 3, 64, 64, device="meta"))
    scores = host.auxiliary(features) if host.auxiliary else []
    assert [weight for _, weight in scores] == AUXILIARY.get(name, [])
    assert all(s.shape[:2] == (2, CLASSES) for s, _ in scores)


@pytest.mark.parametrize("name", HOSTS)
def test_one_step_reaches_every_weight(name: str) -> None:
    torch.manual_seed(0)
    host = build_host(name, 3).train()
    features = host.features(torch.randn(4, 3, 32, 32))
    loss = host.classify(host.decode(features)).square().sum()
    for scores, weight in host.auxiliary(features) if host.auxiliary else []:
        loss = loss + weight * scores.square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert [key for key, p in host.named_parameters() if p.grad is None] == []
    assert all(bool(torch.isfinite(p.grad).all()) for p in host.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", HOSTS)
def test_one_picture_scores_alike_alone_and_in_a_batch(name: str) -> None:
    torch.manual_seed(0)
    host = build_host(name, 3).eval()
    x = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        together, alone = host(x), host(x[:1])
    assert (together[:1] - alone).abs().max() <= 1e-4 * together.abs().max()


# of features(), finest first but for stdc, whose context path comes back to stride 8
STRIDES = {
    "fcn_r50": [4, 8, 8, 8],
    "deeplabv3plus_r50": [4, 8, 8, 8],
    "hrnet_w18": [4, 8, 16, 32],
    "segformer_b0": [4, 8, 16, 32],
    "stdc1": [8, 16, 8, 8],
    "stdc2": [8, 16, 8, 8],
    "mobilenet_v2": [2, 4, 8, 16, 32],
    "mobilenet_v2_deeplabv3plus": [2, 4, 8, 16, 16],
    "mobilenet_v2_lraspp": [2, 4, 8, 16, 16],
    "efficientnet_lite0_deeplabv3plus": [2, 4, 8, 16, 16],
    "efficientnet_lite0_lraspp": [2, 4, 8, 16, 16],
}


@pytest.mark.parametrize("name", HOSTS)
def test_the_backbones_maps_have_their_strides(name: str) -> None:
    features = meta_host(name).features(torch.empty(1, 3, 64, 64, device="meta"))
    assert [64 // x.shape[-1] for x in features] == STRIDES[name]


def test_a_stride_too_many_becomes_a_dilation_of_what_follows() -> None:
    assert dilate_strides([1, 2, 2, 2, 1, 2, 1, 1]) == [(1, 1), (2, 1), (2, 1), (2, 1), (1, 1), (1, 1), (1, 2), (1, 2)]
    assert dilate_strides([2, 2, 1, 2, 1], last=4) == [(2, 1), (1, 1), (1, 2), (1, 2), (1, 4)]


def test_the_dilated_stages_of_resnet_begin_with_half_their_dilation() -> None:
    backbone = meta_host("fcn_r50").backbone
    dilations = {
        i: [conv.dilation[0] for conv in backbone.get_submodule(f"layer{i}").modules() if is_3x3(conv)]
        for i in (2, 3, 4)
    }
    assert dilations == {2: [1, 1, 1, 1], 3: [1, 2, 2, 2, 2, 2], 4: [2, 4, 4]}


def is_3x3(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3)


def test_dropout_is_part_of_decoding_and_of_training_alone() -> None:
    torch.manual_seed(0)
    host = build_host("segformer_b0", 3).eval()
    features = [torch.randn(2, c, 8 // 2**i, 8 // 2**i) for i, c in enumerate((32, 64, 160, 256))]
    whole = host.decode(features)
    host.dropout.train()
    thinned = host.decode(features)
    dropped = (thinned == 0).all((2, 3)) & (whole != 0).any((2, 3))
    assert 0.05 < dropped.float().mean() < 0.15
    assert torch.allclose(thinned[~dropped], whole[~dropped] / 0.9)


def test_an_unknown_host_is_refused_with_those_there_are(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"unknown host 'vgg': expected one of \['deeplabv3plus_r50', "):
        build_host("vgg", 3)
    with pytest.raises(ValueError, match="unknown host 'vgg'"):
        load_backbone(build_host("stdc1", 3), "vgg", tmp_path / "x.pth")
