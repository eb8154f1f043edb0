"""Tiles of image and mask over HTTP: every one is exactly the pixels or the labels that it stands for."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from PIL import Image

from gigamask.geometry import level_shape
from gigamask.job import Job
from gigamask.queue.job_store import JobStore
from gigamask.store import Store
from tests.service.looking import SHAPE, colors_of, labels_of, level_of, picture, pixels_of, published_job

LAST = 11  # ceil(log2(1800))


@pytest.fixture
def job(jobs: JobStore, store: Store) -> Job:
    return published_job(jobs, store)


async def joined(client: httpx.AsyncClient, job: Job, layer: str, level: int, fmt: str, query: str = "") -> np.ndarray:
    """A whole DZI level from its tiles, (h, w, 4)."""
    height, width = level_shape(SHAPE, LAST - level)
    whole = np.zeros((height, width, 4), np.uint8)
    for row in range(-(-height // 256)):
        for col in range(-(-width // 256)):
            answer = await client.get(f"/jobs/{job.id}/{layer}_files/{level}/{col}_{row}.{fmt}{query}")
            tile = np.asarray(picture(answer).convert("RGBA"))
            part = whole[row * 256 : (row + 1) * 256, col * 256 : (col + 1) * 256]
            assert tile.shape == part.shape
            part[:] = tile
    return whole


async def test_the_tiles_of_a_level_join_to_the_whole_mask(client: httpx.AsyncClient, job: Job) -> None:
    for level in range(LAST + 1):
        expected = colors_of(level_of(labels_of(), LAST - level))
        for fmt in ("png", "webp"):
            np.testing.assert_array_equal(await joined(client, job, "mask", level, fmt), expected, f"{level} {fmt}")


async def test_the_tiles_of_a_level_join_to_the_whole_image(client: httpx.AsyncClient, job: Job) -> None:
    for level in range(LAST + 1):
        expected = level_of(pixels_of(), LAST - level).transpose(1, 2, 0)
        tiles = await joined(client, job, "image", level, "png")
        np.testing.assert_array_equal(tiles[..., :3], expected, str(level))
        assert (tiles[..., 3] == 255).all()


async def test_a_mask_tile_is_a_small_palette_picture(client: httpx.AsyncClient, job: Job) -> None:
    answer = await client.get(f"/jobs/{job.id}/mask_files/{LAST}/0_0.png")
    tile = picture(answer)
    assert tile.mode == "P"
    assert answer.headers["Content-Type"] == "image/png"
    assert len(answer.content) < 256 * 256 / 8
    assert isinstance(tile, Image.Image)


async def test_the_class_of_a_pixel(client: httpx.AsyncClient, job: Job) -> None:
    labels = labels_of()
    for y, x in ((0, 0), (1299, 1799), (700, 900), (701, 905)):
        told = (await client.get(f"/jobs/{job.id}/label?x={x}&y={y}")).json()
        names = {0: ("sea", "#0000ff"), 1: ("land", "#00ff00"), 255: ("no data", None)}
        label = int(labels[y, x])
        assert told == {"label": label, "name": names[label][0], "color": names[label][1]}
