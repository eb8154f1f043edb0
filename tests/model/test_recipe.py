"""Recipes: every knob in a plain file, and nothing else in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model.recipe import find_recipe, read_recipe

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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch = 2", "batches = 2", "mine.toml: schedule: unknown key 'batches'; known: iterations, batch"),
        ("batch = 2", "batch = '2'", "mine.toml: schedule: batch: expected int, got '2'"),
        ("seed = 1", "", "mine.toml: 'seed' is missing"),
        ("seed = 1", "seed = ", "mine.toml"),
    ],
)
def test_a_wrong_recipe_says_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_recipe(write(tmp_path, MINIMAL.replace(old, new)))


def test_a_recipe_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(FileNotFoundError, match="shipped recipes: earth, earth-host"):
        find_recipe("mars")
