"""Peak memory of ingest and of a segment worker as the image grows: it must not grow with it.

Each step runs in a process of its own, whose resident set is polled.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.peak import peak_of
from benchmarks.pictures import Layout, write_picture

SIDES_PX = {0.25: 15_872, 1.0: 31_744, 4.0: 63_488}  # gigapixels -> side


def measure(gigapixels: list[float], layouts: list[Layout], model: str, regions: int) -> list[dict[str, float | str]]:
    """One row a picture: ingest's seconds, MP/s, peak MiB; the worker's peak MiB over its first `regions` regions."""
    rows = []
    for layout in layouts:
        for size in gigapixels:
            with tempfile.TemporaryDirectory(prefix="gigamask-bench-") as folder:
                rows.append(_measure_one(Path(folder), SIDES_PX[size], layout, model, regions))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def _measure_one(folder: Path, side_px: int, layout: Layout, model: str, regions: int) -> dict[str, float | str]:
    picture, zarr_root = folder / "picture.tif", folder / "image.zarr"
    write_picture(picture, side_px, layout)
    ingest = peak_of([sys.executable, "-m", "benchmarks.steps", "ingest", str(picture), str(zarr_root)])
    size = picture.stat().st_size
    picture.unlink()
    worker = peak_of(
        [sys.executable, "-m", "benchmarks.steps", "segment", str(zarr_root), model, str(regions)], dict(os.environ)
    )
    shutil.rmtree(zarr_root)
    return {
        "layout": layout,
        "gigapixels": round(side_px**2 / 1e9, 2),
        "file_mb": round(size / 1e6),
        "ingest_s": round(ingest.seconds, 1),
        "ingest_mp_per_s": round(side_px**2 / 1e6 / ingest.seconds, 1),
        "ingest_rss_mib": round(ingest.rss_mib),
        "ingest_tree_mib": round(ingest.tree_mib),
        "worker_rss_mib": round(worker.rss_mib),
        "worker_regions": regions,
    }
