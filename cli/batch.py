"""`gigamask batch`: many images, one after another, in this process; killed and run again, it goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import err, out, told_errors
from cli.options import (
    Background,
    Engine,
    Json,
    MinObject,
    Overlap,
    PixelSize,
    Probabilities,
    RegionSide,
    Resolution,
    Roi,
    SampleRange,
)
from gigamask.settings import Settings

if TYPE_CHECKING:
    from cli.batch_run import Task
    from cli.batch_summary import Record

Source = Annotated[
    Path, typer.Argument(help="A folder of images, or a CSV manifest: path[,model,name,pixel_size_um,roi].")
]
Models = Annotated[
    list[str] | None, typer.Option("--model", "-m", help="A model's name; more than one: NAME.MODEL.zarr each.")
]


def batch(
    source: Source,
    folder: Annotated[Path, typer.Option("--out", "-o", help="Folder for the OME-Zarrs and the summary.")],
    model: Models = None,
    as_json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be done, and do nothing.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs of another model, other options or an older image.")
    ] = False,
    engine: Annotated[Engine | None, typer.Option(help="What runs the model.")] = None,
    tiles: Annotated[
        int | None, typer.Option("--batch", min=0, max=256, help="Tiles in one call; 0 = what suits.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=0, help="Threads of the predictor; 0 = all cores.")] = None,
    region_px: RegionSide = None,
    pixel_size_um: PixelSize = None,
    sample_range: SampleRange = None,
    roi: Roi = None,
    background: Background = "keep",
    resolution: Resolution = "model",
    overlap: Overlap = "none",
    min_object_px: MinObject = 0,
    probabilities: Probabilities = False,
) -> None:
    """Segment many images, one after another: those of a folder, or the rows of a CSV manifest.

    Outputs that are there already are kept; an image that fails does not stop the others. OUT/summary.csv and
    summary.json tell of each. Exit code 1 if any failed.
    """
    from cli.batch_run import look, run
    from gigamask.processes import give_back_freed_memory

    changed = {"engine": engine and engine.value, "batch_tiles": tiles, "threads": threads}
    settings = Settings().model_copy(update={name: value for name, value in changed.items() if value is not None})
    choices = {
        "region_px": region_px,
        "pixel_size_um": pixel_size_um,
        "sample_range": sample_range,
        "roi": roi,
        "background": background,
        "resolution": resolution,
        "overlap": overlap,
        "min_object_px": min_object_px,
        "probabilities": probabilities,
    }
    give_back_freed_memory()
    with told_errors(as_json):
        tasks = _list_tasks(source, folder, model or [], settings, choices)
        records = look(tasks, folder, overwrite) if dry_run else run(tasks, folder, settings, overwrite)
    _print(records, as_json=as_json)
    if not dry_run and any(record.state == "failed" for record in records):
        raise typer.Exit(1)


def _list_tasks(
    source: Path, folder: Path, models: list[str], settings: Settings, choices: dict[str, Any]
) -> list[Task]:
    """choices: as `cli.segment.job_options` takes them. All that can be wrong is told before anything is done."""
    from cli.batch_images import list_images, told_where
    from cli.batch_run import Task
    from cli.segment import job_options
    from gigamask.manifest import ModelShelf

    images, left_out = list_images(source, models)
    if left_out:
        err.print(f"left out, as no images: {', '.join(path.name for path in left_out)}", markup=False, soft_wrap=True)
    shelf, tasks = ModelShelf(settings.models), []
    for image in images:
        own = {"pixel_size_um": image.pixel_size_um, "roi": image.roi}
        with told_where(image):
            options = job_options(**choices | {name: value for name, value in own.items() if value is not None})
            manifest, model_folder = shelf.manifest(image.model), shelf.folder(image.model)
        tasks.append(Task(image, manifest, model_folder, options, folder / f"{image.name}.zarr"))
    return tasks


def _print(records: list[Record], *, as_json: bool) -> None:
    from cli.batch_summary import as_object, as_table

    if as_json:
        out.print(json.dumps(as_object(records)), soft_wrap=True, markup=False)
    else:
        out.print(as_table(records))
