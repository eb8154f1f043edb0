"""`python -m model.evaluate DATASET --model FOLDER`: IoU per class on pixels that training never saw."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gigamask.geometry import Box
from gigamask.plan import Plan, Region
from model.data.datasets import Dataset, find_dataset
from model.metrics import confusion, iou
from model.predictors import RegionPredictor, load_predictor

app = typer.Typer(add_completion=False)


@app.command()
def evaluate(
    dataset: Annotated[str, typer.Argument(help="earth")],
    model: Annotated[Path, typer.Option(help="a model folder, such as models/earth-water")],
    engine: Annotated[str, typer.Option(help="onnx or torch")] = "onnx",
    batch: Annotated[int, typer.Option(help="tiles a batch")] = 4,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves the engine's choice")] = 0,
    region_px: Annotated[int, typer.Option(help="side of a region; changes no label")] = 1024,
) -> None:
    """Segment a data set's test picture as the service would, and compare with the truth.

    Prints a table, then one line of JSON.
    """
    chosen = find_dataset(dataset)
    predictor = load_predictor(model, engine, batch, threads or None)  # type: ignore[arg-type]
    report = measure(chosen, predictor, region_px)
    _print_table(report, chosen)
    typer.echo(
        json.dumps({"model": predictor.manifest.name, "dataset": dataset, "engine": engine, "batch": batch} | report)
    )


def measure(dataset: Dataset, predictor: RegionPredictor, region_px: int) -> dict[str, object]:
    """IoU per class and their mean on the test columns; rate over the tiles that were predicted for it."""
    image, truth = _read_pixels(dataset.test_file()), dataset.test_labels()
    plan = Plan(truth.shape, predictor.manifest.tile_px, predictor.manifest.alpha, region_px)
    regions = [region for region in plan.regions() if _overlap(region.box, dataset.test_columns)]
    matrix = np.zeros((len(dataset.classes),) * 2, np.int64)
    seconds, pixels = 0.0, 0
    for region in track(regions, "segmenting", console=Console(stderr=True)):
        started = time.perf_counter()
        labels = predictor.predict(np.ascontiguousarray(image[:, *region.window.slices]), region)
        seconds, pixels = seconds + time.perf_counter() - started, pixels + labels.size
        matrix += _compare(truth, labels, region, dataset)
    scores = iou(matrix)
    names = [c.name for c in dataset.classes]
    return {
        "iou": {name: round(float(score), 4) for name, score in zip(names, scores, strict=True)},
        "miou": round(float(np.nanmean(scores)), 4),
        "confusion": matrix.tolist(),
        "megapixels_per_s": round(pixels / 1e6 / seconds, 3),
    }


def _compare(
    truth: NDArray[np.uint8], labels: NDArray[np.uint8], region: Region, dataset: Dataset
) -> NDArray[np.int64]:
    box, columns = region.box, dataset.test_columns
    x0, x1 = max(box.x0, columns.start), min(box.x1, columns.stop)
    seen = truth[box.y0 : box.y1, x0:x1]
    return confusion(seen, labels[:, x0 - box.x0 : x1 - box.x0], len(dataset.classes))


def _overlap(box: Box, columns: slice) -> bool:
    return bool(box.x0 < columns.stop and box.x1 > columns.start)


def _read_pixels(path: Path) -> NDArray[np.uint8]:
    """(3, H, W)"""
    import pyvips

    pixels: NDArray[np.uint8] = pyvips.Image.new_from_file(str(path), fail_on="warning").numpy()
    return pixels.transpose(2, 0, 1)


def _print_table(report: dict[str, object], dataset: Dataset) -> None:
    table = Table("class", "IoU", title=dataset.title)
    scores = report["iou"]
    assert isinstance(scores, dict)
    for name, score in scores.items():
        table.add_row(name, f"{score:.4f}")
    table.add_row("mean", f"{report['miou']:.4f}")
    Console(stderr=True).print(table)


if __name__ == "__main__":
    app()
