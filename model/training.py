"""One training run: from a recipe and crops to weights, through any number of kills.

Everything that decides the next step is in the checkpoint (weights, optimiser, iteration, torch's generator) or a
function of the iteration (crops, learning rate). So a run that was killed and resumed ends with the very weights of
one that was not.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gigamask.geometry import Box
from model.data.crops import Crop, CropSampler
from model.data.pictures import IGNORE
from model.hosts.mobilenet import load_imagenet
from model.imagenet import mobilenet_weights
from model.losses import total_loss
from model.normalise import Normalise
from model.recipe import Recipe, Schedule
from model.sgnet import SGNet

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"
_ROWS = 1024  # read at a time when labels are checked
_COLUMNS = ("iteration", "total", "local", "surround", "consistency", "learning_rate")


@dataclass(frozen=True, slots=True)
class Batch:
    """Pixels uint8 (B,3,t,t) and (B,3,S,S), labels int64 (B,t,t) and (B,S,S), offset (B,2)."""

    local: Tensor
    surround: Tensor
    local_labels: Tensor
    surround_labels: Tensor
    offset: Tensor


class TrainingRun:
    """State of a run in `folder`; a checkpoint found there is taken up."""

    def __init__(self, recipe: Recipe, sampler: CropSampler, classes: int, folder: Path, device: str = "cpu") -> None:
        check_labels(sampler, classes)
        self.recipe, self.sampler, self.folder = recipe, sampler, folder
        self.device = torch.device(device)
        torch.manual_seed(recipe.seed)
        network = SGNet(recipe.architecture(classes))
        if recipe.network.imagenet:
            load_imagenet(network.host, mobilenet_weights())
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalise = Normalise().to(self.device)
        self.optimiser = make_optimiser(self.network, recipe.schedule)
        self.iteration = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def steps(self) -> Iterator[dict[str, float]]:
        """Train to the end, giving the losses of each iteration, the last after the last checkpoint."""
        schedule = self.recipe.schedule
        while self.iteration < schedule.iterations:
            losses = self._step()
            self.iteration += 1
            self._log(losses)
            if self.iteration % schedule.checkpoint_every == 0 or self.iteration == schedule.iterations:
                self._save()
            yield losses

    def _step(self) -> dict[str, float]:
        schedule = self.recipe.schedule
        rate = learning_rate(schedule, self.iteration)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        first = self.iteration * schedule.batch
        batch = collate([self.sampler.crop(i) for i in range(first, first + schedule.batch)], self.device)
        losses = self._losses(batch)
        if not bool(torch.isfinite(losses["total"])):
            raise FloatingPointError(f"loss is {losses['total'].item()} at iteration {self.iteration}")
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()  # type: ignore[no-untyped-call]
        if schedule.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), schedule.clip_norm)
        self.optimiser.step()
        return {name: value.item() for name, value in losses.items()} | {"learning_rate": rate}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        self.network.train()
        local, surround = (
            self.normalise(pixels).contiguous(memory_format=torch.channels_last)
            for pixels in (batch.local, batch.surround)
        )
        output = self.network.forward_training(local, surround, batch.offset)
        return total_loss(output, batch.local_labels, batch.surround_labels, batch.offset, self.recipe.loss)

    def _log(self, losses: dict[str, float]) -> None:
        path = self.folder / LOG
        fresh = not path.exists()
        with path.open("a", newline="") as stream:
            rows = csv.writer(stream)
            if fresh:
                rows.writerow(_COLUMNS)
            values = (losses.get(name, 0.0) for name in _COLUMNS[1:])
            rows.writerow([self.iteration, *(f"{value:.6g}" for value in values)])

    def _save(self) -> None:
        state = {
            "recipe": fingerprint(self.recipe),
            "iteration": self.iteration,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": torch.get_rng_state(),
        }
        partial = self.folder / f"{CHECKPOINT}.part"
        torch.save(state, partial)
        partial.replace(self.folder / CHECKPOINT)  # whole or not there, whenever we are killed

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        if not path.exists():
            (self.folder / LOG).unlink(missing_ok=True)
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != fingerprint(self.recipe):
            raise ValueError(f"{path} belongs to another recipe; delete the folder or choose another with --run")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["generator"].cpu())
        self.iteration = state["iteration"]
        self._forget_rows_after(self.iteration)

    def _forget_rows_after(self, iteration: int) -> None:
        path = self.folder / LOG
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(lines[: iteration + 1]))


def check_labels(sampler: CropSampler, classes: int) -> None:
    """Row by row of every picture: a label above the classes would train the wrong thing, or nothing."""
    for picture in sampler.pictures:
        height, width = picture.shape
        for y in range(0, height, _ROWS):
            ids = picture.labels(Box(y, 0, y + _ROWS, width).clip(picture.shape))
            wrong = ids[(ids != IGNORE) & (ids >= classes)]
            if wrong.size:
                raise ValueError(
                    f"{picture.name}: label {wrong.max()}, but the data set has {classes} classes (0 to {classes - 1})"
                )


def collate(crops: list[Crop], device: torch.device) -> Batch:
    images = torch.from_numpy(np.stack([crop.image.transpose(2, 0, 1) for crop in crops])).to(device)
    labels = torch.from_numpy(np.stack([crop.labels for crop in crops]).astype(np.int64)).to(device)
    local = torch.stack([image[:, *crop.local] for image, crop in zip(images, crops, strict=True)])
    local_labels = torch.stack([ids[crop.local] for ids, crop in zip(labels, crops, strict=True)])
    offset = torch.tensor([crop.offset for crop in crops], device=device)
    return Batch(local, images, local_labels, labels, offset)


def make_optimiser(network: SGNet, schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW; layers from ImageNet at a share of the rate; norms, biases and other vectors without decay."""
    backbone = {id(p) for p in network.host.backbone.parameters()}
    groups = []
    for share, inside in ((schedule.backbone_rate_share, True), (1.0, False)):
        parameters = [p for p in network.parameters() if (id(p) in backbone) is inside]
        decayed, free = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
        groups.append({"params": decayed, "share": share, "weight_decay": schedule.weight_decay})
        groups.append({"params": free, "share": share, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=schedule.learning_rate)


def learning_rate(schedule: Schedule, iteration: int) -> float:
    """Linear warm-up, then poly decay: lr (1 - i / n)^p."""
    warm = min(1.0, (iteration + 1) / schedule.warmup_iterations) if schedule.warmup_iterations else 1.0
    return float(schedule.learning_rate * warm * (1 - iteration / schedule.iterations) ** schedule.poly_power)


def fingerprint(recipe: Recipe) -> str:
    """Two recipes that train differently never share one; how often to save is no part of it."""
    told = asdict(recipe)
    del told["schedule"]["checkpoint_every"]
    return hashlib.sha256(repr(told).encode()).hexdigest()
