"""A run that was killed and resumed is the run that was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.data.crops import CropSampler
from model.data.pictures import ArrayPicture
from model.losses import LossWeights
from model.recipe import Recipe, Schedule
from model.training import LOG, TrainingRun, learning_rate


def finish(recipe: Recipe, sampler: CropSampler, folder: Path) -> TrainingRun:
    run = TrainingRun(recipe, sampler, 3, folder)
    for _ in run.steps():
        pass
    return run


def test_a_killed_run_resumes_to_the_same_weights(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    whole = finish(tiny_recipe, tiny_sampler, tmp_path / "whole")
    killed = TrainingRun(tiny_recipe, tiny_sampler, 3, tmp_path / "killed").steps()
    for _ in range(3):  # the checkpoint is of iteration 2; iteration 3 is lost
        next(killed)
    torch.manual_seed(99)
    resumed = TrainingRun(tiny_recipe, tiny_sampler, 3, tmp_path / "killed")
    assert resumed.iteration == 2
    for _ in resumed.steps():
        pass
    expected = whole.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.network.state_dict().items())
    assert (tmp_path / "killed" / LOG).read_text() == (tmp_path / "whole" / LOG).read_text()


def test_the_log_has_a_row_for_each_iteration(tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler) -> None:
    finish(tiny_recipe, tiny_sampler, tmp_path)
    rows = (tmp_path / LOG).read_text().splitlines()
    assert rows[0].startswith("iteration,total,local,surround,consistency")
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]


def test_a_checkpoint_of_another_recipe_is_refused(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    finish(tiny_recipe, tiny_sampler, tmp_path)
    with pytest.raises(ValueError, match="belongs to another recipe"):
        TrainingRun(replace(tiny_recipe, seed=4), tiny_sampler, 3, tmp_path)


def test_a_loss_that_is_not_a_number_stops_the_run_and_says_when(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    broken = replace(tiny_recipe, loss=LossWeights(local=float("nan")))
    with pytest.raises(FloatingPointError, match="loss is nan at iteration 0"):
        finish(broken, tiny_sampler, tmp_path)


def test_labels_above_the_class_count_are_refused(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler, coordinates: NDArray[np.uint8]
) -> None:
    wrong = replace(
        tiny_sampler, pictures=[ArrayPicture("wrong", coordinates, np.full(coordinates.shape[:2], 3, np.uint8))]
    )
    with pytest.raises(ValueError, match=r"wrong: label 3, .* 3 classes"):
        TrainingRun(tiny_recipe, wrong, 3, tmp_path)


def test_the_rate_rises_linearly_then_falls_to_zero() -> None:
    schedule = Schedule(iterations=100, batch=1, learning_rate=2.0, warmup_iterations=10, poly_power=0.9)
    assert learning_rate(schedule, 0) == pytest.approx(0.2)
    assert learning_rate(schedule, 9) == pytest.approx(2.0 * 0.91**0.9)
    assert learning_rate(schedule, 99) == pytest.approx(2.0 * 0.01**0.9)
