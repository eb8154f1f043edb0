"""A run that was killed and resumed is the run that was not: weights, best checkpoint and logs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gigamask.geometry import Box
from gigamask.manifest import LabelClass
from model.data.batches import draw_batches
from model.data.crops import CropSampler
from model.data.pictures import ArrayPicture
from model.losses import LossWeights
from model.measurement import Report
from model.parts.stdc import StdcTrunk
from model.recipe import Machine, Recipe, Schedule
from model.run_log import TENSORBOARD, VALIDATION_LOG, open_log
from model.sgnet import SGNet, Surround
from model.training import BEST, CHECKPOINT, LOG, TrainingRun, learning_rate
from model.validation import Validation

CLASSES = tuple(LabelClass(id=i, name=f"c{i}", color="#000000") for i in range(3))
CPU = torch.device("cpu")


@pytest.fixture
def validation(coordinates: NDArray[np.uint8]) -> Validation:
    labels = (coordinates[:100, :130, 1] // 60 % 3).astype(np.uint8)
    return Validation([ArrayPicture("kept back", coordinates[:100, :130], labels)], CLASSES)


@pytest.fixture
def judged_recipe(tiny_recipe: Recipe) -> Recipe:
    """Six iterations; checkpoints after 2, 4 and 6, validations after 3 and 6; a host with dropout, which is drawn."""
    schedule = replace(tiny_recipe.schedule, iterations=6, validate_every=3)
    network = replace(tiny_recipe.network, host="mobilenet_v2_deeplabv3plus")
    return replace(tiny_recipe, network=network, schedule=schedule, machine=Machine(tensorboard=False))


def finish(recipe: Recipe, sampler: CropSampler, folder: Path, validation: Validation | None = None) -> TrainingRun:
    run = TrainingRun(recipe, sampler, 3, folder, validation=validation)
    for _ in run.steps():
        pass
    return run


def same_weights(one: TrainingRun, other: TrainingRun) -> bool:
    expected = other.network.state_dict()
    return all(torch.equal(value, expected[name]) for name, value in one.network.state_dict().items())


def read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_killed_run_resumes_to_the_same_weights_and_the_same_best(
    tmp_path: Path, judged_recipe: Recipe, tiny_sampler: CropSampler, validation: Validation
) -> None:
    whole = finish(judged_recipe, tiny_sampler, tmp_path / "whole", validation)
    killed = TrainingRun(judged_recipe, tiny_sampler, 3, tmp_path / "killed", validation=validation).steps()
    for _ in range(5):  # the last checkpoint is of iteration 4; iteration 5 is lost
        next(killed)
    resumed = TrainingRun(judged_recipe, tiny_sampler, 3, tmp_path / "killed", validation=validation)
    assert resumed.iteration == 4
    assert resumed.best is not None
    assert resumed.best.iteration == 3
    assert torch.equal(torch.get_rng_state(), torch.load(tmp_path / "killed" / CHECKPOINT)["generator"])
    for _ in resumed.steps():
        pass
    assert same_weights(resumed, whole)
    assert resumed.best == whole.best
    for name in (LOG, VALIDATION_LOG):
        assert (tmp_path / "killed" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert resumed.take_best() == whole.take_best()
    assert same_weights(resumed, whole)


def test_validating_changes_nothing_of_what_is_trained(
    tmp_path: Path, judged_recipe: Recipe, tiny_sampler: CropSampler, validation: Validation
) -> None:
    judged = finish(judged_recipe, tiny_sampler, tmp_path / "judged", validation)
    assert same_weights(judged, finish(judged_recipe, tiny_sampler, tmp_path / "not"))
    assert judged.network.training


@dataclass(frozen=True)
class Scripted(Validation):
    """Finds these shares of the pixels right, one a call."""

    scores: list[float]

    def judge(
        self,
        network: SGNet,
        context: str,
        device: torch.device,
        told: Callable[[float], None] = lambda fraction: None,
    ) -> Report:
        told(1.0)
        return report_of(self.scores.pop(0))


def report_of(share: float) -> Report:
    """So many of 1000 pixels of each of two classes are right."""
    right = round(1000 * share)
    confusion = np.array([[right, 0, 1000 - right], [0, right, 1000 - right], [0, 0, 0]], np.int64)
    return Report(("c0", "c1", "c2"), confusion, None, 1.0, 1.0, 1.0, None)


def test_the_best_validation_is_kept_beside_the_last_state(
    tmp_path: Path, judged_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    recipe = replace(judged_recipe, schedule=replace(judged_recipe.schedule, iterations=4, validate_every=1))
    run = TrainingRun(recipe, tiny_sampler, 3, tmp_path, validation=Scripted([], CLASSES, [0.3, 0.9, 0.6, 0.9]))
    states, fractions = [], list[float]()
    for _ in run.steps(fractions.append):
        states.append({name: value.clone() for name, value in run.network.state_dict().items()})
    rows = read_rows(tmp_path / VALIDATION_LOG)
    assert [row["iteration"] for row in rows] == ["1", "2", "3", "4"]
    assert fractions == [1.0] * 4
    assert rows[0].keys() == {"iteration", "mIoU", "c0", "c1", "c2"}
    best = run.take_best()
    assert best is not None
    assert best.iteration == 2
    assert best.miou == report_of(0.9).miou
    weights = run.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in states[1].items())
    last = torch.load(tmp_path / CHECKPOINT)["network"]
    assert all(torch.equal(value, last[name]) for name, value in states[3].items())


def test_the_score_of_a_validation_is_that_of_the_network_as_it_will_be_used(
    tmp_path: Path, judged_recipe: Recipe, tiny_sampler: CropSampler, validation: Validation
) -> None:
    """One picture of one tile, labelled by the network itself, gives an mIoU of 1; labelled otherwise, 0."""
    run = TrainingRun(judged_recipe, tiny_sampler, 3, tmp_path)
    image = validation.pictures[0].image[:64, :64]  # type: ignore[attr-defined]
    pixels = run.normalise(torch.from_numpy(image.transpose(2, 0, 1).copy())[None])
    pad = run.normalise(torch.tensor([124, 116, 104], dtype=torch.uint8)[None, :, None, None])
    surround = pad.expand(1, 3, 128, 128).clone()
    surround[:, :, :64, :64] = pixels
    with torch.no_grad():
        scores = run.network.eval()(pixels, surround, torch.tensor([[0, 0]]))
        middle = scores.median(dim=-1).values.median(dim=-1).values
        run.network.host.classifier.bias -= middle[0]  # so that no class wins everywhere
        scores = scores - middle[..., None, None]
    labels = scores[0].argmax(dim=0).to(torch.uint8).numpy()
    assert len(np.unique(labels)) == 3
    for ids, expected in ((labels, 1.0), ((labels + 1) % 3, 0.0)):
        judged = replace(validation, pictures=[ArrayPicture("one tile", image, ids.astype(np.uint8))])
        assert judged.judge(run.network, "tile", CPU).miou == pytest.approx(expected, abs=0.005)  # sums turn ties


def test_a_network_for_shared_contexts_is_judged_with_them(
    tmp_path: Path, judged_recipe: Recipe, tiny_sampler: CropSampler, validation: Validation
) -> None:
    near = Surround(width=0.25, blocks=1, window=2, reach="neighbourhood", span=1)
    network = replace(judged_recipe.network, surround=near, context="neighbourhood")
    run = TrainingRun(replace(judged_recipe, network=network), tiny_sampler, 3, tmp_path, validation=validation)
    shared, alone = (validation.judge(run.network, mode, CPU).confusion for mode in ("neighbourhood", "tile"))
    assert shared.sum() == alone.sum() == 100 * 130


def test_without_validation_pictures_the_last_weights_are_taken(
    tmp_path: Path, judged_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    run = finish(judged_recipe, tiny_sampler, tmp_path)
    assert run.take_best() is None
    assert not (tmp_path / BEST).exists()


def test_the_log_has_a_row_for_each_iteration(tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler) -> None:
    finish(tiny_recipe, tiny_sampler, tmp_path)
    rows = (tmp_path / LOG).read_text().splitlines()
    assert rows[0].startswith("iteration,total,local,surround,consistency,host,learning_rate")
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("left", ["", "iteration,to"])
def test_a_log_that_was_killed_before_its_first_row_is_begun_again(tmp_path: Path, left: str) -> None:
    (tmp_path / LOG).write_text(left)
    with open_log(tmp_path, 2, tensorboard=False) as log:
        log.add_losses(3, {"total": 1.5})
    assert [(row["iteration"], row["total"]) for row in read_rows(tmp_path / LOG)] == [("3", "1.5")]


def test_tensorboard_is_told_of_each_step_once_however_often_the_run_was_killed(
    tmp_path: Path, judged_recipe: Recipe, tiny_sampler: CropSampler, validation: Validation
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard here")
    recipe = replace(judged_recipe, machine=Machine(tensorboard=True))
    killed = TrainingRun(recipe, tiny_sampler, 3, tmp_path, validation=validation).steps()
    for _ in range(5):
        next(killed)
    killed.close()  # type: ignore[attr-defined]
    finish(recipe, tiny_sampler, tmp_path, validation)
    told = events.EventAccumulator(str(tmp_path / TENSORBOARD)).Reload()
    losses, scores = told.Scalars("training/total"), told.Scalars("validation/mIoU")
    assert [event.step for event in losses] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in scores] == [3, 6]
    rows = read_rows(tmp_path / LOG)
    assert [event.value for event in losses] == pytest.approx([float(row["total"]) for row in rows], rel=1e-5)


def test_loaders_give_the_very_batches_in_their_order(tiny_sampler: CropSampler) -> None:
    here = list(draw_batches(tiny_sampler, 2, 1, 4, CPU))
    state = torch.get_rng_state()
    ahead = list(draw_batches(tiny_sampler, 2, 1, 4, CPU, loaders=2))
    assert torch.equal(torch.get_rng_state(), state)  # which a resumed run goes on with
    assert len(here) == len(ahead) == 3
    for one, other in zip(here, ahead, strict=True):
        for name in ("local", "surround", "local_labels", "surround_labels", "offset"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def test_a_batch_is_crops_as_they_were_drawn(tiny_sampler: CropSampler) -> None:
    batch = next(draw_batches(tiny_sampler, 2, 3, 4, CPU))
    for i, crop in enumerate((tiny_sampler.crop(6), tiny_sampler.crop(7))):
        assert np.array_equal(batch.surround[i].numpy().transpose(1, 2, 0), crop.image)
        assert np.array_equal(batch.local[i].numpy().transpose(1, 2, 0), crop.image[crop.local])
        assert np.array_equal(batch.local_labels[i].numpy(), crop.labels[crop.local])
        assert np.array_equal(batch.surround_labels[i].numpy(), crop.labels)
        assert tuple(batch.offset[i].tolist()) == crop.offset


def test_bfloat16_trains_float32_weights_to_nearly_the_same_losses(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    recipe = replace(tiny_recipe, schedule=replace(tiny_recipe.schedule, iterations=2))
    halved = replace(recipe, machine=Machine(precision="bfloat16", tensorboard=False))
    run = finish(halved, tiny_sampler, tmp_path / "bfloat16")
    assert run.bfloat16
    assert {p.dtype for p in run.network.parameters()} == {torch.float32}
    exact = finish(recipe, tiny_sampler, tmp_path / "float32")
    assert not exact.bfloat16
    assert not same_weights(run, exact)
    first, second = (
        float(read_rows(folder / LOG)[0]["total"]) for folder in (tmp_path / "bfloat16", tmp_path / "float32")
    )
    assert first == pytest.approx(second, rel=0.02)


def test_the_surrounds_trunk_starts_from_a_public_stdc1(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    from model.hosts.stdc import _public_name

    torch.manual_seed(1)
    stored = {_public_name(key): torch.randn_like(value.float()) for key, value in StdcTrunk().state_dict().items()}
    torch.save({"state_dict": stored}, tmp_path / "stdc1.tar")
    network = replace(
        tiny_recipe.network, trunk_file=str(tmp_path / "stdc1.tar"), surround=Surround(width=1.0, blocks=1)
    )
    run = TrainingRun(replace(tiny_recipe, network=network), tiny_sampler, 3, tmp_path / "run")
    assert run.network.branch is not None
    first = run.network.branch.trunk.state_dict()["layers.0.0.weight"]
    assert torch.equal(first, stored["features.0.conv.weight"])


def test_a_checkpoint_of_another_recipe_is_refused(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    finish(tiny_recipe, tiny_sampler, tmp_path)
    with pytest.raises(ValueError, match=r"checkpoint\.pt belongs to another recipe"):
        TrainingRun(replace(tiny_recipe, seed=4), tiny_sampler, 3, tmp_path)
    more_often = replace(tiny_recipe, schedule=replace(tiny_recipe.schedule, checkpoint_every=1, validate_every=5))
    assert TrainingRun(more_often, tiny_sampler, 3, tmp_path).iteration == 4


def test_a_checkpoint_that_is_none_is_refused_by_name(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint\.pt is not a checkpoint of a run"):
        TrainingRun(tiny_recipe, tiny_sampler, 3, tmp_path)
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is not a checkpoint .* expected the keys 'recipe'"):
        TrainingRun(tiny_recipe, tiny_sampler, 3, tmp_path)


def test_a_loss_that_is_not_a_number_stops_the_run_and_says_when(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    broken = replace(tiny_recipe, loss=LossWeights(local=float("nan")))
    with pytest.raises(FloatingPointError, match=r"loss is nan at iteration 0, expected a finite number \(local 1"):
        finish(broken, tiny_sampler, tmp_path)


@pytest.mark.parametrize("split", ["training", "validation"])
def test_labels_above_the_class_count_are_refused(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler, coordinates: NDArray[np.uint8], split: str
) -> None:
    wrong = [ArrayPicture("wrong", coordinates, np.full(coordinates.shape[:2], 3, np.uint8))]
    sampler = replace(tiny_sampler, pictures=wrong) if split == "training" else tiny_sampler
    with pytest.raises(ValueError, match=r"wrong: label 3, .* 3 classes"):
        TrainingRun(tiny_recipe, sampler, 3, tmp_path, validation=Validation(wrong, CLASSES))


@dataclass(frozen=True)
class Unread:
    """As a picture in a file: whoever reads it waits."""

    name: str = "unread"
    shape: tuple[int, int] = (50_000, 50_000)

    def pixels(self, box: Box) -> NDArray[np.uint8]:
        raise AssertionError("read before the first crop")

    labels = pixels


def test_pictures_in_files_are_not_read_through_at_the_start(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    TrainingRun(tiny_recipe, replace(tiny_sampler, pictures=[Unread()]), 3, tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_run_that_goes_on_on_a_gpu_counts_its_steps_on_the_cpu(
    tmp_path: Path, tiny_recipe: Recipe, tiny_sampler: CropSampler
) -> None:
    """Counters on the GPU would be waited for in every step."""
    steps = TrainingRun(tiny_recipe, tiny_sampler, 3, tmp_path, "cuda").steps()
    for _ in range(3):
        next(steps)
    resumed = TrainingRun(tiny_recipe, tiny_sampler, 3, tmp_path, "cuda")
    states = list(resumed.optimiser.state.values())
    assert {state["step"].device.type for state in states} == {"cpu"}
    assert {state["exp_avg"].device.type for state in states} == {"cuda"}


def test_the_rate_rises_linearly_then_falls_to_zero() -> None:
    schedule = Schedule(iterations=100, batch=1, learning_rate=2.0, warmup_iterations=10, poly_power=0.9)
    assert learning_rate(schedule, 0) == pytest.approx(0.2)
    assert learning_rate(schedule, 9) == pytest.approx(2.0 * 0.91**0.9)
    assert learning_rate(schedule, 99) == pytest.approx(2.0 * 0.01**0.9)
