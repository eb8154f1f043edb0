"""SIGKILL at any moment changes nothing: another worker takes over after the lease, and the mask has the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile

from gigamask.job import Job, JobOptions, Stage, State
from gigamask.queue import keys
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store, new_id, partial
from tests.pictures import picture, tree, write_image
from tests.slow_and_broken_models import slow_model

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (1300, 1700)
LEASE_S = 1.0
KILLS = 3


@contextmanager
def worker(stage: Stage, settings: Settings, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {
        "GIGAMASK_STORE": str(settings.store),
        "GIGAMASK_MODELS": ":".join(map(str, settings.models)),
        "GIGAMASK_REDIS_URL": settings.redis_url,
        "GIGAMASK_LEASE_S": str(LEASE_S),
        "GIGAMASK_MAX_ATTEMPTS": "20",
        "GIGAMASK_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "worker", stage, *arguments],
        env=environment,
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finish(settings: Settings, *stages: Stage) -> None:
    for stage in stages:
        with worker(stage, settings, "--burst") as process:
            assert process.wait(60) == 0


def wait_until(true: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def mask_files(store: Store, job: Job) -> dict[str, bytes]:
    """Every file of the result, without what says which job and when."""
    files = tree(store.mask_zarr(job.id))
    return {name: content for name, content in files.items() if "/c/" in name}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
def test_a_segment_worker_killed_in_the_midst_of_regions_leaves_the_same_bytes(
    jobs: JobStore, settings: Settings, connection: Connection
) -> None:
    store, image_id = Store(settings.store), new_id()
    slow_model(settings.models[0] / "slow")
    write_image(store.image_zarr(image_id), picture(SHAPE))
    first, second = (jobs.submit(image_id, "a.png", "slow", JobOptions(region_px=512)) for _ in range(2))
    moments = random.Random(7)

    finish(settings, Stage.INGEST)
    for _ in range(KILLS):
        before = regions_done(jobs, first, second)
        with worker(Stage.SEGMENT, settings) as victim:
            wait_until(lambda before=before: regions_done(jobs, first, second) > before)
            time.sleep(moments.uniform(0, 0.2))
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
        assert connection.call("XPENDING", keys.work(Stage.SEGMENT), keys.GROUP)["pending"] > 0, "nothing was in hand"
    finish(settings, Stage.SEGMENT, Stage.ASSEMBLE)

    calm = jobs.submit(image_id, "a.png", "slow", JobOptions(region_px=512))
    finish(settings, Stage.INGEST, Stage.SEGMENT, Stage.ASSEMBLE)
    expected = mask_files(store, calm)
    assert any("labels/slow/0/c/" in name for name in expected)
    for job in (first, second):
        done = jobs.get(job.id)
        assert done.state is State.SUCCEEDED
        assert done.areas_px == jobs.get(calm.id).areas_px
        assert mask_files(store, job) == expected
        assert not partial(store.mask_zarr(job.id)).exists()


def regions_done(jobs: JobStore, *some: Job) -> int:
    return sum(jobs.get(job.id).regions_done for job in some)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the decoding child that its worker died")
def test_an_ingest_worker_killed_while_it_reads_is_made_good(
    jobs: JobStore, settings: Settings, connection: Connection
) -> None:
    """Another job waits for the same image meanwhile; both get it."""
    store, image_id, side = Store(settings.store), new_id(), 6000
    path = store.image(image_id) / "source" / "a.tif"
    path.parent.mkdir(parents=True)
    tifffile.imwrite(path, np.zeros((side, side), np.uint8), compression="lzw", rowsperstrip=16)
    first, second = (jobs.submit(image_id, "a.tif", "slow", JobOptions(region_px=4096)) for _ in range(2))
    slow_model(settings.models[0] / "slow")

    image = store.image(image_id)
    with worker(Stage.INGEST, settings) as victim:
        wait_until(lambda: any(image.glob("image.zarr.*.partial/0")))
        os.kill(victim.pid, signal.SIGKILL)
        victim.wait()
    assert not store.image_zarr(image_id).exists(), "it was read before the worker was killed"
    finish(settings, Stage.INGEST)
    assert {jobs.get(job.id).stage for job in (first, second)} == {Stage.SEGMENT}
    assert [entry.name for entry in image.glob("image.zarr*")] == ["image.zarr"]
    assert connection.call("KEYS", "gigamask:ingest:*") == []
