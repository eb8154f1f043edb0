"""A network and its exported folder are the same function."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch

from gigamask.errors import BadModel
from gigamask.manifest import checked_file, read_manifest
from model.data.crops import CropSampler
from model.export import export_network, measure_parity, sample_pictures
from model.predictors import load_predictor
from model.predictors.torch import load_network
from model.recipe import Recipe
from model.sgnet import SGNet, Surround


@pytest.mark.parametrize("alone", [False, True], ids=["surround", "host"])
def test_an_exported_network_gives_the_labels_of_torch(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler, alone: bool
) -> None:
    recipe = replace(tiny_recipe, network=replace(tiny_recipe.network, surround=None)) if alone else tiny_recipe
    sampler = replace(tiny_sampler, alpha=1) if alone else tiny_sampler
    network = SGNet(recipe.architecture(3))
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "README.md").write_text("the card")
    parity = export_network(network, recipe, sampler, tmp_path / "tiny")

    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    manifest = read_manifest(tmp_path / "tiny")
    assert manifest.alpha == (1 if alone else 2)
    assert manifest.context.mode == "tile"
    assert all(checked_file(tmp_path / "tiny", manifest, role) for role in ("onnx", "safetensors", "test_vector"))
    assert load_network(tmp_path / "tiny", manifest).architecture == network.architecture
    assert (tmp_path / "tiny" / "README.md").read_text() == "the card"
    assert parity == measure_parity(tmp_path / "tiny", manifest, sample_pictures(sampler))
    assert parity.label_agreement > 0.9999
    assert parity.max_score_difference < 1e-3


def test_a_network_that_is_its_own_surround_takes_one_picture(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    """The paper's fast version: alpha 1, a thumbnail for the host."""
    surround = Surround(alpha=1, width=0.25, blocks=1, window=4)
    recipe = replace(tiny_recipe, network=replace(tiny_recipe.network, tile_px=128, surround=surround, host_scale=4))
    sampler = replace(tiny_sampler, tile_px=128, alpha=1)
    parity = export_network(SGNet(recipe.architecture(3)), recipe, sampler, tmp_path / "tiny")
    assert read_manifest(tmp_path / "tiny").alpha == 1
    assert parity.label_agreement > 0.9999


def test_a_graph_that_finds_other_labels_replaces_no_model(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is sure of class 1; the exporter goes wrong, and the graph is sure of class 0."""
    network = SGNet(tiny_recipe.architecture(3))
    network.host.classifier.bias = torch.nn.Parameter(torch.tensor([0.0, 100.0, 0.0]))

    def damage(path: Path) -> None:
        graph = onnx.load(path)
        (bias,) = (i for i in graph.graph.initializer if i.name.endswith("host.classifier.bias"))
        bias.CopyFrom(onnx.numpy_helper.from_array(np.array([100, 0, 0], np.float32), bias.name))
        onnx.save(graph, path)

    monkeypatch.setattr("model.export.forget_sources", damage)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.json").write_text("the old one")
    with pytest.raises(
        BadModel, match=r"tiny\.part: ONNX .* on 0\.0000% of the labels, expected 99\.9% or more; .*tiny"
    ):
        export_network(network, tiny_recipe, tiny_sampler, tmp_path / "tiny")
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["model.json"]
    assert (tmp_path / "tiny" / "model.json").read_text() == "the old one"


@pytest.mark.parametrize("mode", ["trunk_shared", "neighbourhood"])
def test_a_network_whose_tiles_share_their_context_is_exported_in_two_graphs(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler, mode: Literal["trunk_shared", "neighbourhood"]
) -> None:
    surround = Surround(width=0.25, blocks=1, window=2, reach="neighbourhood", span=1)
    recipe = replace(tiny_recipe, network=replace(tiny_recipe.network, surround=surround, context=mode))
    network = SGNet(recipe.architecture(3))
    parity = export_network(network, recipe, tiny_sampler, tmp_path / "tiny")

    manifest = read_manifest(tmp_path / "tiny")
    assert manifest.context.mode == mode
    assert {"onnx_context", "onnx_tile"} < manifest.files.keys()
    assert "onnx" not in manifest.files
    assert parity.label_agreement > 0.9999
    assert parity.max_score_difference < 1e-3
    # the graph was made from one size of picture; any other serves, down to one cell of the lattice
    random = np.random.default_rng(0)
    for shape in ((300, 420), (20, 30)):
        picture = random.integers(0, 256, (3, *shape)).astype(np.uint8)
        assert measure_parity(tmp_path / "tiny", manifest, [picture]).label_agreement > 0.9999
    with pytest.raises(BadModel, match="has no onnx file"):
        load_predictor(tmp_path / "tiny", context="tile")
    assert load_predictor(tmp_path / "tiny", engine="torch", context="tile").manifest.context.mode == "tile"
