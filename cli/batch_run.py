"""The images of a batch through the main job, one after another; what is there already is kept if it is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from rich.progress import Progress as Bar
from rich.progress import TaskID

from cli.batch_images import BatchImage
from cli.batch_summary import Record, read_summary, write_summary
from cli.console import err, progress_bar
from gigamask.errors import Conflict, GigamaskError
from gigamask.image_info import ImageInfo
from gigamask.job import JobOptions, Stage
from gigamask.manifest import NO_DATA, ModelManifest
from gigamask.pyramid import ngff
from gigamask.settings import Settings
from gigamask.store import partial

if TYPE_CHECKING:
    from workers.report import Progress

Show = Callable[["Progress"], None]


@dataclass(frozen=True, slots=True)
class Task:
    """One output: `out` is to become what `manifest` and `options` make of the image."""

    image: BatchImage
    manifest: ModelManifest
    model_folder: Path
    options: JobOptions
    out: Path


def look(tasks: Sequence[Task], folder: Path, overwrite: bool) -> list[Record]:
    """What there is of each: `kept`, `waiting`, or `failed` where something else lies in its place."""
    before = read_summary(folder)
    return [_look_at(task, before.get(task.image.name), overwrite) for task in tasks]


def run(tasks: Sequence[Task], folder: Path, settings: Settings, overwrite: bool) -> list[Record]:
    """Do what waits. The summary is rewritten after every image."""
    folder.mkdir(parents=True, exist_ok=True)
    records = look(tasks, folder, overwrite)
    write_summary(folder, records)
    with progress_bar() as bar:
        bars = _Bars(bar, len(tasks))
        for index, (task, record) in enumerate(zip(tasks, records, strict=True)):
            with bars.image(index, record.name):
                if record.state == "waiting":
                    records[index] = _segment(task, record, settings, bars.show, overwrite)
                    write_summary(folder, records)
            _tell(records[index])
    return records


def _look_at(task: Task, before: Record | None, overwrite: bool) -> Record:
    record = Record(task.image.name, str(task.image.image.resolve()), task.manifest.name, str(task.out))
    if before is not None:
        record = replace(record, image_bytes=before.image_bytes, image_mtime_ns=before.image_mtime_ns)
    if not task.out.exists():
        return replace(record, reason="goes on where it was" if partial(task.out).exists() else "")
    other = _difference(task, record)
    if other is None:
        return _kept(task, record, before)
    if overwrite:
        return replace(record, reason=f"replaces what is {other}")
    return replace(
        record, state="failed", reason=f"{Conflict.code}: {task.out.name} is {other}; --overwrite replaces it"
    )


def _difference(task: Task, record: Record) -> str | None:
    """How what lies at `out` is not what the task would make; None where it is."""
    try:
        made_by = ngff.read_attributes(task.out)["gigamask"]["provenance"]
        options = JobOptions.model_validate(made_by["options"]).model_dump(mode="json")
    except (OSError, ValueError, KeyError, TypeError, ValidationError):
        return "no result that can be compared"
    expected = ngff.provenance(task.manifest, task.options.model_dump(mode="json"))
    if made_by["model"] != expected["model"]:
        return f"of model {made_by['model']['name']} {made_by['model']['version']}, or of other weights"
    names = [name for name, value in expected["options"].items() if name != "region_px" and options[name] != value]
    if names:
        return f"of other options ({', '.join(names)})"
    if record.image_bytes is not None and (record.image_bytes, record.image_mtime_ns) != _stamp(task.image.image):
        return f"of another image, or of {task.image.image.name} before it changed"
    return None


def _stamp(file: Path) -> tuple[int, int]:
    """Bytes and time of change."""
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def _kept(task: Task, record: Record, before: Record | None) -> Record:
    """Figures of the run that made it, where the summary still has them."""
    info = ImageInfo.model_validate(ngff.read_attributes(task.out)["gigamask"]["image"])
    label = ngff.read_attributes(task.out / "labels" / task.manifest.name)["ome"]["image-label"]
    areas = {entry["label-value"]: entry["area_px"] for entry in label["properties"]}
    named = {c.name: areas.get(c.id, 0) for c in task.manifest.classes}
    record = replace(record, areas_px=named, no_data_px=areas.get(NO_DATA, 0), megapixels=info.megapixels, state="kept")
    if before is None:
        return record
    return replace(record, seconds=before.seconds, megapixels_per_s=before.megapixels_per_s)


def _segment(task: Task, record: Record, settings: Settings, show: Show, overwrite: bool) -> Record:
    from workers.local import segment_image

    image = task.image.image
    try:
        size, changed_ns = _stamp(image)
        report = segment_image(image, task.model_folder, task.out, task.options, settings, show, overwrite=overwrite)
    except GigamaskError as exc:
        return replace(record, state="failed", reason=f"{exc.code}: {exc.message}")
    except Exception as exc:  # of a night's work, one image must not take the others with it
        return replace(record, state="failed", reason=f"{GigamaskError.code}: {type(exc).__name__}: {exc}")
    return replace(
        record,
        state="succeeded",
        reason="",
        megapixels=report.megapixels,
        seconds=report.seconds,
        megapixels_per_s=report.megapixels_per_s,
        areas_px=report.areas_px,
        no_data_px=report.no_data_px,
        image_bytes=size,
        image_mtime_ns=changed_ns,
    )


def _tell(record: Record) -> None:
    pace = f", {record.megapixels:,.1f} MP in {record.seconds:,.1f} s" if record.seconds and record.megapixels else ""
    told = f"{record.name}: {record.state}{pace}" + (f" ({record.reason})" if record.reason else "")
    err.print(told, markup=False, soft_wrap=True)


class _Bars:
    """One bar for the batch, and one for the stage that the present image is in."""

    def __init__(self, bar: Bar, total: int) -> None:
        self._bar, self._total = bar, total
        self._all = bar.add_task("batch", total=total)
        self._present: tuple[Stage, TaskID] | None = None

    @contextmanager
    def image(self, index: int, name: str) -> Iterator[None]:
        self._bar.update(self._all, description=f"{index + 1} of {self._total}")
        try:
            yield
        finally:
            self._end_stage()
            self._bar.advance(self._all)

    def show(self, progress: Progress) -> None:
        """Called from several threads, one at a time."""
        if self._present is None or self._present[0] != progress.stage:
            self._end_stage()
            self._present = progress.stage, self._bar.add_task(progress.stage.value, total=None)
        total = progress.megapixels or 1.0
        known: dict[str, Any] = {"megapixels": bool(progress.megapixels)}
        self._bar.update(self._present[1], total=total, completed=total * progress.fraction, **known)

    def _end_stage(self) -> None:
        if self._present is not None:
            self._bar.remove_task(self._present[1])
            self._present = None
