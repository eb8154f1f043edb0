"""`gigamask segment`: one image in this process, with a progress bar and a report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from rich.progress import Progress as Bar
from rich.table import Table

from cli.console import err, out, progress_bar
from gigamask.errors import InvalidOption
from gigamask.image_info import ReadOptions
from gigamask.job import JobOptions, Stage
from gigamask.manifest import ModelShelf
from gigamask.roi import parse_roi
from gigamask.settings import Settings

if TYPE_CHECKING:
    from workers.report import Progress, SegmentReport


def segment_with_progress(
    image: Path, model: str, out_path: Path, options: JobOptions, settings: Settings, *, overwrite: bool
) -> SegmentReport:
    """Raises UnknownModel, BadImage and their kin, Conflict where `out_path` exists."""
    folder = ModelShelf(settings.models).folder(model)  # asked first: it needs no heavy import
    from workers.local import segment_image

    with progress_bar() as bar:
        told = _Stages(bar)
        return segment_image(image, folder, out_path, options, settings, told.show, overwrite=overwrite)


def job_options(
    region_px: int | None,
    pixel_size_um: float | None,
    sample_range: tuple[float, float] | None,
    roi: str | None = None,
    **choices: object,
) -> JobOptions:
    """roi: as `read_roi` takes it. choices: other fields of JobOptions, by name. Raises InvalidOption."""
    try:
        read = ReadOptions(pixel_size_um=pixel_size_um, sample_range=sample_range)
        region = None if roi is None else parse_roi(read_roi(roi))
        return JobOptions.model_validate({"region_px": region_px, "read": read, "roi": region, **choices})
    except ValidationError as exc:
        wrong = exc.errors()[0]
        raise InvalidOption(f"{wrong['loc'][0]}: {wrong['msg']}, got {wrong['input']!r}") from exc


def read_roi(text: str) -> str:
    """`x,y,width,height`, GeoJSON, or what the file of that name holds. Raises InvalidOption."""
    if not text.lower().endswith((".json", ".geojson")):
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidOption(f"region of interest: {text} cannot be read: {exc}") from exc


class _Stages:
    """One bar for each stage, made when it begins. Totals are in megapixels once they are known."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._tasks = {stage: bar.add_task(stage.value, total=None, start=False, visible=False) for stage in Stage}

    def show(self, progress: Progress) -> None:
        task = self._tasks[progress.stage]
        if not self._bar.tasks[task].started:
            self._bar.start_task(task)
        total = progress.megapixels or 1.0
        completed, known = total * progress.fraction, bool(progress.megapixels)
        self._bar.update(task, total=total, completed=completed, visible=True, megapixels=known)


def print_report(report: SegmentReport, *, as_json: bool) -> None:
    if as_json:
        out.print(json.dumps(as_object(report)), soft_wrap=True, markup=False)
        return
    table = Table("class", "pixels", "share", *([f"area ({report.unit}^2)"] if report.areas else []))
    total = max(1, sum(report.areas_px.values()))
    for name, px in report.areas_px.items():
        area = [f"{report.areas[name]:,.0f}"] if report.areas else []
        table.add_row(name, f"{px:,}", f"{px / total:.1%}", *area)
    out.print(table)
    err.print(
        f"{report.width} x {report.height} px ({report.megapixels:.1f} MP) in {report.seconds:.1f} s, "
        f"{report.megapixels_per_s:.2f} MP/s; {report.regions_skipped} of {report.regions_total} regions were skipped"
    )
    for line in choices_told(report):
        err.print(line)
    out.print(f"{report.out}", soft_wrap=True)


def choices_told(report: SegmentReport) -> Iterator[str]:
    """What a person should know of what was run, line by line."""
    if report.scale != 1:
        yield f"the model sees {report.scale:g} x {report.scale:g} pixels as one"
    if (chosen := report.selection) is not None:
        yield f"{chosen.tiles_selected:,} of {chosen.tiles_total:,} tiles were run"
        if chosen.tissue_share is not None:
            found = f"{chosen.method}, threshold {chosen.threshold:g}"
            yield f"{chosen.tissue_share:.1%} of the image is no background ({found})"


def as_object(report: SegmentReport) -> dict[str, object]:
    """What `--json` prints."""
    return {
        "width": report.width,
        "height": report.height,
        "megapixels": round(report.megapixels, 3),
        "seconds": round(report.seconds, 3),
        "megapixels_per_s": round(report.megapixels_per_s, 3),
        "stage_seconds": {name: round(seconds, 3) for name, seconds in report.stage_seconds.items()},
        "areas_px": report.areas_px,
        "areas": report.areas,
        "unit": report.unit and f"{report.unit}^2",
        "no_data_px": report.no_data_px,
        "regions": {"total": report.regions_total, "skipped": report.regions_skipped},
        "scale": report.scale,
        "selection": report.selection and report.selection.model_dump(),
        "out": str(report.out),
    }
