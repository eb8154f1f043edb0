"""The workers' loops over a real queue, with real pyramids and real models: whatever happens, the mask is the same."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from gigamask.geometry import Box
from gigamask.image_info import ReadOptions
from gigamask.job import Job, JobOptions, Stage, State
from gigamask.queue import keys
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.queue.stream import Delivery, WorkStream
from gigamask.settings import Settings
from gigamask.store import Store, new_id, partial
from tests.models_for_tests import THRESHOLD, threshold_model
from tests.pictures import picture, tree, write_image
from tests.slow_and_broken_models import broken_model, slow_model
from workers.loop import run_worker

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (1300, 1700)  # 3 x 4 regions of 512 px
REGIONS = 12


@pytest.fixture
def store(settings: Settings) -> Store:
    threshold_model(settings.models[0] / "threshold")
    return Store(settings.store)


def ingested(store: Store, channels: int = 3) -> str:
    """An image whose pyramid stands."""
    image_id = new_id()
    write_image(store.image_zarr(image_id), picture(SHAPE, channels))
    return image_id


def submitted(jobs: JobStore, image_id: str, model: str = "threshold") -> Job:
    return jobs.submit(image_id, "a.png", model, JobOptions(region_px=512))


def run_all(settings: Settings) -> None:
    for stage in Stage:
        run_worker(stage, settings, burst=True)


def mask_files(store: Store, job: Job) -> dict[str, bytes]:
    return tree(store.mask_zarr(job.id) / "labels" / job.model)


def mask_pixels(store: Store, job: Job) -> np.ndarray:
    from gigamask.pyramid.mask import mask_folder, read_mask

    return read_mask(mask_folder(store.mask_zarr(job.id), job.model), Box(0, 0, *SHAPE))


def wait_until(true: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def test_a_job_walks_through_three_workers_to_the_exact_mask(jobs: JobStore, settings: Settings, store: Store) -> None:
    job = submitted(jobs, ingested(store))
    run_all(settings)
    done = jobs.get(job.id)
    assert (done.state, done.stage) == (State.SUCCEEDED, Stage.ASSEMBLE)
    assert done.regions_done == done.regions_total == REGIONS
    expected = (picture(SHAPE)[..., 0] > THRESHOLD).astype(np.uint8)
    np.testing.assert_array_equal(mask_pixels(store, job), expected)
    assert done.areas_px == {0: int((expected == 0).sum()), 1: int((expected == 1).sum())}
    assert not partial(store.mask_zarr(job.id)).exists()


def test_pixels_without_data_are_counted_as_such(jobs: JobStore, settings: Settings, store: Store) -> None:
    job = submitted(jobs, ingested(store, channels=4))
    run_all(settings)
    done = jobs.get(job.id)
    assert sum(done.areas_px.values()) == SHAPE[0] * SHAPE[1]
    assert done.areas_px[255] == int((picture(SHAPE, 4)[..., 3] == 0).sum())


def test_several_workers_make_the_same_bytes_as_one(jobs: JobStore, settings: Settings, store: Store) -> None:
    image = ingested(store)
    alone, together = submitted(jobs, image), submitted(jobs, image)
    run_worker(Stage.INGEST, settings, burst=True)
    threads = [
        threading.Thread(target=run_worker, args=(stage, settings, True))
        for stage in (Stage.SEGMENT, Stage.SEGMENT, Stage.SEGMENT, Stage.ASSEMBLE)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run_worker(Stage.ASSEMBLE, settings, burst=True)
    assert jobs.get(alone.id).state == jobs.get(together.id).state == State.SUCCEEDED
    assert levels(mask_files(store, alone)) == levels(mask_files(store, together)) != {}


def levels(files: dict[str, bytes]) -> dict[str, bytes]:
    """The arrays, without the group's metadata."""
    return {name: content for name, content in files.items() if "/" in name}


def test_delivering_everything_twice_changes_nothing(
    jobs: JobStore, settings: Settings, store: Store, connection: Connection
) -> None:
    job = submitted(jobs, ingested(store))
    connection.call("XADD", keys.work(Stage.INGEST), "*", "job", job.id, "act", "ingest")
    run_worker(Stage.INGEST, settings, burst=True)
    for region in (0, 1, 1, 2):
        connection.call("XADD", keys.work(Stage.SEGMENT), "*", "job", job.id, "region", region)
    run_worker(Stage.SEGMENT, settings, burst=True)
    before = jobs.get(job.id)
    assert (before.regions_done, sum(before.areas_px.values())) == (REGIONS, SHAPE[0] * SHAPE[1])
    run_worker(Stage.ASSEMBLE, settings, burst=True)
    files = mask_files(store, job)
    for act in ("assemble", "assemble", "discard"):
        connection.call("XADD", keys.work(Stage.ASSEMBLE), "*", "job", job.id, "act", act)
    run_worker(Stage.ASSEMBLE, settings, burst=True)
    assert mask_files(store, job) == files
    assert jobs.get(job.id).state is State.SUCCEEDED


def test_a_worker_that_died_after_publishing_is_made_good(
    jobs: JobStore, settings: Settings, store: Store, connection: Connection
) -> None:
    """The mask stands, but nobody told it."""
    job = submitted(jobs, ingested(store))
    run_all(settings)
    connection.call("HSET", keys.job(job.id), "state", "running")
    connection.call("XADD", keys.work(Stage.ASSEMBLE), "*", "job", job.id, "act", "assemble")
    run_worker(Stage.ASSEMBLE, settings, burst=True)
    assert jobs.get(job.id).state is State.SUCCEEDED


@pytest.mark.parametrize("stages", [[], [Stage.INGEST], [Stage.INGEST, Stage.SEGMENT]])
def test_a_job_cancelled_at_any_stage_leaves_no_mask_and_no_work(
    jobs: JobStore, settings: Settings, store: Store, connection: Connection, stages: list[Stage]
) -> None:
    job = submitted(jobs, ingested(store))
    for stage in stages:
        run_worker(stage, settings, burst=True)
    assert partial(store.mask_zarr(job.id)).exists() == bool(stages)
    jobs.cancel(job.id)
    run_all(settings)
    assert jobs.get(job.id).state is State.CANCELLED
    assert [path.name for path in store.job(job.id).iterdir()] == ["job.json"]
    assert all(connection.call("XLEN", keys.work(stage)) == 0 for stage in Stage)


def test_a_late_writer_neither_spoils_nor_recreates_what_was_cancelled(
    jobs: JobStore, settings: Settings, store: Store
) -> None:
    """The job is cancelled and its remains are removed while regions of it are in hand."""
    job = submitted(jobs, ingested(store))
    run_worker(Stage.INGEST, settings, burst=True)
    stopping = threading.Event()
    worker = threading.Thread(target=run_worker, args=(Stage.SEGMENT, settings, False, stopping))
    worker.start()
    wait_until(lambda: jobs.get(job.id).regions_done > 0)
    jobs.cancel(job.id)
    run_worker(Stage.ASSEMBLE, settings, burst=True)
    wait_until(lambda: WorkStream(Connection(settings.redis_url), Stage.SEGMENT, 1).length() == 0)
    stopping.set()
    worker.join()
    assert [path.name for path in store.job(job.id).iterdir()] == ["job.json"]


def test_a_poisonous_region_fails_its_job_and_no_other(
    jobs: JobStore, settings: Settings, store: Store, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    broken_model(settings.models[0] / "broken")
    image = ingested(store)
    bad, good = submitted(jobs, image, "broken"), submitted(jobs, image)
    with caplog.at_level(logging.CRITICAL):
        run_all(settings)
    failed = jobs.get(bad.id)
    assert failed.state is State.FAILED and failed.error is not None
    assert failed.error.code == "region_failed" and failed.error.region is not None
    assert jobs.get(good.id).state is State.SUCCEEDED
    (_id, letter), *_more = connection.call("XRANGE", keys.DEAD, "-", "+")
    assert letter["job"] == bad.id and letter["deliveries"] == str(settings.max_attempts)
    assert not partial(store.mask_zarr(bad.id)).exists()


def uploaded(store: Store, write: Callable[[Path], object], name: str = "a.png") -> str:
    """An image as it came, not yet a pyramid."""
    image_id = new_id()
    path = store.image(image_id) / "source" / name
    path.parent.mkdir(parents=True)
    write(path)
    return image_id


def write_png(path: Path) -> None:
    Image.fromarray(picture(SHAPE)).save(path)


def test_an_uploaded_file_becomes_a_mask(jobs: JobStore, settings: Settings, store: Store) -> None:
    job = submitted(jobs, uploaded(store, write_png))
    run_all(settings)
    done = jobs.get(job.id)
    assert (done.state, done.ingest_fraction) == (State.SUCCEEDED, 1.0)
    assert done.image is not None and done.image.shape == SHAPE
    np.testing.assert_array_equal(mask_pixels(store, job), picture(SHAPE)[..., 0] > THRESHOLD)


def test_a_file_that_is_no_image_fails_its_job_at_once_and_leaves_nothing(
    jobs: JobStore, settings: Settings, store: Store, connection: Connection
) -> None:
    image_id = uploaded(store, lambda path: path.write_bytes(b"a poem, not a picture"))
    job = submitted(jobs, image_id)
    run_all(settings)
    failed = jobs.get(job.id)
    assert failed.error is not None and failed.error.code in ("bad_image", "unsupported_image")
    assert not store.image(image_id).exists()
    assert connection.call("XLEN", keys.DEAD) == 0


def test_two_jobs_on_one_upload_read_it_once(
    jobs: JobStore, settings: Settings, store: Store, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    image_id = uploaded(store, write_png)
    both = [submitted(jobs, image_id) for _ in range(2)]
    threads = [threading.Thread(target=run_worker, args=(Stage.INGEST, settings, True)) for _ in range(2)]
    with caplog.at_level(logging.INFO, "workers.queue_ingest"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [record.getMessage().split()[0] for record in caplog.records].count("reading") == 1
    assert {jobs.get(job.id).stage for job in both} == {Stage.SEGMENT}
    assert connection.call("KEYS", "gigamask:ingest:*") == connection.call("KEYS", "gigamask:waiting:*") == []


def test_a_job_cancelled_while_its_file_is_read_leaves_the_file_alone(
    jobs: JobStore, settings: Settings, store: Store
) -> None:
    side = 16_000
    rows = np.zeros((side, side), np.uint8)
    image_id = uploaded(store, lambda path: tifffile.imwrite(path, rows, compression="lzw", rowsperstrip=64), "a.tif")
    job = submitted(jobs, image_id)
    worker = threading.Thread(target=run_worker, args=(Stage.INGEST, settings, True))
    worker.start()
    wait_until(lambda: jobs.get(job.id).ingest_fraction > 0)
    jobs.cancel(job.id)
    worker.join()
    run_worker(Stage.ASSEMBLE, settings, burst=True)
    assert jobs.get(job.id).state is State.CANCELLED
    assert [path.name for path in store.image(image_id).iterdir()] == ["source"]
    assert [path.name for path in store.job(job.id).iterdir()] == ["job.json"]


def test_an_unknown_model_fails_the_job_at_once(jobs: JobStore, settings: Settings, store: Store) -> None:
    job = submitted(jobs, ingested(store), "nowhere")
    run_worker(Stage.INGEST, settings, burst=True)
    failed = jobs.get(job.id)
    assert failed.error is not None and failed.error.code == "unknown_model"


def test_an_image_that_is_gone_fails_the_job_at_once(jobs: JobStore, settings: Settings, store: Store) -> None:
    job = submitted(jobs, new_id())
    run_worker(Stage.INGEST, settings, burst=True)
    failed = jobs.get(job.id)
    assert failed.error is not None and failed.error.code == "unknown_image"


def environment(settings: Settings) -> dict[str, str]:
    return os.environ | {
        "GIGAMASK_STORE": str(settings.store),
        "GIGAMASK_MODELS": ":".join(map(str, settings.models)),
        "GIGAMASK_REDIS_URL": settings.redis_url,
        "GIGAMASK_LEASE_S": "1",
        "PYTHONPATH": str(ROOT),
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_a_worker_process(
    jobs: JobStore, settings: Settings, store: Store, connection: Connection, number: signal.Signals
) -> None:
    """What it held is finished and acknowledged, the rest is left, and it ends with 0."""
    slow_model(settings.models[0] / "slow")
    job = submitted(jobs, ingested(store), "slow")
    run_worker(Stage.INGEST, settings, burst=True)
    command = [sys.executable, "-m", "cli.main", "worker", "segment"]
    worker = subprocess.Popen(command, env=environment(settings), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: jobs.get(job.id).regions_done > 0)
    worker.send_signal(number)
    _out, said = worker.communicate(timeout=30)
    assert worker.returncode == 0, said
    pending = connection.call("XPENDING", keys.work(Stage.SEGMENT), keys.GROUP)
    assert pending["pending"] == 0
    assert connection.call("XLEN", keys.work(Stage.SEGMENT)) > 0
    run_worker(Stage.SEGMENT, settings, burst=True)
    run_worker(Stage.ASSEMBLE, settings, burst=True)
    assert jobs.get(job.id).state is State.SUCCEEDED


def test_an_ingest_that_is_told_to_stop_is_put_back_at_once_and_counts_as_not_tried(
    jobs: JobStore, settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.zeros((SLOW_SIDE, SLOW_SIDE), np.uint8)
    image_id = uploaded(store, lambda path: tifffile.imwrite(path, rows, compression="lzw", rowsperstrip=64), "a.tif")
    job = jobs.submit(image_id, "a.tif", "threshold", JobOptions())
    command = [sys.executable, "-m", "cli.main", "worker", "ingest"]
    worker = subprocess.Popen(command, env=environment(settings), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: jobs.get(job.id).ingest_fraction > 0)
    worker.send_signal(signal.SIGTERM)
    _out, said = worker.communicate(timeout=2)
    assert worker.returncode == 0, said
    assert [path.name for path in store.image(image_id).iterdir()] == ["source"]
    assert jobs.get(job.id).stage is Stage.INGEST
    tifffile.imwrite(store.image_source(image_id), rows[:512, :512])  # soon read, this time
    tried: list[int] = []
    claim = WorkStream.claim

    def noted(stream: WorkStream, consumer: str, block_ms: int) -> Delivery | None:
        delivery = claim(stream, consumer, block_ms)
        tried.extend([delivery.deliveries] if delivery else [])
        return delivery

    monkeypatch.setattr(WorkStream, "claim", noted)
    run_worker(Stage.INGEST, settings, burst=True)
    assert jobs.get(job.id).stage is Stage.SEGMENT
    assert tried == [1]


SLOW_SIDE = 16_000


def test_an_image_is_read_one_way_and_a_job_that_asks_for_another_fails(
    jobs: JobStore, settings: Settings, store: Store
) -> None:
    """All were submitted before the image was read."""
    image_id = uploaded(store, write_png)
    asked = [ReadOptions(pixel_size_um=0.25), ReadOptions(pixel_size_um=0.5), ReadOptions()]
    first, other, easy = (
        jobs.submit(image_id, "a.png", "threshold", JobOptions(region_px=512, read=read)) for read in asked
    )
    run_all(settings)
    failed = jobs.get(other.id)
    assert failed.error is not None and failed.error.code == "invalid_option"
    assert "pixel_size_um 0.25, not 0.5" in failed.error.detail
    for job in (first, easy):
        assert jobs.get(job.id).state is State.SUCCEEDED
        told = json.loads((store.mask_zarr(job.id) / "zarr.json").read_text())["attributes"]["gigamask"]
        assert told["provenance"]["options"]["read"]["pixel_size_um"] == 0.25


def test_a_job_whose_record_cannot_be_read_stops_no_other(
    jobs: JobStore, settings: Settings, store: Store, connection: Connection
) -> None:
    bad, good = submitted(jobs, ingested(store)), submitted(jobs, ingested(store))
    connection.call("HSET", keys.job(bad.id), "fixed", connection.call("HGET", keys.job(bad.id), "fixed")[:-5])
    store.job_record(bad.id).unlink()
    run_all(settings)
    assert jobs.get(good.id).state is State.SUCCEEDED
    assert connection.call("XLEN", keys.work(Stage.INGEST)) == 0
