"""Recipes: every knob in a plain file, and nothing else in it."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from model.data.crops import CropRules
from model.data.datasets import DATASETS
from model.hosts import HOSTS
from model.losses import LossWeights
from model.recipe import RECIPES, Machine, Network, Recipe, Schedule, check_classes, find_recipe, read_recipe
from model.sgnet import Surround

MINIMAL = """
name = "a"
version = "1"
dataset = "earth"
seed = 1
[network]
host = "mobilenet_v2"
tile_px = 512
[schedule]
iterations = 10
batch = 2
learning_rate = 1
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_of_a_host_and_a_data_set_that_there_are(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.network.host in HOSTS
    assert recipe.dataset in DATASETS


def test_one_shipped_recipe_has_every_knob_in_its_table() -> None:
    """So that it can be read as the documentation."""
    text = find_recipe("deepglobe").read_text()
    told = tomllib.loads(text.replace("# classes", "classes"))
    tables = {
        "": (Recipe, told),
        "network": (Network, told["network"]),
        "surround": (Surround, told["network"]["surround"]),
        "schedule": (Schedule, told["schedule"]),
        "crops": (CropRules, told["crops"]),
        "loss": (LossWeights, told["loss"]),
        "machine": (Machine, told["machine"]),
    }
    for name, (kind, table) in tables.items():
        assert {f.name for f in dataclasses.fields(kind)} == set(table), name
    assert read_recipe(find_recipe("deepglobe")).network.surround == Surround()  # the defaults are the paper's


def test_the_control_differs_from_the_recipe_by_its_missing_branch_alone() -> None:
    ours, control = read_recipe(find_recipe("earth")), read_recipe(find_recipe("earth-host"))
    assert ours.network.surround is not None
    assert replace(control, name=ours.name, network=ours.network) == ours
    assert replace(ours.network, surround=None) == control.network


def test_what_a_recipe_leaves_out_has_its_default(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL))
    assert recipe.schedule.learning_rate == 1.0
    assert recipe.loss.surround == 0.4
    assert recipe.network.surround is None
    assert recipe.machine == Machine(precision="auto", compile=False, loaders=-1, tensorboard=True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch = 2", "batches = 2", "mine.toml: schedule: unknown key 'batches'; known: iterations, batch"),
        ("batch = 2", "batch = '2'", "mine.toml: schedule: batch: expected int, got '2'"),
        ("batch = 2", "batch = 0", "mine.toml: schedule.batch: expected 1 or more, got 0"),
        ("seed = 1", "", "mine.toml: 'seed' is missing"),
        ("seed = 1", "seed = -1", "mine.toml: seed: expected 0 or more, got -1"),
        ("seed = 1", "seed = ", "mine.toml"),
        ('"a"', '"My Model"', "mine.toml: name: expected up to 63 lower-case letters, .* got 'My Model'"),
        ("tile_px = 512", "tile_px = 500", "mine.toml: network.tile_px: expected a multiple of 32, got 500"),
        ("= 512", "= 96", r"network.tile_px: expected a divisor of one of \(512, 1024, 2048, 4096\), got 96"),
        ("= 512", "= 2048\n[network.surround]\nalpha = 3", "a surround of at most 4096 px, got 2048 times .*, 6144 px"),
        ("= 512", "= 64\nhost_scale = 4", "mine.toml: network.tile_px: expected a multiple of 128, got 64"),
        ("= 512", "= 512\ntrunk_file = 'x.tar'", "mine.toml: network.trunk_file: expected a network.surround"),
        ("= 512", "= 512\nensemble = true", "mine.toml: an ensemble needs a surround"),
        ("= 512", "= 512\ncontext = 'neighbourhood'", "mine.toml: context 'neighbourhood' needs a network with a surr"),
        ("= 512", "= 512\n[network.surround]\nwindow = 7", "mine.toml: a surround of 1024 px .* multiple of .* 7"),
        ("= 512", "= 512\n[network.surround]\nmixing = 'x'", "mine.toml: network: surround: mixing: expected one of"),
        ("= 1\n", "= 1\n[machine]\nprecision = 'half'\n", "mine.toml: machine: precision: .* 'bfloat16', got 'half'"),
        ("= 1\n", "= 1\n[machine]\nloaders = -2\n", "mine.toml: machine.loaders: expected -1 .* got -2"),
    ],
)
def test_a_wrong_recipe_says_where_and_what_is_expected(tmp_path: Path, old: str, new: str, message: str) -> None:
    found = MINIMAL.replace(old, new) if not old.startswith("= 1\n") else MINIMAL + new.removeprefix("= 1\n")
    with pytest.raises(ValueError, match=message):
        read_recipe(write(tmp_path, found))


@pytest.mark.parametrize("host", HOSTS)
def test_a_batch_of_one_is_refused_for_the_hosts_that_cannot_learn_from_it(tmp_path: Path, host: str) -> None:
    told = MINIMAL.replace("batch = 2", "batch = 1").replace("mobilenet_v2", host).replace("512", "64")
    path = write(tmp_path, told)
    if "deeplabv3plus" in host or host.startswith("stdc"):
        with pytest.raises(ValueError, match=f"schedule.batch: expected 2 or more, for {host} has .* got 1"):
            read_recipe(path)
    else:
        assert read_recipe(path).schedule.batch == 1


def test_a_recipe_for_other_classes_than_the_data_sets_is_refused(tmp_path: Path) -> None:
    names = ["ocean", "land", "lake"]
    recipe = read_recipe(find_recipe("earth"))
    check_classes(recipe, names)
    with pytest.raises(ValueError, match=r"loss\.classes: expected 2 weights, got 3; earth has 2 classes"):
        check_classes(recipe, names[:2])
    rare = replace(recipe, crops=replace(recipe.crops, rare_classes=(3,)))
    with pytest.raises(ValueError, match=re.escape("crops.rare_classes: expected ids from 0 to 2, got 3")):
        check_classes(rare, names)


def test_a_recipe_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(FileNotFoundError, match=r"shipped recipes: deepglobe, .*earth, earth-host"):
        find_recipe("mars")
