"""The whole job against the model alone: the same tiles, the same engine, the same threads, in one run.

`model` is the network on tiles that are already in memory; `job` is ingest, segment and assemble of the file.
Both are measured alternately and the medians compared, since machines are noisy.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

from gigamask.job import JobOptions
from gigamask.manifest import ModelShelf
from gigamask.plan import plan_regions
from gigamask.pyramid.image import ImagePyramid
from gigamask.settings import Settings


def measure(picture: Path, model: str, repeats: int) -> dict[str, object]:
    """Raises what the job raises."""
    from workers.local import segment_image

    settings = Settings()
    folder = ModelShelf(settings.models).folder(model)
    jobs, models, stages = [], [], []
    with tempfile.TemporaryDirectory(prefix="gigamask-bench-") as scratch:
        for repeat in range(repeats):
            out = Path(scratch) / f"{repeat}.zarr"
            report = segment_image(picture, folder, out, JobOptions(), settings)
            jobs.append(report.seconds)
            stages.append(report.stage_seconds)
            models.append(_model_seconds(out, folder, settings))
            shutil.rmtree(out)
    job, alone = statistics.median(jobs), statistics.median(models)
    return {
        "picture": picture.name,
        "megapixels": round(report.megapixels, 1),
        "model": model,
        "job_s": round(job, 2),
        "job_mp_per_s": round(report.megapixels / job, 3),
        "model_s": round(alone, 2),
        "model_mp_per_s": round(report.megapixels / alone, 3),
        "job_over_model": round(job / alone, 3),
        "stages_s": {name: round(statistics.median(s[name] for s in stages), 2) for name in stages[0]},
        "repeats": repeats,
    }


def _model_seconds(zarr_root: Path, folder: Path, settings: Settings) -> float:
    """The network alone on every tile of the picture, cut before the clock starts. Loading it is not counted."""
    from model.predictors import load_predictor
    from model.predictors.tiles import TilePredictor, cut_tiles

    predictor = load_predictor(folder, "onnx", settings.batch_tiles, settings.threads or None)
    assert isinstance(predictor, TilePredictor)
    image = ImagePyramid(zarr_root)
    spent = 0.0
    for region in plan_regions(image.info.shape, predictor.manifest, None).regions():
        window = image.read(region.window)[:3]
        for start in range(0, len(region.tiles), predictor.batch):
            batch = cut_tiles(window, region.window, region.tiles[start : start + predictor.batch], predictor.manifest)
            started = time.perf_counter()
            predictor.network.labels(batch)
            spent += time.perf_counter() - started
    return spent
