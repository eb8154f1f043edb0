"""`python -m model.evaluate DATASET --model FOLDER`: the scores of a model on pixels that training never saw.

Segments the pictures of a split as the service would and prints a table, then one line of JSON: IoU per class, the
seam measures of model/seams.py, speed and memory.
"""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from gigamask.errors import BadModel
from gigamask.job import Overlap
from gigamask.manifest import MANIFEST_NAME
from model.data.datasets import DATASETS, find_dataset
from model.measurement import Report, measure
from model.predictors import ContextMode, load_predictor
from model.seams import SeamScores
from model.terminal import err, told_errors

__all__ = ["Report", "app", "measure"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class EngineName(StrEnum):
    onnx = "onnx"
    torch = "torch"


class ContextName(StrEnum):
    tile = "tile"
    trunk_shared = "trunk_shared"
    neighbourhood = "neighbourhood"


class SplitName(StrEnum):
    train = "train"
    val = "val"
    test = "test"


@app.command()
def evaluate(
    dataset: Annotated[str, typer.Argument(help=", ".join(DATASETS))],
    model: Annotated[Path, typer.Option(help="a model folder, such as models/earth-water")],
    split: Annotated[SplitName, typer.Option(help="which pictures")] = SplitName.test,
    root: Annotated[Path | None, typer.Option(help="the folder of a data set in its published layout")] = None,
    engine: Annotated[EngineName, typer.Option(help="what runs the network")] = EngineName.onnx,
    batch: Annotated[int, typer.Option(min=0, help="tiles a batch; 0: what suits the device")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: the engine's choice")] = 0,
    context: Annotated[ContextName | None, typer.Option(help="how tiles see around; default: the model's")] = None,
    half_overlap: Annotated[bool, typer.Option("--half-overlap", help="tiles at every half tile, averaged")] = False,
    region_px: Annotated[int, typer.Option(help="side of a region, 512 to 4096; changes no label")] = 1024,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile, with --engine torch on a GPU")] = False,
    seams: Annotated[bool, typer.Option(help="seam measures: a second pass, twice the time")] = True,
) -> None:
    """Segment the pictures of a split as the service would, and compare with the truth."""
    with told_errors():
        chosen = find_dataset(dataset, root)
        if not (model / MANIFEST_NAME).is_file():
            raise BadModel(f"{model / MANIFEST_NAME} is not there: expected a model folder, such as models/earth-water")
        mode: ContextMode | None = context.value if context else None
        predictor = load_predictor(model, engine.value, batch, threads or None, "auto", mode, compiled)
        pictures = chosen.pictures(split.value)
        if not pictures:
            raise ValueError(f"{dataset} has no pictures in its split {split.value!r}")
        with _bar() as bar:
            task = bar.add_task("segmenting", total=1.0)
            overlap: Overlap = "half" if half_overlap else "none"
            report = measure(
                pictures,
                chosen.classes,
                predictor,
                region_px,
                seams,
                lambda done: bar.update(task, completed=done),
                overlap,
            )
    err.print(table(report, f"{predictor.manifest.name} on {chosen.title}, {split.value}"))
    asked = {"model": predictor.manifest.name, "dataset": dataset, "split": split.value, "engine": engine.value}
    more = {"context": predictor.manifest.context.mode, "half_overlap": half_overlap, "region_px": region_px}
    typer.echo(json.dumps(asked | more | report.to_json()))


def table(report: Report, title: str) -> Table:
    rows = Table("measure", "", "beside", title=title)
    for name, score in report.iou.items():
        rows.add_row(f"IoU, {name}", _told(score))
    rows.add_row("mIoU", _told(report.miou), end_section=True)
    if report.seams:
        _add_seams(rows, report.seams)
    both = _told(report.read_and_predict_mp_per_s, "{:.3f} with reading")
    rows.add_row("MP/s", _told(report.predict_mp_per_s, "{:.3f}"), both)
    rows.add_row("peak memory", f"{report.peak_rss_mib:.0f} MiB")
    if report.peak_gpu_mib is not None:
        rows.add_row("peak memory, GPU", f"{report.peak_gpu_mib:.0f} MiB")
    return rows


def _add_seams(rows: Table, seams: SeamScores) -> None:
    rows.add_row("disagreement of two tilings", _told(seams.disagreement, "{:.3%}"))
    rows.add_row("seam excess", _told(seams.excess, "{:+.1%}"), _told(seams.truth_excess, "{:+.1%} of the truth"))
    elsewhere = _told(seams.elsewhere_miou, "{:.4f} elsewhere")
    rows.add_row("mIoU along borders", _told(seams.band_miou), elsewhere, end_section=True)


def _told(value: float, form: str = "{:.4f}") -> str:
    return "-" if math.isnan(value) else form.format(value)


def _bar() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %")
    return Progress(*columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=err)


if __name__ == "__main__":
    app()
