"""One training run: from a recipe and crops to weights, through any number of kills.

Everything that decides the next step is in the checkpoint (weights, optimiser, iteration, torch's generators) or a
function of the iteration (crops, learning rate). So a run that was killed and resumed ends with the very weights of
one that was not. A GPU's kernels add in no fixed order, so there the same holds up to rounding.

In the run's folder: `checkpoint.pt`, the last state; `best.pt`, the weights of the best validation so far; the logs of
`model.run_log`.
"""

from __future__ import annotations

import hashlib
import math
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from model.data.batches import Batch, choose_loaders, draw_batches
from model.data.crops import CropSampler
from model.data.pictures import IGNORE, ArrayPicture, Picture
from model.hosts import load_backbone
from model.hosts.stdc import load_trunk
from model.imagenet import imagenet_checkpoint
from model.losses import total_loss
from model.normalise import Normalise
from model.parts.stdc import StdcTrunk
from model.recipe import Machine, Network, Recipe, Schedule
from model.run_log import LOG, RunLog, open_log
from model.sgnet import SGNet, TrainingOutput
from model.validation import Validation

__all__ = ["BEST", "CHECKPOINT", "LOG", "Best", "TrainingRun", "learning_rate"]

CHECKPOINT, BEST = "checkpoint.pt", "best.pt"
_WITHOUT_EFFECT = (  # on the weights
    ("network", "context"),
    ("schedule", "checkpoint_every"),
    ("schedule", "validate_every"),
    ("machine", "loaders"),
    ("machine", "tensorboard"),
)


@dataclass(frozen=True, slots=True)
class Best:
    """The validation that went best: after so many iterations, with this mIoU."""

    iteration: int
    miou: float


class TrainingRun:
    """State of a run in `folder`; a checkpoint found there is taken up.

    best: of the validations so far; None before the first, and where there is no `validation`.
    """

    def __init__(
        self,
        recipe: Recipe,
        sampler: CropSampler,
        classes: int,
        folder: Path,
        device: str = "cpu",
        validation: Validation | None = None,
    ) -> None:
        self.recipe, self.sampler, self.folder, self.validation = recipe, sampler, folder, validation
        self.device = torch.device(device)
        torch.manual_seed(recipe.seed)
        network = SGNet(recipe.architecture(classes))
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalise = Normalise().to(self.device)
        self.optimiser = make_optimiser(self.network, recipe.schedule)
        self.bfloat16 = computes_in_bfloat16(recipe.machine, self.device)
        self._forward = compiled(self.network.forward_training, recipe.machine, self.device)
        self.iteration = 0
        self.best: Best | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / CHECKPOINT).exists():
            self._resume()
        else:
            self._start(classes)

    def steps(self, told: Callable[[float], None] = lambda fraction: None) -> Iterator[dict[str, float]]:
        """Train to the end, giving the losses of each iteration, the last after the last checkpoint.

        told: called while a validation goes on, with the fraction of it that is done.
        """
        schedule, machine = self.recipe.schedule, self.recipe.machine
        span = self.iteration, schedule.iterations
        loaders = choose_loaders(machine.loaders, self.device)
        batches = draw_batches(self.sampler, schedule.batch, *span, self.device, loaders)
        with open_log(self.folder, self.iteration, machine.tensorboard) as log, closing(batches):
            for batch in batches:
                losses = self._step(batch)
                self.iteration += 1
                log.add_losses(self.iteration, losses)
                judged = self.validation is not None and self._is_due(schedule.validate_every)
                if judged:
                    self._validate(self.validation, log, told)
                if judged or self._is_due(schedule.checkpoint_every):
                    log.flush()
                    self._save()
                yield losses

    def take_best(self) -> Best | None:
        """Give the network the weights of the best validation; without one it keeps its last, and None is told."""
        if self.best is not None:
            self.network.load_state_dict(read_state(self.folder / BEST)["network"])
        return self.best

    def _is_due(self, every: int) -> bool:
        return every > 0 and (self.iteration % every == 0 or self.iteration == self.recipe.schedule.iterations)

    def _step(self, batch: Batch) -> dict[str, float]:
        schedule = self.recipe.schedule
        rate = learning_rate(schedule, self.iteration)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        losses = self._losses(batch)
        told = {name: value.item() for name, value in losses.items()}
        if not math.isfinite(told["total"]):
            raise FloatingPointError(self._not_finite(told))
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()  # type: ignore[no-untyped-call]
        if schedule.clip_norm:
            nn.utils.clip_grad_norm_(self.network.parameters(), schedule.clip_norm)
        self.optimiser.step()
        return told | {"learning_rate": rate}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        self.network.train()
        local, surround = (
            self.normalise(pixels).contiguous(memory_format=torch.channels_last)
            for pixels in (batch.local, batch.surround)
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            output = self._forward(local, surround, batch.offset)
        output = in_float32(output)
        return total_loss(output, batch.local_labels, batch.surround_labels, batch.offset, self.recipe.loss)

    def _not_finite(self, losses: dict[str, float]) -> str:
        parts = ", ".join(f"{name} {value:.4g}" for name, value in losses.items() if name != "total")
        return (
            f"loss is {losses['total']} at iteration {self.iteration}, expected a finite number ({parts});"
            f" try a lower schedule.learning_rate or schedule.clip_norm; what was reached is in {self.folder}"
        )

    def _validate(self, validation: Validation | None, log: RunLog, told: Callable[[float], None]) -> None:
        assert validation is not None
        report = validation.judge(self.network, self.recipe.network.context, self.device, told)
        log.add_validation(self.iteration, report.miou, report.iou)
        if self.best is None or report.miou > self.best.miou or math.isnan(self.best.miou):
            self.best = Best(self.iteration, report.miou)
            write_state(self._state() | asdict(self.best), self.folder / BEST)

    def _state(self) -> dict[str, Any]:
        return {"recipe": fingerprint(self.recipe), "network": self.network.state_dict()}

    def _save(self) -> None:
        state = self._state() | {
            "iteration": self.iteration,
            "optimiser": self.optimiser.state_dict(),
            "generator": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda_generator"] = torch.cuda.get_rng_state(self.device)
        write_state(state, self.folder / CHECKPOINT)

    def _start(self, classes: int) -> None:
        """Labels that are in memory are checked, and weights from ImageNet are loaded."""
        check_labels(self.sampler.pictures, classes)
        if self.validation is not None:
            check_labels(self.validation.pictures, classes)
        load_imagenet(self.network, self.recipe.network)
        (self.folder / BEST).unlink(missing_ok=True)

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        state = read_own_state(path, self.recipe)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["generator"])
        if "cuda_generator" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_generator"], self.device)
        self.iteration = state["iteration"]
        if (self.folder / BEST).exists():
            told = read_own_state(self.folder / BEST, self.recipe)
            self.best = Best(told["iteration"], told["miou"])


def write_state(state: dict[str, Any], path: Path) -> None:
    """Whole or not there, whenever we are killed."""
    partial = path.with_name(f"{path.name}.part")
    torch.save(state, partial)
    partial.replace(path)


def read_state(path: Path) -> dict[str, Any]:
    """On the CPU: whoever loads it copies, and AdamW's counters stay there. ValueError for a file of something else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as exc:
        raise ValueError(f"{path} is not a checkpoint of a run: expected what training wrote there") from exc
    if not isinstance(state, dict) or "recipe" not in state:
        raise ValueError(f"{path} is not a checkpoint of a run: expected the keys 'recipe', 'network' and more")
    return state


def read_own_state(path: Path, recipe: Recipe) -> dict[str, Any]:
    state = read_state(path)
    if state["recipe"] != fingerprint(recipe):
        raise ValueError(f"{path} belongs to another recipe; delete the folder or choose another with --run")
    return state


def load_imagenet(network: SGNet, told: Network) -> None:
    """Raises FileNotFoundError or ValueError, naming the file."""
    if told.imagenet:
        path = Path(told.imagenet_file) if told.imagenet_file else imagenet_checkpoint(told.host)
        load_backbone(network.host, told.host, path)
    if told.trunk_file:
        assert network.branch is not None
        load_trunk(cast(StdcTrunk, network.branch.trunk), Path(told.trunk_file))


def computes_in_bfloat16(machine: Machine, device: torch.device) -> bool:
    """bfloat16 has float32's exponents, so no loss needs scaling."""
    return machine.precision == "bfloat16" or (machine.precision == "auto" and device.type == "cuda")


def compiled(
    forward: Callable[[Tensor, Tensor, Tensor], TrainingOutput], machine: Machine, device: torch.device
) -> Callable[[Tensor, Tensor, Tensor], TrainingOutput]:
    return torch.compile(forward) if machine.compile and device.type == "cuda" else forward


def in_float32(output: TrainingOutput) -> TrainingOutput:
    """Losses are summed over millions of pixels: more than bfloat16's 8 bits."""
    surround = None if output.surround is None else output.surround.float()
    return TrainingOutput(output.local.float(), surround, [(scores.float(), w) for scores, w in output.host])


def check_labels(pictures: Iterable[Picture], classes: int) -> None:
    """A label above the classes would train the wrong thing, or nothing. Raises ValueError.

    Of pictures in memory alone: those in files check what they read, and may be terabytes.
    """
    for picture in pictures:
        if not isinstance(picture, ArrayPicture):
            continue
        wrong = picture.ids[(picture.ids != IGNORE) & (picture.ids >= classes)]
        if wrong.size:
            raise ValueError(
                f"{picture.name}: label {wrong.max()}, but the data set has {classes} classes (0 to {classes - 1})"
            )


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
    """Two recipes that train differently never share one; how often to save or to look is no part of it."""
    told = asdict(recipe)
    for table, name in _WITHOUT_EFFECT:
        del told[table][name]
    return hashlib.sha256(repr(told).encode()).hexdigest()
