"""The app in-process through ASGI, and the same app in its own process behind a real socket."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from fastapi import FastAPI

from gigamask.image_info import ImageInfo
from gigamask.job import Job, JobOptions
from gigamask.manifest import MANIFEST_NAME, LabelClass, ModelFile, ModelManifest, ModelShelf
from gigamask.plan import Plan
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store, new_id, partial, publish
from service.app import create_app
from tests.redis_for_tests import connection, jobs, redis_url, settings

__all__ = ["connection", "jobs", "redis_url", "settings"]

MODEL = "land"
CLASSES = (LabelClass(id=0, name="sea", color="#0000ff"), LabelClass(id=1, name="land", color="#00ff00"))


def write_model(models: Path, name: str = MODEL) -> ModelManifest:
    """A manifest alone: the service never opens weights."""
    manifest = ModelManifest(
        name=name, version="1", tile_px=512, alpha=2, mean=(0, 0, 0), std=(1, 1, 1), classes=CLASSES,
        files={"onnx": ModelFile(path="model.onnx", sha256="0" * 64)}, license="Apache-2.0",
    )  # fmt: skip
    folder = models / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json())
    return manifest


def bare_app() -> FastAPI:
    """An app whose Redis and store are not there: for what needs neither."""
    settings = Settings(store=Path("absent"), redis_url="unix:///absent/redis.sock")
    store = Store(settings.store)
    return create_app(settings, store, JobStore(Connection(settings.redis_url), store, settings), ModelShelf(()))


@pytest.fixture
def store(settings: Settings) -> Store:
    write_model(settings.models[0])
    return Store(settings.store)


@pytest.fixture
def app(settings: Settings, store: Store, jobs: JobStore) -> FastAPI:
    return create_app(settings, store, jobs, ModelShelf(settings.models))


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://gigamask")


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def kept_files(store: Store) -> list[str]:
    """Everything under uploads/ and images/, folders too."""
    return sorted(
        path.relative_to(store.root).as_posix()
        for top in ("uploads", "images")
        for path in (store.root / top).rglob("*")
    )


# -- a job whose result is published

SHAPE = (1100, 700)
INFO = ImageInfo(height=SHAPE[0], width=SHAPE[1], channels=3, format="test", pixel_size=(0.5, 0.5), unit="micrometer")


def expected_labels() -> np.ndarray:
    """(h, w): sea, with a square of land in the middle, and no data in the last rows."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[300:800, 200:500] = 1
    labels[1024:] = 255
    return labels


def publish_job(jobs: JobStore, store: Store, file_name: str = "a slide.tif") -> Job:
    """As the workers do, but without them: the last region is not written, so its chunks are absent."""
    from gigamask.pyramid.mask import MaskWriter, mask_folder

    job = jobs.submit(new_id(), file_name, MODEL, JobOptions())
    jobs.start(job.id)
    plan = Plan(SHAPE, 512, 2, 512)
    jobs.start_segment(job.id, INFO, plan.region_px, plan.region_count)
    root = partial(store.mask_zarr(job.id))
    writer = MaskWriter(mask_folder(root, MODEL), plan)
    writer.create()
    labels = expected_labels()
    for region in plan.regions():
        part = labels[region.box.slices]
        skipped = bool((part == 255).all())
        if not skipped:
            writer.write_region(region, part)
        values, counts = np.unique(part, return_counts=True)
        jobs.complete_region(
            job.id, region.index, dict(zip(values.tolist(), counts.tolist(), strict=True)), skipped=skipped
        )
    writer.build_upper_levels()
    for group in (root, root / "labels", root / "labels" / MODEL):
        (group / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    publish(store.mask_zarr(job.id))
    assert jobs.succeed(job.id)
    return jobs.get(job.id)


# -- the service as a process


@dataclass(frozen=True, slots=True)
class Served:
    url: str
    store: Store
    process: psutil.Process

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


@contextmanager
def serving(settings: Settings, wrap: tuple[str, ...] = (), shutdown_s: int = 1, **more: object) -> Iterator[Served]:
    """`service.server.run` in its own process, on a free port, until the end of the block."""
    chosen = settings.model_dump() | {"port": 0} | more
    chosen["models"] = ":".join(map(str, settings.models))
    environment = os.environ | {f"GIGAMASK_{name.upper()}": str(value) for name, value in chosen.items()}
    imports = "from service.server import run; from gigamask.settings import Settings"
    code = f"{imports}; run(Settings(), shutdown_s={shutdown_s})"
    with subprocess.Popen([*wrap, sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            assert "listens on" in line, line
            parent = psutil.Process(process.pid)
            server = (parent.children(recursive=True) or [parent])[-1] if wrap else parent
            yield Served(line.split()[-1], Store(settings.store), server)
        finally:
            inside = psutil.Process(process.pid).children(recursive=True) if wrap else []
            for each in (*inside, process):  # a wrapper passes no signal on
                each.terminate()
            process.wait(30)
            psutil.wait_procs(inside, 30)


@pytest.fixture
def served(settings: Settings, store: Store, connection: Connection) -> Iterator[Served]:
    with serving(settings) as served:
        yield served
