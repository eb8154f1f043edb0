"""`gigamask export`: files of a result for other tools, made here of a `.zarr` or fetched from a service."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.console import err, out, told_errors
from gigamask.errors import Conflict, InvalidOption

if TYPE_CHECKING:
    from gigamask.client import Client
    from gigamask.exports.catalog import ExportOptions, Format

_SUFFIXES = re.compile(r"(\.ome)?\.zarr$")


@dataclass(frozen=True, slots=True)
class Choices:
    """As they were given; the texts are read once the formats are known."""

    label: str | None = None
    colors: str = ""
    simplify_px: float | None = None
    roi: str | None = None
    min_area_px: int = 0

    def options(self) -> ExportOptions:
        """Raises InvalidOption."""
        from gigamask.exports.catalog import ExportOptions
        from gigamask.legend import parse_colors
        from gigamask.roi import parse_roi

        text = self.roi_text()
        roi, colors = parse_roi(text) if text else None, parse_colors(self.colors)
        return ExportOptions(self.label, colors, self.simplify_px or None, roi, self.min_area_px)

    def roi_text(self) -> str | None:
        from cli.segment import read_roi

        return read_roi(self.roi) if self.roi else None

    def query(self) -> dict[str, object]:
        """As the service takes them."""
        given = {"colors": self.colors, "simplify": self.simplify_px, "roi": self.roi_text()}
        return {name: value for name, value in (given | {"min_area": self.min_area_px}).items() if value}


@dataclass(frozen=True, slots=True)
class Written:
    format: str
    path: str
    kept: bool  # it was there before


def export_result(
    result: Annotated[
        str | None, typer.Argument(help="A result's .zarr folder; with --server, the id of a job.", show_default=False)
    ] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", "-f", help="Which file; may be given again. --list shows them.")
    ] = None,
    out_path: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files.")] = Path(),
    label: Annotated[str | None, typer.Option(help="Which mask, where the result has several.")] = None,
    colors: Annotated[str, typer.Option(help="Other colours: 0:ff8800,3:00ff00.")] = "",
    simplify_px: Annotated[
        float | None, typer.Option("--simplify", min=0, help="Pixels by which outlines may be simplified.")
    ] = None,
    roi: Annotated[
        str | None, typer.Option(help="Only what lies in it: x,y,width,height in pixels, GeoJSON, or a file of it.")
    ] = None,
    min_area_px: Annotated[int, typer.Option("--min-area", min=0, help="Leave out objects of fewer pixels.")] = 0,
    server: Annotated[str | None, typer.Option("--server", "-s", help="URL of a service that has the job.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make files again that are there.")] = False,
    as_list: Annotated[bool, typer.Option("--list", help="Show what a result can be had as.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The last line of stdout is one JSON object.")] = False,
) -> None:
    """Write a result as files for other tools: OME-TIFF, COG, GeoJSON, tables, a report, an older Zarr.

    A file appears under its name once it is whole, and one that is there is kept: stopped and run again, the same
    command goes on with what is missing. A download goes on within the file.
    """
    chosen = Choices(label, colors, simplify_px, roi, min_area_px)
    with told_errors(as_json):
        if as_list or not result:
            _print_formats(result, chosen, server, as_json)
        elif server:
            _print_written(fetch_files(server, result, formats or [], out_path, chosen, overwrite), as_json)
        else:
            _print_written(make_files(Path(result), formats or [], out_path, chosen, overwrite), as_json)


def make_files(root: Path, names: list[str], folder: Path, chosen: Choices, overwrite: bool) -> list[Written]:
    """From a `.zarr` on this machine. All that can be refused is refused before the first file is begun."""
    from gigamask.exports.catalog import download_name, export
    from gigamask.processes import give_back_freed_memory
    from gigamask.pyramid.result import open_result

    give_back_freed_memory()
    options, entries = chosen.options(), _formats(names)
    result = open_result(root, chosen.label)
    result.legend.recolored(options.colors)
    for entry in entries:
        if reason := entry.offered(result):
            raise Conflict(f"{entry.short} cannot be had of this result: {reason}")
    base = _SUFFIXES.sub("", root.resolve().name) + (f"-{chosen.label}" if chosen.label else "")

    def make(entry: Format, target: Path, tell: Callable[[float], None]) -> None:
        export(root, entry.name, target, options, tell)

    return _write_all(entries, folder, lambda entry: download_name(base, entry), overwrite, make)


def fetch_files(
    server: str, job_id: str, names: list[str], folder: Path, chosen: Choices, overwrite: bool
) -> list[Written]:
    """From a service, which makes them; resumed by ranges. Raises Refused, Unreachable."""
    from gigamask.exports.catalog import download_name

    entries = _formats(names)
    if stores := [entry for entry in entries if entry.store]:
        raise InvalidOption(f"{stores[0].short} is no file: open {server}/jobs/{job_id}/{stores[0].name} as Zarr")
    if chosen.label:
        raise InvalidOption("--label is for a .zarr here: the result of a job has one mask")
    query = chosen.query()
    with _client(server) as client:
        job = client.job(job_id)
        base = f"{Path(job.file_name).stem}-{job.model}".replace(
            "/", "_"
        )  # whatever a service says, it stays in the folder

        def fetch(entry: Format, target: Path, tell: Callable[[float], None]) -> None:
            client.download(job_id, entry.name, target, _by_bytes(tell), **query)

        return _write_all(entries, folder, lambda entry: download_name(base, entry), overwrite, fetch)


def _by_bytes(tell: Callable[[float], None]) -> Callable[[int, int | None], None]:
    return lambda there, total: tell(there / total if total else 0.0)


def _write_all(
    entries: list[Format],
    folder: Path,
    name: Callable[[Format], str],
    overwrite: bool,
    write: Callable[[Format, Path, Callable[[float], None]], None],
) -> list[Written]:
    """One after another, each with its bar. What is there is whole, since files appear by a rename."""
    written = []
    with _told_disk(folder), _bars() as bars:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            target = folder / name(entry)
            task = bars.add_task(entry.short, total=1.0)
            kept = target.exists() and not overwrite
            if not kept:
                write(entry, target, partial(_show, bars, task))
            bars.update(task, completed=1.0)
            written.append(Written(entry.short, str(target), kept))
    return written


@contextmanager
def _told_disk(folder: Path) -> Iterator[None]:
    """A folder that cannot be written is no traceback."""
    from gigamask.store import disk_is_full, tells_of_full_disk

    try:
        yield
    except OSError as exc:
        if tells_of_full_disk(exc):
            raise disk_is_full(exc) from exc
        raise InvalidOption(f"{exc.filename or folder}: {exc.strerror}") from exc


def _show(bars: Progress, task: TaskID, fraction: float) -> None:
    bars.update(task, completed=fraction)


def _bars() -> Progress:
    columns = (TextColumn("{task.description:<12}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, TimeElapsedColumn(), console=err)


def _formats(names: list[str]) -> list[Format]:
    """Each once. Raises NotFound, or InvalidOption where none was chosen."""
    from gigamask.exports.catalog import FORMATS, find_format

    if not names:
        shorts = ", ".join(entry.short for entry in FORMATS)
        raise InvalidOption(f"choose at least one --format; there are: {shorts}")
    return list({entry.name: entry for entry in map(find_format, names)}.values())


def _print_formats(result: str | None, chosen: Choices, server: str | None, as_json: bool) -> None:
    """All there are; of a result, also which it cannot be had as, and why."""
    from gigamask.exports.catalog import FORMATS

    reasons = _reasons(result, chosen, server) if result else {}
    rows = [
        {"format": entry.short, "file": entry.name, "title": entry.title, "not_offered": reasons.get(entry.name)}
        for entry in FORMATS
    ]
    if as_json:
        out.print(json.dumps(rows), soft_wrap=True, markup=False)
        return
    table = Table("--format", "file", "what it is")
    for row in rows:
        why = f"\n[yellow]not of this result: {escape(str(row['not_offered']))}[/]" if row["not_offered"] else ""
        table.add_row(row["format"], row["file"], f"{escape(str(row['title']))}{why}")
    out.print(table)


def _reasons(result: str, chosen: Choices, server: str | None) -> dict[str, str | None]:
    """File name -> why the result cannot be had so."""
    from gigamask.exports.catalog import FORMATS
    from gigamask.pyramid.result import open_result

    if server:
        with _client(server) as client:
            return {file.name: file.why for file in client.files(result)}
    opened = open_result(Path(result), chosen.label)
    return {entry.name: entry.offered(opened) for entry in FORMATS}


def _client(server: str) -> Client:
    from gigamask.client import Client

    return Client(server)


def _print_written(written: list[Written], as_json: bool) -> None:
    if as_json:
        rows = [{"format": w.format, "path": w.path, "kept": w.kept} for w in written]
        out.print(json.dumps({"files": rows}), soft_wrap=True, markup=False)
        return
    for entry in written:
        out.print(f"{entry.path}{'  (was there)' if entry.kept else ''}", soft_wrap=True, markup=False)
