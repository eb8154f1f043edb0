"""A network in training, judged on the pictures that its data set keeps for that: tile by tile, as it will be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gigamask.manifest import LabelClass, ModelManifest
from model.data.pictures import Picture
from model.deployed import context_rule
from model.measurement import Report, measure
from model.normalise import IMAGENET_MEAN, IMAGENET_STD
from model.predictors import tile_predictor
from model.predictors.torch import TorchNetwork
from model.sgnet import SGNet

_REGION_PX = 1024  # or one tile, where that is larger; changes no label


@dataclass(frozen=True, slots=True)
class Validation:
    pictures: Sequence[Picture]
    classes: tuple[LabelClass, ...]

    def judge(
        self,
        network: SGNet,
        context: str,
        device: torch.device,
        told: Callable[[float], None] = lambda fraction: None,
    ) -> Report:
        """context: the mode in which tiles come by their surroundings. told: called with the fraction done.

        The network comes back as it was: no weight, no statistic, no mode and no random number is touched.
        """
        manifest = describe_untrained(network, self.classes, context)
        with unchanged(network, device):
            live = TorchNetwork(network, manifest, device="cuda" if device.type == "cuda" else "cpu")
            return measure(
                self.pictures,
                self.classes,
                tile_predictor(manifest, live),
                max(_REGION_PX, manifest.tile_px),
                seams=False,
                told=told,
            )


def describe_untrained(network: SGNet, classes: tuple[LabelClass, ...], context: str) -> ModelManifest:
    """A manifest without files, for a network that is in memory alone."""
    told = network.architecture
    return ModelManifest(
        name="in-training",
        version="0",
        tile_px=told.tile_px,
        alpha=told.alpha,
        context=context_rule(context, told.surround),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        classes=classes,
        files={},
        license="-",
    )


@contextmanager
def unchanged(network: SGNet, device: torch.device) -> Iterator[None]:
    training = network.training
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            network.train(training)
