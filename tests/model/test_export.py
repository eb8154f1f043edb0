"""A network and its exported folder are the same function."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gigamask.manifest import checked_file, read_manifest
from model.data.crops import CropSampler
from model.export import export_network, measure_parity, sample_tiles
from model.predictors.torch import load_network
from model.recipe import Recipe
from model.sgnet import SGNet


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
    assert all(checked_file(tmp_path / "tiny", manifest, role) for role in ("onnx", "safetensors", "test_vector"))
    assert load_network(tmp_path / "tiny", manifest).architecture == network.architecture
    assert (tmp_path / "tiny" / "README.md").read_text() == "the card"

    parity = measure_parity(tmp_path / "tiny", manifest, sample_tiles(sampler, manifest.alpha))
    assert parity.label_agreement > 0.9999
    assert parity.max_score_difference < 1e-3
