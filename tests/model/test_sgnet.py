"""The assembly: fusion, context, gradients, and the host alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from model.losses import LossWeights, total_loss
from model.recipe import find_recipe, read_recipe
from model.sgnet import Architecture, SGNet, Surround

SMALL = Architecture("mobilenet_v2", 3, 64, Surround(alpha=2, width=0.25, blocks=1))


@pytest.fixture
def network() -> SGNet:
    torch.manual_seed(0)
    return SGNet(SMALL)


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    local, surround = torch.randn(2, 3, 64, 64, dtype=dtype), torch.randn(2, 3, 128, 128, dtype=dtype)
    return local, surround, torch.tensor([[0, 64], [13, 37]])


def test_the_split_classifier_equals_the_concatenation_of_the_paper(network: SGNet) -> None:
    network = network.double().eval()
    local, surround, offset = inputs(torch.float64)
    assert network.branch is not None
    decoded, context = network.host.decode(network.host.features(local)), network.branch(surround)
    literal = network.fuse_literal(decoded, context, offset.double(), 64)
    assert (network(local, surround, offset.double()) - literal).abs().max() < 1e-12


def test_scores_have_the_pixels_of_the_local_patch(network: SGNet) -> None:
    assert network(*inputs()).shape == (2, 3, 64, 64)


def test_training_and_inference_give_the_same_local_scores(network: SGNet) -> None:
    network = network.eval()
    output = network.forward_training(*inputs())
    assert torch.equal(output.local, network(*inputs()))
    assert output.surround is not None
    assert output.surround.shape == (2, 3, 128, 128)


def test_an_ensemble_is_the_mean_of_what_both_branches_say_of_the_tile() -> None:
    torch.manual_seed(0)
    network = SGNet(replace(SMALL, ensemble=True)).double().eval()
    local, surround, offset = inputs(torch.float64)
    output = network.forward_training(local, surround, offset.double())
    assert output.surround is not None
    cut = [s[:, y : y + 64, x : x + 64] for s, (y, x) in zip(output.surround, offset.tolist(), strict=True)]
    expected = (output.local + torch.stack(cut)) / 2
    assert (network(local, surround, offset.double()) - expected).abs().max() < 1e-12


def test_with_alpha_1_the_tile_is_its_own_surround() -> None:
    network = SGNet(replace(SMALL, surround=Surround(alpha=1, width=0.25, blocks=1, window=4))).eval()
    local, origin = inputs()[0], torch.zeros(2, 2, dtype=torch.int32)
    assert torch.equal(network(local), network(local, local, origin))


def test_a_host_at_a_quarter_of_the_size_sees_means_of_4_x_4_pixels() -> None:
    network = SGNet(Architecture("mobilenet_v2", 3, 128, host_scale=4)).eval()
    local = torch.randn(1, 3, 128, 128)
    blocks = local.reshape(1, 3, 32, 4, 32, 4).mean(dim=(3, 5))
    scores = network.host.classify(network.host.decode(network.host.features(blocks)))
    expected = F.interpolate(scores, size=(128, 128), mode="bilinear")
    assert (network(local) - expected).abs().max() < 1e-5


def test_the_surround_changes_the_scores_and_so_does_where_the_patch_lies_in_it(network: SGNet) -> None:
    network = network.eval()
    local, surround, offset = inputs()
    scores = network(local, surround, offset)
    assert not torch.equal(scores, network(local, surround + 1, offset))
    assert not torch.equal(scores, network(local, surround, offset + 1))


def test_one_step_moves_every_weight_of_the_surrounding_branch(network: SGNet) -> None:
    local, surround, offset = inputs()
    labels, around = torch.randint(0, 3, (2, 64, 64)), torch.randint(0, 3, (2, 128, 128))
    output = network.forward_training(local, surround, offset)
    total_loss(output, labels, around, offset, LossWeights())["total"].backward()  # type: ignore[no-untyped-call]
    assert network.branch is not None
    still = [name for name, p in network.branch.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert still == []


def test_the_local_loss_alone_reaches_trunk_and_attention(network: SGNet) -> None:
    network(*inputs()).square().mean().backward()
    assert network.branch is not None
    grads = {name: p.grad for name, p in network.branch.named_parameters()}
    for name in (
        "trunk.layers.0.0.weight",
        "blocks.0.window_attention.qkv.weight",
        "blocks.0.token_attention.qkv.weight",
    ):
        grad = grads[name]
        assert grad is not None
        assert bool(grad.any())


def test_without_a_surround_it_is_the_host() -> None:
    alone = SGNet(Architecture("mobilenet_v2", 3, 64)).eval()
    local = torch.randn(1, 3, 64, 64)
    assert torch.equal(alone(local), alone.host.classify(alone.host.decode(alone.host.features(local))))
    assert alone.forward_training(local, local, torch.zeros(1, 2)).surround is None


def test_an_unknown_host_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown host 'vgg'.*mobilenet_v2"):
        SGNet(Architecture("vgg", 3, 64))


def test_the_shipped_size_costs_what_its_recipe_says() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    architecture = read_recipe(find_recipe("earth")).architecture(3)
    with torch.device("meta"):
        network = SGNet(architecture).eval()
        pixels = [torch.empty(1, 3, side, side) for side in (512, 1024)]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(*pixels, torch.empty(1, 2, dtype=torch.int32))
    assert counter.get_total_flops() / 2e9 == pytest.approx(5.0, abs=0.05)
