"""Jobs to look at: closed-form pixels and labels, running or published as the workers would leave them."""

from __future__ import annotations

import io
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from PIL import Image

from gigamask.geometry import Box, level_shape
from gigamask.image_info import ImageInfo
from gigamask.job import Job, JobOptions
from gigamask.plan import Plan
from gigamask.pyramid import ngff
from gigamask.pyramid.halve import halve_mean, halve_mode
from gigamask.pyramid.image import ImageWriter
from gigamask.pyramid.mask import MaskWriter, mask_folder
from gigamask.queue.job_store import JobStore
from gigamask.store import Store, new_id, partial, publish
from tests.service.conftest import CLASSES, MODEL, write_model

SHAPE = (1300, 1800)
REGION_PX = 512


def labels_of(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """(h, w): stripes of sea and land, 7 px high and wider to the right; no data in a corner."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = ((y // 7 + x // (5 + x // 300)) % 2).astype(np.uint8)
    labels[: shape[0] // 9, : shape[1] // 9] = 255
    return labels


def pixels_of(shape: tuple[int, int] = SHAPE, channels: int = 3) -> np.ndarray:
    """(channels, h, w): ramps; a 4th channel that has no data where the labels have none."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    bands = [x * 255 // shape[1], y * 255 // shape[0], (x + y) % 256, np.where(labels_of(shape) == 255, 0, 255)]
    return np.stack(bands[:channels]).astype(np.uint8)


def level_of(array: np.ndarray, level: int) -> np.ndarray:
    """A whole array, halved `level` times."""
    for _ in range(level):
        array = halve_mode(array) if array.ndim == 2 else halve_mean(array)
    return array


def write_image(store: Store, image_id: str, pixels: np.ndarray) -> ImageInfo:
    info = ImageInfo(height=pixels.shape[1], width=pixels.shape[2], channels=len(pixels), format="test")
    root = store.image_zarr(image_id)
    with ImageWriter(root, info) as writer:
        writer.append(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return info


@dataclass(frozen=True, slots=True)
class Running:
    """A job whose image has been read, and whose regions may be written one by one."""

    job: Job
    plan: Plan
    labels: np.ndarray
    writer: MaskWriter
    jobs: JobStore
    store: Store

    def write(self, indices: Collection[int]) -> None:
        for index in indices:
            region = self.plan.region(index)
            part = self.labels[region.box.slices]
            self.writer.write_region(region, part)
            values, counts = np.unique(part, return_counts=True)
            self.jobs.complete_region(self.job.id, index, dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def publish(self) -> Job:
        """Assembled, published and succeeded."""
        self.writer.build_upper_levels()
        root = partial(self.store.mask_zarr(self.job.id))
        copy_image(self.store, self.job, root)
        info = self.jobs.get(self.job.id).image
        assert info is not None
        manifest = write_model(self.store.root.parent / "models")
        told = ngff.label_attributes(info, self.plan.levels, manifest, {}, {})
        ngff.write_group(root / "labels", ngff.labels_attributes([MODEL]))
        ngff.write_group(mask_folder(root, MODEL), told)
        publish(self.store.mask_zarr(self.job.id))
        assert self.jobs.succeed(self.job.id)
        return self.jobs.get(self.job.id)


def copy_image(store: Store, job: Job, root: Any) -> None:
    import shutil

    shutil.copytree(store.image_zarr(job.image_id), root, dirs_exist_ok=True)


def run_job(
    jobs: JobStore,
    store: Store,
    labels: np.ndarray | None = None,
    channels: int = 3,
    region_px: int = REGION_PX,
    job: Job | None = None,
) -> Running:
    """job: one that was submitted before; None = a new one."""
    labels = labels_of() if labels is None else labels
    job = job or jobs.submit(new_id(), "a slide.tif", MODEL, JobOptions())
    jobs.start(job.id)
    info = write_image(store, job.image_id, pixels_of(labels.shape, channels))
    plan = Plan(labels.shape, 512, 2, region_px)
    writer = MaskWriter(mask_folder(partial(store.mask_zarr(job.id)), MODEL), plan)
    writer.create()
    jobs.start_segment(job.id, info, plan.region_px, plan.region_count)
    return Running(jobs.get(job.id), plan, labels, writer, jobs, store)


def published_job(jobs: JobStore, store: Store, labels: np.ndarray | None = None, channels: int = 3) -> Job:
    running = run_job(jobs, store, labels, channels)
    running.write(range(running.plan.region_count))
    return running.publish()


def picture(answer: httpx.Response) -> Image.Image:
    assert answer.status_code == 200, answer.text
    return Image.open(io.BytesIO(answer.content))


def colors_of(labels: np.ndarray) -> np.ndarray:
    """(h, w, 4): the model's colours; no data transparent."""
    table = np.zeros((256, 4), np.uint8)
    for entry in CLASSES:
        table[entry.id] = entry.rgba
    return table[labels]


__all__ = ["Box", "colors_of", "json", "labels_of", "level_shape", "published_job", "run_job"]
