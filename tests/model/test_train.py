"""The command: it trains, goes on when called again, exports the best, and says in one line what is wrong."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from gigamask.manifest import LabelClass, read_manifest
from model.data import datasets
from model.data.datasets import Dataset
from model.data.pictures import ArrayPicture
from model.recipe import Recipe, read_recipe
from model.train import app, open_run
from model.training import BEST

RECIPE = """
name = "tiny"
version = "1"
dataset = "stripes"
seed = 3
[network]
host = "mobilenet_v2_lraspp"
tile_px = 64
imagenet = false
[schedule]
iterations = 4
batch = 2
learning_rate = 1e-3
checkpoint_every = 2
validate_every = 2
[machine]
tensorboard = false
"""


@pytest.fixture
def stripes(monkeypatch: pytest.MonkeyPatch, coordinates: NDArray[np.uint8]) -> Dataset:
    """A data set in memory, with pictures to validate on."""
    labels = (coordinates[..., 1] // 60 % 3).astype(np.uint8)
    parts = {"train": slice(0, 130), "val": slice(130, 200), "test": slice(0, 0)}
    made = Dataset(
        title="Stripes",
        classes=tuple(LabelClass(id=i, name=f"stripe {i}", color="#000000") for i in range(3)),
        pictures=lambda split: [ArrayPicture(split, coordinates[parts[split]], labels[parts[split]])],
        license="-",
        provenance={},
    )
    monkeypatch.setitem(datasets.DATASETS, "stripes", lambda root: made)
    return made


def call(folder: Path, *options: str, recipe: str = RECIPE) -> Result:
    path = folder / "mine.toml"
    path.write_text(recipe)
    return CliRunner().invoke(app, [str(path), "--run", str(folder / "run"), "--device", "cpu", *options])


def told(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    (line,) = [line for line in result.output.splitlines() if "error" in line]
    return line


def test_a_killed_command_is_called_again_and_exports_the_best_network(stripes: Dataset, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(RECIPE)
    begun = open_run(read_recipe(tmp_path / "mine.toml"), tmp_path / "run", "cpu").steps()
    for _ in range(3):
        next(begun)
    result = call(tmp_path, "--out", str(tmp_path / "tiny"))
    assert result.exit_code == 0, result.output
    best = torch.load(tmp_path / "run" / BEST, weights_only=True)
    assert f"exporting iteration {best['iteration']}, validation mIoU {best['miou']:.4f}" in result.output
    assert "labels agree on" in result.output
    assert read_manifest(tmp_path / "tiny").name == "tiny"
    for name, value in load_file(tmp_path / "tiny" / "model.safetensors").items():
        assert torch.equal(value, best["network"][name].to(value.dtype)), name


def test_a_recipe_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "none.toml")])
    assert "none.toml; shipped recipes: deepglobe, " in told(result)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"stripes"', '"mars"', "unknown dataset 'mars': expected one of"),
        ('"stripes"', '"deepglobe"', "where is deepglobe? Give its folder with --root, or set GIGAMASK_DATA"),
        ("mobilenet_v2_lraspp", "vgg", "unknown host 'vgg': expected one of"),
        ("tile_px = 64", "tile_px = 65", "network.tile_px: expected a multiple of 32, got 65"),
        ("false\n[sch", "true\nimagenet_file = '/no/weights.pth'\n[sch", "/no/weights.pth"),
        ("[machine]", "[loss]\nclasses = [1, 2]\n[machine]", "loss.classes: expected 3 weights, got 2; stripes has 3"),
        ("1e-3", "1e30", "loss is "),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_recipe_and_what_is_expected(
    stripes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    monkeypatch.delenv(datasets.ROOT_VARIABLE, raising=False)
    line = told(call(tmp_path, "--no-export", recipe=RECIPE.replace(old, new)))
    assert "mine.toml: " in line
    assert message in line


def test_a_gpu_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    (tmp_path / "mine.toml").write_text(RECIPE)
    result = CliRunner().invoke(app, [str(tmp_path / "mine.toml"), "--device", "cuda"])
    assert "torch finds no CUDA device here; expected auto or cpu" in told(result)


def test_a_data_set_without_validation_pictures_is_trained_without(
    stripes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = replace(stripes, pictures=lambda split: stripes.pictures(split) if split != "val" else [])
    monkeypatch.setitem(datasets.DATASETS, "stripes", lambda root: without)
    (tmp_path / "mine.toml").write_text(RECIPE)
    assert open_run(read_recipe(tmp_path / "mine.toml"), tmp_path / "run", "cpu").validation is None


def test_the_help_says_how_to_begin_how_to_go_on_and_where_to_look() -> None:
    text = CliRunner().invoke(app, ["--help"]).output
    for word in ("RECIPE", "Call it again", "deepglobe.toml", "validation.csv", "TensorBoard", "--root"):
        assert word.lower() in text.lower(), word
    assert {f.name for f in dataclasses.fields(Recipe)} >= {"machine", "schedule"}
