"""Trunk and SCI against the counts and shapes of the papers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.hosts import build_host, load_backbone
from model.imagenet import imagenet_checkpoint
from model.parts.attention import SelfAttention
from model.parts.sci import Sci, from_windows, to_windows
from model.parts.stdc import StdcTrunk


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_the_full_trunk_has_stdc1s_parameters() -> None:
    assert millions(StdcTrunk()) == pytest.approx(1.278, abs=5e-4)


def test_the_trunk_ends_at_stride_16() -> None:
    assert StdcTrunk(0.25)(torch.zeros(1, 3, 128, 256)).shape == (1, 128, 8, 16)


def test_a_trunk_too_thin_to_split_in_eighths_is_refused() -> None:
    with pytest.raises(ValueError, match="eighths"):
        StdcTrunk(0.1)


def test_sci_at_512_channels_has_4_2_million_parameters() -> None:
    assert millions(Sci(512)) == pytest.approx(4.20, abs=0.01)


def test_sci_keeps_the_shape_of_its_map() -> None:
    assert Sci(64)(torch.randn(2, 64, 16, 24)).shape == (2, 64, 16, 24)


def test_windows_and_back_is_the_identity() -> None:
    x = torch.randn(2, 5, 16, 24)
    windows = to_windows(x, 8)
    assert windows.shape == (2 * 6, 64, 5)
    assert torch.equal(windows[1].T.reshape(5, 8, 8), x[0, :, :8, 8:16])
    assert torch.equal(from_windows(windows, 8, 16, 24), x)


def test_a_map_that_does_not_divide_into_windows_is_refused() -> None:
    with pytest.raises(ValueError, match="20 x 16 cells"):
        Sci(32)(torch.zeros(1, 32, 20, 16))


def test_sci_carries_context_from_every_window_to_every_other() -> None:
    torch.manual_seed(0)
    sci, x = Sci(32).eval(), torch.randn(1, 32, 24, 24)
    changed = x.clone()
    changed[..., 20:, 20:] += 1
    moved = (sci(x) - sci(changed)).abs().sum(dim=1)[0]
    assert moved[:8, :8].min() > 0


def test_attention_follows_its_formula() -> None:
    torch.manual_seed(0)
    attention, x = SelfAttention(64, side=2).double(), torch.randn(3, 4, 64, dtype=torch.float64)
    q, k, v = (part.reshape(3, 4, 2, 32).transpose(1, 2) for part in attention.qkv(x).split(64, dim=-1))
    assert attention.bias is not None
    weights = (q @ k.transpose(-1, -2) / 32**0.5 + attention.bias()).softmax(dim=-1)
    expected = attention.out((weights @ v).transpose(1, 2).reshape(3, 4, 64))
    assert torch.allclose(attention(x), expected, atol=1e-12)


def test_relative_bias_depends_on_displacement_alone() -> None:
    bias = SelfAttention(32, side=3).bias
    assert bias is not None
    table = bias()[0].reshape(3, 3, 3, 3)  # from (y, x) to (y, x)
    assert table[0, 0, 1, 1] == table[1, 1, 2, 2]
    assert table[0, 0, 1, 1] != table[1, 1, 0, 0]


def test_the_hosts_decoded_map_has_the_pixels_of_its_input() -> None:
    host = build_host("mobilenet_v2", 3).eval()
    features = host.features(torch.zeros(1, 3, 64, 96))
    assert [f.shape[-1] for f in features] == [48, 24, 12, 6, 3]
    assert host.decode(features).shape == (1, 16, 64, 96)
    assert host.classify(host.decode(features)).shape == (1, 3, 64, 96)


def test_imagenet_weights_load_under_their_own_names() -> None:
    try:
        path = imagenet_checkpoint("mobilenet_v2")
    except FileNotFoundError as exc:
        pytest.skip(str(exc))
    host = build_host("mobilenet_v2", 3)
    load_backbone(host, "mobilenet_v2", path)
    stored = torch.load(path, weights_only=True)
    assert torch.equal(host.backbone.state_dict()["features.17.conv.3.weight"], stored["features.17.conv.3.weight"])


def test_a_checkpoint_of_another_network_is_refused_by_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"resnet.pth is not a torchvision MobileNetV2"):
        load_backbone(build_host("mobilenet_v2", 3), "mobilenet_v2", tmp_path / "resnet.pth")
