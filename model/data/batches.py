"""Crops, stacked into batches, in their order: drawn as they are needed, or ahead of it by processes of their own.

A GPU eats crops faster than one core cuts them. Crop number i is the same wherever it is drawn (`model.data.crops`),
so the batches are the same for any number of loaders.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from model.data.crops import Crop, CropSampler

_MOST_LOADERS = 12
_OTHER_PROCESSES = 2  # the one that feeds the GPU, and the rest of the machine


@dataclass(frozen=True, slots=True)
class Batch:
    """Pixels uint8 (B,3,t,t) and (B,3,S,S), labels int64 (B,t,t) and (B,S,S), offset (B,2)."""

    local: Tensor
    surround: Tensor
    local_labels: Tensor
    surround_labels: Tensor
    offset: Tensor


class Stack(NamedTuple):
    """What travels from a loader: surrounds uint8 (B,3,S,S), labels uint8 (B,S,S), offset int64 (B,2)."""

    images: Tensor
    labels: Tensor
    offset: Tensor


def draw_batches(
    sampler: CropSampler, size: int, start: int, stop: int, device: torch.device, loaders: int = 0
) -> Generator[Batch]:
    """Batches number start to stop - 1 of `size` crops each, on the device. loaders: processes; 0 = this one."""
    indices = range(start * size, stop * size)
    if loaders == 0:
        stacks: Iterable[Stack] = (
            stack([sampler.crop(i) for i in indices[at : at + size]]) for at in _starts(indices, size)
        )
    else:
        stacks = _loader(sampler, size, indices, device.type == "cuda", loaders)
    for stacked in stacks:
        yield place(stacked, sampler.tile_px, device)


def choose_loaders(told: int, device: torch.device) -> int:
    """told: a recipe's knob; -1 = as many as the cores of a GPU's machine can run, and none for a CPU."""
    if told >= 0:
        return told
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_LOADERS, cores - _OTHER_PROCESSES)) if device.type == "cuda" else 0


def stack(crops: list[Crop]) -> Stack:
    images = torch.from_numpy(np.stack([crop.image.transpose(2, 0, 1) for crop in crops]))
    labels = torch.from_numpy(np.stack([crop.labels for crop in crops]))
    return Stack(images, labels, torch.tensor([crop.offset for crop in crops]))


def place(stacked: Stack, tile_px: int, device: torch.device) -> Batch:
    """Onto the device; the local patches are cut there."""
    corners = stacked.offset.tolist()
    images, labels, offset = (part.to(device, non_blocking=True) for part in stacked)
    labels = labels.long()
    windows = [(slice(y, y + tile_px), slice(x, x + tile_px)) for y, x in corners]
    local = torch.stack([image[:, *window] for image, window in zip(images, windows, strict=True)])
    local_labels = torch.stack([ids[window] for ids, window in zip(labels, windows, strict=True)])
    return Batch(local, images, local_labels, labels, offset)


class _Crops(Dataset[Crop]):
    def __init__(self, sampler: CropSampler) -> None:
        self.sampler = sampler

    def __getitem__(self, index: int) -> Crop:
        return self.sampler.crop(index)


def _loader(sampler: CropSampler, size: int, indices: range, pinned: bool, loaders: int) -> Iterable[Stack]:
    return DataLoader(
        _Crops(sampler),
        batch_size=size,
        sampler=indices,
        num_workers=loaders,
        collate_fn=stack,
        pin_memory=pinned,
        multiprocessing_context="spawn",  # image libraries run threads, and those do not survive a fork
        generator=torch.Generator(),  # else it draws a number from the generator that training resumes with
    )


def _starts(indices: range, size: int) -> range:
    return range(0, len(indices), size)
