"""Every switch of the network builds, learns in all its parts, and exports; every arm of the ablations does."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model import hosts
from model.deployed import INPUTS, Deployed
from model.experiments import PLANS, Arm, read_plan
from model.export import write_graph
from model.hosts.network import HostNetwork
from model.losses import LossWeights, total_loss
from model.normalise import Normalise
from model.parts.conv import conv_norm_relu
from model.sgnet import Architecture, SGNet, Surround

CLASSES = 3
ARMS = {arm.name: arm for arm in reversed(read_plan(PLANS / "ablations.toml"))}
SGNET = ARMS["sgnet"].recipe.network.surround

# each cell of the paper's tables: our arm, and what it changes in SGNet's branch (None: there is no branch)
PAPER: dict[str, dict[str, object] | None] = {
    "t2-host": None,
    "t2-unaligned": {"mixing": "none", "align": False, "auxiliary": False},
    "t2-aligned": {"mixing": "none", "auxiliary": False},
    "t2-sci": {"auxiliary": False},
    "t2-auxiliary": {},  # without the consistency loss
    "sgnet": {},
    "t3-residual": {"mixing": "residual", "blocks": 6},
    "t3-global": {"mixing": "global"},
    "t3-windows": {"mixing": "windows"},
    "t3-convolution": {"mixing": "sci_conv"},
    "t4-early-add": {"fusion": "early", "join": "add"},
    "t4-early-concat": {"fusion": "early"},
    "t4-late-add": {"join": "add"},
    "t5-alpha1": {"alpha": 1},
    "t5-alpha3": {"alpha": 3},
    "t5-alpha4": {"alpha": 4},
    "t6-fast": {"alpha": 1, "blocks": 1},  # with the host at a quarter of the size
    "t8-trivial": {"trunk": "plain", "mixing": "global", "blocks": 4},
}


def shrunk(arm: Arm) -> Architecture:
    """The arm's network on tiles of which the host sees 64 px."""
    return replace(arm.recipe.architecture(CLASSES), tile_px=64 * arm.recipe.network.host_scale)


def draw(architecture: Architecture, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """local, surround and offset, the tile somewhere in its surround."""
    torch.manual_seed(1)
    t, size = architecture.tile_px, architecture.surround_px
    offset = torch.tensor([[(37 * i) % (size - t + 1), (61 * i) % (size - t + 1)] for i in range(batch)])
    return torch.randn(batch, 3, t, t), torch.randn(batch, 3, size, size), offset


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_of_the_ablations_learns_in_all_its_parts(name: str) -> None:
    architecture = shrunk(ARMS[name])
    torch.manual_seed(0)
    network = SGNet(architecture)
    local, surround, offset = draw(architecture)
    t, size = architecture.tile_px, architecture.surround_px
    output = network.forward_training(local, surround, offset)
    assert output.local.shape == (2, CLASSES, t, t)
    assert (output.surround is None) == (architecture.surround is None or not architecture.surround.auxiliary)
    labels, around = torch.randint(0, CLASSES, (2, t, t)), torch.randint(0, CLASSES, (2, size, size))
    total_loss(output, labels, around, offset, LossWeights())["total"].backward()  # type: ignore[no-untyped-call]
    still = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert still == []
    with torch.inference_mode():
        assert network.eval()(local, surround, offset).shape == (2, CLASSES, t, t)


def changed(surround: Surround) -> dict[str, object]:
    """What an arm's branch has otherwise than SGNet's, of the knobs that mean something to it."""
    meaningless = {"none": ("blocks", "window"), "residual": ("window",), "global": ("window",)}
    told = {f.name: getattr(surround, f.name) for f in fields(surround)}
    return {
        name: value
        for name, value in told.items()
        if value != getattr(SGNET, name) and name not in meaningless.get(surround.mixing, ())
    }


@pytest.mark.parametrize("name", PAPER)
def test_an_arm_of_the_papers_tables_changes_what_the_table_says_and_nothing_else(name: str) -> None:
    recipe, ours = ARMS[name].recipe, ARMS["sgnet"].recipe
    surround = recipe.network.surround
    assert (None if surround is None else changed(surround)) == PAPER[name]
    assert (recipe.crops, recipe.schedule, recipe.dataset) == (ours.crops, ours.schedule, ours.dataset)
    assert recipe.network.host_scale == (4 if name == "t6-fast" else 1)
    assert recipe.loss.consistency == (0.0 if name == "t2-auxiliary" else 0.1)


class Backbone(nn.Module):
    """Two maps, at strides 4 and 8: a host so small that an export is the branch's alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = conv_norm_relu(3, 8, 3, stride=4), conv_norm_relu(8, 16, 3, stride=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.fine(x)
        return [fine, self.coarse(fine)]


class Decoder(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv = conv_norm_relu(inputs, 16, 3)

    def forward(self, features: list[Tensor]) -> Tensor:
        return cast(Tensor, self.conv(features[-1]))


def build_small(classes: int, extra_channels: int = 0) -> HostNetwork:
    return HostNetwork(Backbone(), Decoder(16 + extra_channels), nn.Conv2d(16, classes, 1), 16)


SMALL = Surround(width=0.25, blocks=1, window=2)
# an export takes seconds, so several switches that do not touch each other share one
EXPORTS = {
    "sci, region, Eq. 5 as printed, norm on tokens, alpha 3": Architecture(
        "small", CLASSES, 32, replace(SMALL, alpha=3, reach="region", span=2, ffn_prenorm=False, token_norm=True)
    ),
    "sci_conv, neighbourhood, early concat, projection, no auxiliary": Architecture(
        "small",
        CLASSES,
        64,
        replace(SMALL, mixing="sci_conv", reach="neighbourhood", span=1, fusion="early", channels=64, auxiliary=False),
    ),
    "windows, late add, the fast version": Architecture(
        "small", CLASSES, 128, replace(SMALL, alpha=1, mixing="windows", join="add"), host_scale=4
    ),
    "global, plain trunk, early add": Architecture(
        "small", CLASSES, 32, replace(SMALL, trunk="plain", mixing="global", fusion="early", join="add")
    ),
    "residual, ensemble": Architecture("small", CLASSES, 32, replace(SMALL, mixing="residual"), ensemble=True),
    "none, unaligned, alpha 4": Architecture("small", CLASSES, 32, replace(SMALL, alpha=4, mixing="none", align=False)),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_graph_gives_the_scores_of_torch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hosts.HOSTS, "small", build_small)
    torch.manual_seed(0)
    network = in_its_range(SGNet(EXPORTS[name]))
    scores, moved = run_onnx(network, tmp_path / "model.onnx")
    expected, expected_moved = run_torch(network)
    assert np.abs(scores - expected).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(moved - expected_moved).max() < 1e-4 * np.abs(expected).max()
    assert np.abs(expected - expected_moved).max() > 0.01 * np.abs(expected).max()  # the branch is in it


def test_every_value_of_every_switch_is_among_the_exports() -> None:
    for field, hint in get_type_hints(Surround).items():
        told = {getattr(cast(Surround, a.surround), field) for a in EXPORTS.values()}
        expected = {True, False} if hint is bool else set(get_args(hint))
        if field not in ("reach", "alpha") and expected:
            assert told == expected, field
    assert {cast(Surround, a.surround).alpha for a in EXPORTS.values()} == {1, 2, 3, 4}
    mixed = [cast(Surround, a.surround) for a in EXPORTS.values()]
    assert {s.reach for s in mixed if s.mixing in ("sci", "sci_conv")} == {"region", "neighbourhood"}


def in_its_range(network: SGNet) -> SGNet:
    """Norms that have seen pictures: untrained ones let signals fade with depth, and then nothing shows."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.inference_mode():
        network.forward_training(*draw(network.architecture, batch=4))
    return network.eval()


def inputs_of(architecture: Architecture) -> dict[str, NDArray[Any]]:
    """Three tiles; the graph was made with two."""
    generator = np.random.default_rng(0)
    t, size = architecture.tile_px, architecture.surround_px
    surround = generator.integers(0, 256, (3, 3, size, size), np.uint8)
    y, x = (size - t) // 2, (size - t) // 3
    offset = np.array([(0, 0), (y, x), (size - t, size - t)], np.int32)
    local = np.stack([s[:, y : y + t, x : x + t] for s, (y, x) in zip(surround, offset.tolist(), strict=True)])
    return dict(zip(INPUTS, (local, surround, offset), strict=True))


def change(inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The same tiles in other surroundings; a tile that is its own surround becomes another."""
    surround = np.roll(inputs["surround"], 1, axis=0)
    alone = surround.shape == inputs["local"].shape
    return inputs | {"surround": surround} | ({"local": surround} if alone else {})


def run_onnx(network: SGNet, path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    write_graph(network, path)
    session = onnxruntime.InferenceSession(path)
    names = [item.name for item in session.get_inputs()]
    told = inputs_of(network.architecture)
    first, second = (
        session.run(["scores"], {name: inputs[name] for name in names})[0] for inputs in (told, change(told))
    )
    return first, second


def run_torch(network: SGNet) -> tuple[NDArray[Any], NDArray[Any]]:
    deployed, told = Deployed(network, Normalise()).eval(), inputs_of(network.architecture)
    with torch.inference_mode():
        first, second = (
            deployed(*(torch.from_numpy(inputs[name]) for name in INPUTS))[1].numpy() for inputs in (told, change(told))
        )
    return first, second
