"""Context flows: a task that can be solved only by what lies outside the local patch.

A picture is noise in the middle and a plain colour in a frame about it. The local patch lies in the noise, wherever
that leaves room; its class is the frame's colour. So the host alone, which sees noise, can only guess, and SGNet can
know, if and only if what its branch saw reaches the scores of the local patch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.batches import place, stack
from model.data.crops import Crop, CropSampler
from model.data.pictures import ArrayPicture
from model.recipe import Machine, Network, Recipe, Schedule
from model.sgnet import Surround
from model.training import TrainingRun

TILE, FRAME = 64, 16  # px; the picture is a surround of 128 px, the noise in it 96 px wide
COLOURS = np.array([[210, 60, 60], [60, 190, 60], [60, 60, 210], [200, 190, 60]], np.uint8)
CLASSES = len(COLOURS)
HELD_OUT = 1_000_000  # the first crop that training never sees

BRANCH = Surround(width=0.25, blocks=1, window=2)
RECIPE = Recipe(
    name="frames",
    version="0",
    dataset="none",
    seed=7,
    network=Network("mobilenet_v2", TILE, imagenet=False, surround=BRANCH),
    schedule=Schedule(iterations=60, batch=8, learning_rate=2e-3, checkpoint_every=1000, warmup_iterations=5),
    machine=Machine(tensorboard=False),
)


@dataclass(frozen=True)
class FramedNoise(CropSampler):
    """Crop i of the task. With alpha 1 it is the local patch alone: what the host may see."""

    def crop(self, index: int) -> Crop:
        rng = np.random.default_rng((self.seed, index))
        label, size = int(rng.integers(CLASSES)), 2 * TILE
        image = np.empty((size, size, 3), np.uint8)
        image[:] = COLOURS[label]
        inside = slice(FRAME, size - FRAME)
        image[inside, inside] = rng.integers(0, 256, (size - 2 * FRAME, size - 2 * FRAME, 3))
        y, x = (int(o) for o in rng.integers(FRAME, size - FRAME - TILE + 1, 2))
        labels = np.full((size, size), label, np.uint8)
        if self.alpha == 2:
            return Crop(image, labels, (y, x), TILE)
        local = slice(y, y + TILE), slice(x, x + TILE)
        return Crop(image[local], labels[local], (0, 0), TILE)


def train(recipe: Recipe, folder: Path) -> TrainingRun:
    nothing = ArrayPicture("drawn as needed", np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8))
    sampler = FramedNoise([nothing], TILE, recipe.architecture(CLASSES).alpha, recipe.crops, recipe.seed)
    run = TrainingRun(recipe, sampler, CLASSES, folder)
    for _ in run.steps():
        pass
    return run


def accuracy(run: TrainingRun, moved: int = 0) -> float:
    """Share of right pixels in 128 crops that training never saw.

    moved: each patch is laid into the surround of another, so many crops on, whose class counts.
    """
    network, right = run.network.eval(), list[float]()
    for first in range(HELD_OUT, HELD_OUT + 128, 16):
        batch = place(stack([run.sampler.crop(i) for i in range(first, first + 16)]), TILE, run.device)
        with torch.inference_mode():
            surround = run.normalise(batch.surround).roll(moved, dims=0)
            scores = network(run.normalise(batch.local), surround, batch.offset.roll(moved, dims=0))
        labels = batch.local_labels.roll(moved, dims=0)
        right.append((scores.argmax(dim=1) == labels).float().mean().item())
    return sum(right) / len(right)


def test_the_host_alone_can_only_guess(tmp_path: Path) -> None:
    alone = replace(RECIPE, network=replace(RECIPE.network, surround=None))
    assert accuracy(train(alone, tmp_path)) < 1 / CLASSES + 0.1


@pytest.mark.parametrize(
    "branch",
    [BRANCH, replace(BRANCH, reach="neighbourhood", span=1)],
    ids=["as in the paper", "neighbourhood"],
)
def test_sgnet_knows_from_the_surroundings(tmp_path: Path, branch: Surround) -> None:
    recipe = replace(RECIPE, network=replace(RECIPE.network, surround=branch))
    run = train(recipe, tmp_path)
    assert accuracy(run) >= 0.98
    assert accuracy(run, moved=1) >= 0.98  # what decides is the surround, not the patch
