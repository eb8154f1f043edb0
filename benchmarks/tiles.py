"""Tiles at many viewers: how long one takes, kept and drawn anew, and whether the service's memory stays flat.

A viewer looks at a screenful of 12 tiles (six places, image and mask), asks for them over six connections as a browser
does, waits a second once all are there, and moves on. Viewers are a process of their own, on the same cores.
`python -m benchmarks.tiles PORT JOB KIND VIEWERS SECONDS` is that process.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np

from benchmarks.peak import MIB
from benchmarks.pictures import picture_path
from benchmarks.service import Service, serving
from gigamask.image_info import ImageInfo
from gigamask.job import JobOptions
from gigamask.manifest import ModelManifest, ModelShelf
from gigamask.plan import Plan
from gigamask.pyramid import ngff
from gigamask.pyramid.image import ImagePyramid, ImageWriter
from gigamask.pyramid.mask import MaskWriter, mask_folder
from gigamask.queue.job_store import open_jobs
from gigamask.settings import SHIPPED_MODELS, Settings
from gigamask.store import Store, new_id, publish

VIEWERS, THINK_S, CONNECTIONS = 50, 1.0, 6
WARM_S = 3.0  # everything is opened, and what is to be kept is kept
SCREEN = (2, 3)  # rows and columns of a screenful, each an image's and a mask's tile
SIDE_PX, LAST_LEVEL = 16_384, 14
KEPT_TILES = 8  # the square of tiles, a side, that viewers of kept tiles look at
FLAT_TILES = 20_000
MODEL = "earth-water"

Place = tuple[int, int, int]


# -- the viewers' process


def places(kind: str, draw: random.Random) -> list[Place]:
    """(level, column, row) of a screenful. kept: from a small square that all look at. cold: anywhere, at any zoom."""
    level = LAST_LEVEL if kind == "kept" else draw.randint(LAST_LEVEL - 3, LAST_LEVEL)
    across = KEPT_TILES if kind == "kept" else 1 << (level - 8)
    row, col = draw.randrange(max(1, across - SCREEN[0])), draw.randrange(max(1, across - SCREEN[1]))
    return [(level, col + x, row + y) for y in range(SCREEN[0]) for x in range(SCREEN[1])]


def paths(job: str, chosen: list[Place]) -> Iterator[str]:
    for level, col, row in chosen:
        yield f"/jobs/{job}/image_files/{level}/{col}_{row}.jpg"
        yield f"/jobs/{job}/mask_files/{level}/{col}_{row}.png"


class Connection:
    """One kept-alive HTTP/1.1 connection; as little work as can be, for it shares the service's cores."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, path: str) -> float:
        """Seconds until the last byte. Raises RuntimeError for anything but a tile."""
        started = time.perf_counter()
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: tiles\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        await self._reader.readexactly(length)
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            raise RuntimeError(f"{path}: {head.splitlines()[0].decode()}")
        return time.perf_counter() - started


async def look(port: int, job: str, kind: str, seed: int, until: float, took: list[tuple[float, float]]) -> None:
    """One viewer. took: when each of its tiles came, and how long that took."""
    draw = random.Random(seed)
    connections = [await Connection.open(port) for _ in range(CONNECTIONS)]
    await asyncio.sleep(draw.random() * THINK_S)
    while time.perf_counter() < until:
        wanted = list(paths(job, places(kind, draw)))

        async def fetch(connection: Connection, wanted: list[str] = wanted) -> None:
            while wanted:
                seconds = await connection.get(wanted.pop(0))
                took.append((time.perf_counter(), seconds))

        await asyncio.gather(*(fetch(connection) for connection in connections))
        await asyncio.sleep(THINK_S)


async def look_all(port: int, job: str, kind: str, viewers: int, seconds: float) -> dict[str, float]:
    took: list[tuple[float, float]] = []
    started, seeds = time.perf_counter() + WARM_S, random.randrange(1 << 30)
    await asyncio.gather(*(look(port, job, kind, seeds + i, started + seconds, took) for i in range(viewers)))
    counted = [each for when, each in took if when > started]
    span, cuts = time.perf_counter() - started, statistics.quantiles(counted, n=100)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "tiles": len(took),
        "tiles_per_s": len(counted) / span,
        "p50_ms": cuts[49] * 1e3,
        "p95_ms": cuts[94] * 1e3,
        "p99_ms": cuts[98] * 1e3,
        "viewers_cpu_ms_per_tile": (used.ru_utime + used.ru_stime) * 1e3 / len(took),
    }


# -- what they look at


def publish_picture(settings: Settings, side_px: int = SIDE_PX) -> str:
    """A job whose image is NASA's shaded relief, repeated, and whose mask is told by its blue. Returns the job's id."""
    store, jobs = Store(settings.store), open_jobs(settings)
    manifest = ModelShelf(settings.models).manifest(MODEL)
    job = jobs.submit(new_id(), "relief.jpg", MODEL, JobOptions())
    info = ImageInfo(height=side_px, width=side_px, channels=3, format="jpeg")
    root = store.mask_zarr(job.id).with_name("mask.zarr.partial")
    _write_image(root, info)
    _write_mask(root, manifest, info)
    publish(store.mask_zarr(job.id))
    return job.id


def _write_image(root: Path, info: ImageInfo) -> None:
    import pyvips

    cell = pyvips.Image.new_from_file(str(picture_path())).copy_memory()
    across, down = -(-info.width // cell.width), -(-info.height // cell.height)
    picture = cell.replicate(across, down)
    with ImageWriter(root, info) as writer:
        for y in range(0, info.height, 1024):
            rows = picture.crop(0, y, info.width, min(1024, info.height - y))
            writer.append(np.frombuffer(rows.write_to_memory(), np.uint8).reshape(rows.height, rows.width, 3))


def _write_mask(root: Path, manifest: ModelManifest, info: ImageInfo) -> None:
    image, plan = ImagePyramid(root), Plan(info.shape, 512, 2, 2048)
    writer = MaskWriter(mask_folder(root, manifest.name), plan)
    writer.create()
    for region in plan.regions():
        red, _, blue = image.read(region.box)
        writer.write_region(region, (blue > red).astype(np.uint8))
    writer.build_upper_levels()
    ngff.write_group(root / "labels", ngff.labels_attributes([manifest.name]))
    told = ngff.label_attributes(info, plan.levels, manifest, {}, {})
    ngff.write_group(mask_folder(root, manifest.name), told)


# -- the measurement


def measure(repeats: int, seconds: float, flat_tiles: int = FLAT_TILES) -> dict[str, object]:
    """Latencies are medians over the repeats; the resident set is read after every quarter of `flat_tiles`."""
    with tempfile.TemporaryDirectory(prefix="gigamask-bench-") as folder:
        store = Path(folder) / "store"
        found: dict[str, object] = {}
        for kind, cache_bytes in (("kept", 64 * MIB), ("cold", 0)):
            with serving(store, tile_cache_bytes=cache_bytes) as service:
                job = _job_in(store, service.redis_url)
                rows = [_watch(service, job, kind, seconds) for _ in range(repeats)]
                found[kind] = {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}
        with serving(store) as service:
            found["rss_mib"] = _resident(service, _job_in(store, service.redis_url), flat_tiles)
    return found


def _job_in(store: Path, redis_url: str) -> str:
    known = sorted(path.parent.name for path in store.glob("jobs/*/mask.zarr"))
    return known[0] if known else publish_picture(Settings(store=store, redis_url=redis_url, models=(SHIPPED_MODELS,)))


def _watch(service: Service, job: str, kind: str, seconds: float) -> dict[str, float]:
    before = service.process.cpu_times()
    port = service.url.rsplit(":", 1)[1]
    words = [sys.executable, "-m", "benchmarks.tiles", port, job, kind, str(VIEWERS), str(seconds)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    after = service.process.cpu_times()
    row: dict[str, float] = json.loads(done.stdout)
    used_s = after.user + after.system - before.user - before.system
    return row | {"service_cpu_ms_per_tile": used_s * 1e3 / row["tiles"]}


def _resident(service: Service, job: str, count: int) -> list[int]:
    """MiB after each quarter of `count` tiles, no tile twice."""
    side = 1 << (LAST_LEVEL - 8)
    every = ((LAST_LEVEL - k, x, y) for k in range(8) for y in range(side >> k) for x in range(side >> k))
    wanted = [path for place in every for path in paths(job, [place])]
    wanted = (wanted * (-(-count // len(wanted))))[:count]
    marks = []
    with httpx.Client(base_url=service.url) as client:
        for number, path in enumerate(wanted, start=1):
            client.get(f"{path}?v={number}").raise_for_status()
            if number % (count // 4) == 0:
                marks.append(service.process.memory_info().rss // MIB)
    return marks


if __name__ == "__main__":
    port_, job_, kind_, viewers_, seconds_ = sys.argv[1:]
    print(json.dumps(asyncio.run(look_all(int(port_), job_, kind_, int(viewers_), float(seconds_)))))
