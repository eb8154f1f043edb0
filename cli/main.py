"""The `gigamask` command. Each command is thin: it composes what the packages offer.

Heavy imports happen inside the commands, so that `gigamask --help` answers at once.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli import models
from cli.batch import batch
from cli.console import err, log_to_stderr, out, told_errors
from cli.export import export_result
from cli.options import (
    LOCAL_SERVER,
    Background,
    Engine,
    Image,
    Json,
    MinObject,
    ModelName,
    Overlap,
    PixelSize,
    Probabilities,
    RegionSide,
    Resolution,
    Roi,
    SampleRange,
    Server,
)
from gigamask.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Any gigapixel image in, a mask pyramid out, every tile labelled with its surroundings in view.\n\n"
    "[bold]One image, here and now:[/]  gigamask segment IMAGE --model earth-water --out OUT.zarr\n\n"
    "[bold]A service:[/]  gigamask up, then gigamask submit IMAGE --model earth-water --wait\n\n"
    "Settings are GIGAMASK_* environment variables (docs/settings.md).",
)
app.add_typer(models.app, name="models")
app.command(name="export")(export_result)


class StageName(StrEnum):
    ingest = "ingest"
    segment = "segment"
    assemble = "assemble"


@app.command()
def segment(
    image: Image,
    model: ModelName,
    out_path: Annotated[Path, typer.Option("--out", "-o", help="The OME-Zarr to write.")],
    as_json: Json = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    engine: Annotated[Engine | None, typer.Option(help="What runs the model.")] = None,
    batch: Annotated[int | None, typer.Option(min=0, max=256, help="Tiles in one call; 0 = what suits.")] = None,
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
    """Segment one image in this process, without a queue.

    Killed and run again, it goes on where it was. OUT.zarr holds the image and its mask (labels/MODEL): open it in
    napari, or with zarr.open.
    """
    from cli.segment import job_options, print_report, segment_with_progress
    from gigamask.processes import give_back_freed_memory

    changed = {"engine": engine and engine.value, "batch_tiles": batch, "threads": threads}
    settings = Settings().model_copy(update={name: value for name, value in changed.items() if value is not None})
    give_back_freed_memory()
    with told_errors(as_json):
        options = job_options(
            region_px,
            pixel_size_um,
            sample_range,
            roi,
            background=background,
            resolution=resolution,
            overlap=overlap,
            min_object_px=min_object_px,
            probabilities=probabilities,
        )
        report = segment_with_progress(image, model, out_path, options, settings, overwrite=overwrite)
        print_report(report, as_json=as_json)


app.command()(batch)


@app.command()
def up(
    port: Annotated[int | None, typer.Option("--port", "-p", help="Port of the service; 0 takes a free one.")] = None,
    store: Annotated[Path | None, typer.Option(help="Folder for uploads, images and masks.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Segment workers.")] = 1,
    external_redis: Annotated[
        bool, typer.Option("--external-redis", help="Use GIGAMASK_REDIS_URL, not an embedded Redis.")
    ] = False,
) -> None:
    """Run the whole service on this machine: HTTP, an embedded Redis, and workers."""
    from cli.up import run

    changed = {"port": port, "store": store}
    settings = Settings().model_copy(update={name: value for name, value in changed.items() if value is not None})
    with told_errors():
        run(settings, workers, embedded=not external_redis)


@app.command()
def serve() -> None:
    """Run the HTTP service alone (Redis and workers run elsewhere)."""
    from gigamask.processes import die_with_named_parent
    from service.server import run

    die_with_named_parent()
    with told_errors():
        run(Settings())


@app.command()
def worker(
    stage: Annotated[StageName, typer.Argument(help="What this worker does.")],
    burst: Annotated[bool, typer.Option("--burst", help="Do what is in the queue, then stop.")] = False,
) -> None:
    """Run one worker. SIGTERM lets it finish what it holds."""
    from gigamask.job import Stage
    from gigamask.processes import die_with_named_parent, give_back_freed_memory
    from workers.loop import run_worker

    die_with_named_parent()
    give_back_freed_memory()
    log_to_stderr()
    with told_errors():
        run_worker(Stage(stage.value), Settings(), burst=burst)


@app.command()
def submit(
    image: Image,
    models: Annotated[list[str], typer.Option("--model", "-m", help="A model's name; several make a job each.")],
    server: Server = LOCAL_SERVER,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Follow the job to its end.")] = False,
    as_json: Json = False,
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
    """Upload an image to a service and start a job. Called again after a failure, the upload goes on where it was."""
    from cli.remote import follow, print_submitted
    from cli.remote import submit as submit_image
    from cli.segment import read_roi
    from gigamask.client import Client

    options = {
        "region_px": region_px,
        "pixel_size_um": pixel_size_um,
        "sample_range": sample_range,
        "background": background,
        "resolution": resolution,
        "overlap": overlap,
        "min_object_px": min_object_px,
        "probabilities": probabilities,
    }
    with told_errors(as_json), Client(server) as client:
        chosen = {name: value for name, value in options.items() if value is not None}
        jobs = submit_image(client, image, models, chosen | ({"roi": read_roi(roi)} if roi else {}))
        if wait:
            jobs = [follow(client, job.id) for job in jobs]
        print_submitted(client.server, jobs, as_json=as_json)
        if any(job.state in ("failed", "cancelled") for job in jobs):
            raise typer.Exit(1)


@app.command()
def status(
    job_id: Annotated[str | None, typer.Argument(help="A job; without it, the newest ones.")] = None,
    server: Server = LOCAL_SERVER,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Follow the job to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Tell how a job is, or list the newest jobs."""
    from cli.remote import follow, print_job, print_jobs
    from gigamask.client import Client

    with told_errors(as_json), Client(server) as client:
        if job_id is None:
            print_jobs(client.jobs(), as_json=as_json)
        else:
            print_job(client.server, follow(client, job_id) if wait else client.job(job_id), as_json=as_json)


@app.command()
def info(image: Image, as_json: Json = False) -> None:
    """Tell what an image file holds, as ingest will read it."""
    from rich.table import Table

    from gigamask.image_info import ReadOptions
    from workers.ingest import inspect

    with told_errors(as_json):
        found = inspect(image, ReadOptions(), Settings())
    if as_json:
        out.print(found.model_dump_json(), soft_wrap=True, markup=False)
        return
    table = Table(show_header=False)
    table.add_row("size", f"{found.width} x {found.height} px ({found.megapixels:,.1f} MP)")
    shown = found.model_dump(
        exclude={"width": True, "height": True, "notes": True, "georeference": {"keys"}}, exclude_none=True
    )
    for name, value in shown.items():
        table.add_row(name.replace("_", " "), str(value))
    for note in found.notes:
        table.add_row("note", note)
    out.print(table)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what this machine has, what is missing, and how to get it. Exit code 1 if something needed is missing."""
    from dataclasses import asdict

    from rich.markup import escape
    from rich.table import Table

    from cli.doctor import findings

    found = list(findings(Settings()))
    if as_json:
        out.print(json.dumps([asdict(f) for f in found]), soft_wrap=True, markup=False)
    else:
        marks = {True: "[green]ok[/]", False: "[red]missing[/]", None: "[yellow]optional[/]"}
        table = Table("part", "", "found", "what to do")
        for f in found:
            table.add_row(f.part, marks[f.ok], escape(f.found), "" if f.ok else escape(f.remedy))
        out.print(table)
    if any(f.ok is False for f in found):
        raise typer.Exit(1)


@app.command()
def demo(
    out_path: Annotated[Path, typer.Option("--out", help="Folder for the result.")] = Path("build/demo"),
    as_json: Json = False,
) -> None:
    """Segment NASA's Blue Marble into ocean, land and lake, and judge it on the half the model never saw."""
    from cli.demo import run

    with told_errors(as_json):
        run(out_path, Settings(), as_json=as_json)


def main() -> None:
    try:
        app()
    except BrokenPipeError:
        err.quiet = True


if __name__ == "__main__":
    main()
