"""A network and its exported folder are the same function."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

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
    exported = export_network(network, recipe, sampler, tmp_path / "tiny")

    manifest = read_manifest(tmp_path / "tiny")
    assert manifest == exported
    assert manifest.alpha == (1 if alone else 2)
    assert manifest.context.mode == "tile"
    assert all(checked_file(tmp_path / "tiny", manifest, role) for role in ("onnx", "safetensors", "test_vector"))
    assert load_network(tmp_path / "tiny", manifest).architecture == network.architecture
    assert (tmp_path / "tiny" / "README.md").read_text() == "the card"

    parity = measure_parity(tmp_path / "tiny", manifest, sample_pictures(sampler))
    assert parity.label_agreement > 0.9999
    assert parity.max_score_difference < 1e-3


@pytest.mark.parametrize("mode", ["trunk_shared", "neighbourhood"])
def test_a_network_whose_tiles_share_their_context_is_exported_in_two_graphs(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler, mode: Literal["trunk_shared", "neighbourhood"]
) -> None:
    surround = Surround(width=0.25, blocks=1, window=2, reach="neighbourhood", span=1)
    recipe = replace(tiny_recipe, network=replace(tiny_recipe.network, surround=surround, context=mode))
    network = SGNet(recipe.architecture(3))
    manifest = export_network(network, recipe, tiny_sampler, tmp_path / "tiny")

    assert manifest.context.mode == mode
    assert {"onnx_context", "onnx_tile"} < manifest.files.keys()
    assert "onnx" not in manifest.files
    parity = measure_parity(tmp_path / "tiny", manifest, sample_pictures(tiny_sampler))
    assert parity.label_agreement > 0.9999
    assert parity.max_score_difference < 1e-3
    # the graph was made from one size of picture; any other serves
    large = np.random.default_rng(0).integers(0, 256, (3, 300, 420)).astype(np.uint8)
    assert measure_parity(tmp_path / "tiny", manifest, [large]).label_agreement > 0.9999
    with pytest.raises(BadModel, match="has no onnx file"):
        load_predictor(tmp_path / "tiny", context="tile")
    assert load_predictor(tmp_path / "tiny", engine="torch", context="tile").manifest.context.mode == "tile"
