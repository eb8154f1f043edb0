"""Models that people already have, as hosts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from model.hosts.adapter import AdaptedHost, find_classifier
from model.losses import LossWeights, total_loss
from model.parts.conv import conv_norm_relu
from model.sgnet import Architecture, SGNet, Surround
from tests.model.hosts.exports import onnx_difference


class SmallUnet(nn.Module):
    """The shape of segmentation_models_pytorch: its segmentation_head is (1x1, up-sampling, activation)."""

    def __init__(self, classes: int, kernel: int = 1, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([conv_norm_relu(3, 8, 3, stride=2), conv_norm_relu(8, 16, 3, stride=2)])
        self.decoder = conv_norm_relu(24, 12, 3)
        self.segmentation_head = nn.Sequential(
            nn.Conv2d(12, classes, kernel, padding=kernel // 2),
            nn.UpsamplingBilinear2d(scale_factor=2),
            activation or nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        fine = self.encoder[0](x)
        coarse = nn.functional.interpolate(self.encoder[1](fine), scale_factor=2.0, mode="nearest")
        scores: Tensor = self.segmentation_head(self.decoder(torch.cat([fine, coarse], dim=1)))
        return scores


class WithDictOutput(nn.Module):
    """The shape of torchvision's: {"out", "aux"}, up-sampled inside, the auxiliary classifier defined last."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = conv_norm_relu(3, 8, 3, stride=2)
        self.classifier = nn.Sequential(conv_norm_relu(8, 8, 3), nn.Conv2d(8, classes, 1))
        self.aux_classifier = nn.Sequential(conv_norm_relu(8, 4, 3), nn.Conv2d(4, classes, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.backbone(x)
        out, aux = (
            nn.functional.interpolate(head(maps), scale_factor=2.0) for head in (self.classifier, self.aux_classifier)
        )
        return {"out": out, "aux": aux}


@pytest.fixture
def unet() -> SmallUnet:
    torch.manual_seed(0)
    return SmallUnet(5).eval()


def test_scores_are_those_of_the_model_before_it_up_sampled_them(unet: SmallUnet) -> None:
    x = torch.randn(2, 3, 64, 96)
    before = unet(x)
    host = AdaptedHost(unet, 5)
    decoded = host.decode(host.features(x))
    assert (host.name, host.channels, host.feature_channels) == ("segmentation_head.0", 12, 12)
    assert decoded.shape == (2, 12, 32, 48)
    scores = nn.UpsamplingBilinear2d(scale_factor=2)(host.classify(decoded))
    assert torch.allclose(scores, before, atol=1e-6)


def test_an_activation_after_the_scores_is_taken_out() -> None:
    host = AdaptedHost(SmallUnet(5, activation=nn.Softmax(dim=1)).eval(), 5)
    assert not torch.allclose(host(torch.randn(1, 3, 64, 64)).sum(1), torch.ones(1, 32, 32))


def test_every_weight_of_an_adapted_model_trains_and_is_listed_once(unet: SmallUnet) -> None:
    count = sum(p.numel() for p in unet.parameters())
    host = AdaptedHost(unet, 5).train()
    assert sum(p.numel() for p in host.parameters()) == count
    host(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, p in host.named_parameters() if p.grad is None] == []


def test_an_adapted_model_exports(unet: SmallUnet, tmp_path: Path) -> None:
    assert onnx_difference(AdaptedHost(unet, 5), 64, tmp_path / "unet.onnx") < 1e-4


def test_a_segformer_of_transformers_becomes_a_host_that_exports(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SegformerConfig(num_labels=4, depths=[1, 1, 1, 1])
    model = transformers.SegformerForSemanticSegmentation(config).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        before = model(x).logits
        host = AdaptedHost(model, 4)
        assert host.name == "decode_head.classifier"
        assert host.decode(host.features(x)).shape == (2, 256, 16, 16)
        assert torch.equal(host(x), before)
    assert onnx_difference(host, 64, tmp_path / "segformer.onnx") < 1e-4


SMALL = Architecture("mine", 5, 64, Surround(width=0.25, blocks=1, window=4))


def test_an_adapted_model_learns_in_all_its_parts_with_context_joined_to_it(unet: SmallUnet) -> None:
    torch.manual_seed(1)
    local, surround, offset = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 128, 128), torch.tensor([[0, 64], [13, 37]])
    host = AdaptedHost(unet, 5)
    network = SGNet(SMALL, host)
    assert network.host is host
    output = network.forward_training(local, surround, offset)
    assert output.local.shape == (2, 5, 64, 64)
    labels, around = torch.randint(0, 5, (2, 64, 64)), torch.randint(0, 5, (2, 128, 128))
    total_loss(output, labels, around, offset, LossWeights())["total"].backward()  # type: ignore[no-untyped-call]
    assert [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


def test_an_adapted_model_and_its_context_are_one_1x1_over_both(unet: SmallUnet) -> None:
    """The paper's order: D and the aligned F' concatenated, the model's own 1x1 widened."""
    torch.manual_seed(1)
    network = SGNet(SMALL, AdaptedHost(unet, 5)).double().eval()
    local, surround = torch.randn(2, 3, 64, 64).double(), torch.randn(2, 3, 128, 128).double()
    offset = torch.tensor([[0, 64], [13, 37]]).double()
    assert network.branch is not None
    decoded = network.host.decode(network.host.features(local))
    assert decoded.shape == (2, 12, 32, 32)
    literal = network.fuse_literal(decoded, network.branch(surround), offset, 64)
    assert (network(local, surround, offset) - literal).abs().max() < 1e-12


@pytest.mark.parametrize("join", ["concat", "add"])
def test_context_joins_an_adapted_model_late_or_not_at_all(unet: SmallUnet, join: Literal["concat", "add"]) -> None:
    host = AdaptedHost(unet, 5)
    early = replace(SMALL, surround=Surround(width=0.25, blocks=1, window=4, fusion="early", join=join))
    with pytest.raises(ValueError, match=r"takes its context late: expected fusion = 'late', got 'early'"):
        SGNet(early, host)
    with pytest.raises(ValueError, match=r"the host classifies 5 classes, expected 3"):
        SGNet(replace(SMALL, classes=3), host)


def test_the_right_1x1_can_be_named_and_the_wrong_one_is_noticed() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 32, 32)
    with pytest.raises(
        ValueError, match=r"without 'aux_classifier.1' the model gives \(1, 5, 32, 32\), expected 4 chan"
    ):
        AdaptedHost(WithDictOutput(5).eval(), 5).features(x)
    model = WithDictOutput(5).eval()
    before = model(x)["out"]
    assert torch.allclose(AdaptedHost(model, 5, "classifier.1")(x), before, atol=1e-6)


def test_a_model_without_such_a_1x1_is_refused_and_left_as_it_was() -> None:
    with pytest.raises(
        ValueError, match=r"SmallUnet has no 1x1 .* 5 outputs: .*'segmentation_head.0', Conv2d\(12, 5, k"
    ):
        find_classifier(SmallUnet(5, kernel=3), 5)
    with pytest.raises(ValueError, match=r"Linear has no 1x1 convolution with 2 outputs: it has no convolution"):
        AdaptedHost(nn.Linear(2, 2), 2)
    model = SmallUnet(5)
    with pytest.raises(ValueError, match=r"'encoder.0.0' is Conv2d.*: expected a 1x1 convolution with 5 outputs"):
        AdaptedHost(model, 5, "encoder.0.0")
    with pytest.raises(ValueError, match="SmallUnet has no module 'head'"):
        AdaptedHost(model, 5, "head")
    assert isinstance(model.segmentation_head[0], nn.Conv2d)
    assert isinstance(model.get_submodule("encoder.0.0"), nn.Conv2d)
