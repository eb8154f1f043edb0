"""Three ways to run the same network over an image larger than it takes, each (3, H, W) uint8 -> (H, W) labels.

`by_regions` is Gigamask's. `mmseg_slide` follows the description of MMSegmentation's slide inference, `monai_window`
is MONAI's own `sliding_window_inference`. Without overlap, and where tiles divide the image, all three give the same
labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from gigamask.plan import plan_regions
from model.normalise import Normalise
from model.predictors import RegionPredictor
from model.sgnet import SGNet

Bytes = NDArray[np.uint8]


def by_regions(predictor: RegionPredictor, image: Bytes, region_px: int) -> Bytes:
    labels = np.empty(image.shape[1:], np.uint8)
    plan = plan_regions((image.shape[1], image.shape[2]), predictor.manifest, region_px)
    for region in plan.regions():
        labels[region.box.slices] = predictor.predict(image[:, *region.window.slices], region)
    return labels


def mmseg_slide(network: nn.Module, image: Bytes, classes: int, tile_px: int, device: torch.device) -> Bytes:
    with inference(device):
        return slide(network, to_input(image, device), classes, tile_px).cpu().numpy()


def slide(network: nn.Module, pixels: Tensor, classes: int, tile_px: int, most_tiles: int | None = None) -> Tensor:
    """As described: one tile a call; every tile's scores are padded to the whole image and added to one map of it; a
    map of counts divides them; the last tile is moved back into the image. pixels: (1, 3, H, W) -> (H, W)

    most_tiles: stop after so many, where only its memory is asked for.
    """
    height, width = pixels.shape[-2:]
    scores, counts = pixels.new_zeros((1, classes, height, width)), pixels.new_zeros((1, 1, height, width))
    rows, columns = ([min(start, n - tile_px) for start in range(0, n, tile_px)] for n in (height, width))
    for y, x in [(y, x) for y in rows for x in columns][:most_tiles]:
        tile = network(pixels[:, :, y : y + tile_px, x : x + tile_px])
        scores += F.pad(tile, (x, width - x - tile_px, y, height - y - tile_px))
        counts[:, :, y : y + tile_px, x : x + tile_px] += 1
    return (scores / counts).softmax(dim=1).argmax(dim=1)[0].to(torch.uint8)


def monai_window(network: nn.Module, image: Bytes, tile_px: int, batch: int, device: torch.device) -> Bytes:
    with inference(device):
        return window(network, to_input(image, device), tile_px, batch).cpu().numpy()


def window(network: nn.Module, pixels: Tensor, tile_px: int, batch: int) -> Tensor:
    """(1, 3, H, W) -> (H, W)"""
    from monai.inferers.utils import sliding_window_inference

    scores = sliding_window_inference(pixels, (tile_px, tile_px), batch, network, overlap=0.0)
    assert isinstance(scores, Tensor)
    return scores.argmax(dim=1)[0].to(torch.uint8)


def balance(network: SGNet) -> None:
    """Make every class as likely: untrained weights label all pixels alike, and then any two schemes would agree."""
    noise = torch.rand(1, 3, network.architecture.tile_px, network.architecture.tile_px) * 4 - 2
    bias = network.host.classifier.bias
    with torch.no_grad():
        bias -= network.host(noise).mean(dim=(0, 2, 3))


def to_input(image: Bytes, device: torch.device) -> Tensor:
    """(3, H, W) bytes -> (1, 3, H, W) float32, normalised, whole"""
    normalised: Tensor = Normalise().to(device)(torch.from_numpy(image).to(device)[None])
    return normalised


@contextmanager
def inference(device: torch.device) -> Iterator[None]:
    """As model.predictors.torch runs a network: bfloat16 on a GPU, float32 on a CPU."""
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, device.type == "cuda"):
        yield
