"""What a batch tells of its images: `summary.csv`, `summary.json` and a table, whole at any moment."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape
from rich.table import Column, Table

from gigamask.pyramid.ngff import software_version

State = Literal["waiting", "succeeded", "kept", "failed"]
_COLORS = {"waiting": "dim", "succeeded": "green", "kept": "green", "failed": "bold red"}
_FIGURES = ("megapixels", "seconds", "megapixels_per_s", "no_data_px")
_COLUMNS = ("name", "image", "model", "state", "reason", *_FIGURES, "out")


@dataclass(frozen=True, slots=True)
class Record:
    """One image with one model. kept: its output was there. reason: why it failed, with the error's code.

    seconds: of the run that finished it, without what earlier runs of it had done. areas_px: class -> pixels.
    image_bytes, image_mtime_ns: of the file that the output was made from, so that a changed one is noticed.
    """

    name: str
    image: str
    model: str
    out: str
    state: State = "waiting"
    reason: str = ""
    megapixels: float | None = None
    seconds: float | None = None
    megapixels_per_s: float | None = None
    areas_px: dict[str, int] = field(default_factory=dict)
    no_data_px: int | None = None
    image_bytes: int | None = None
    image_mtime_ns: int | None = None

    @property
    def shares(self) -> dict[str, float]:
        """Class -> share of the pixels that were labelled."""
        total = sum(self.areas_px.values())
        return {name: px / total if total else 0.0 for name, px in self.areas_px.items()}


def write_summary(folder: Path, records: Sequence[Record]) -> None:
    _replace(folder / "summary.csv", as_csv(records))
    _replace(folder / "summary.json", json.dumps(as_object(records), indent=1) + "\n")


def read_summary(folder: Path) -> dict[str, Record]:
    """By name; empty where there is none that can be read."""
    known = {part.name for part in fields(Record)}
    try:
        rows = json.loads((folder / "summary.json").read_bytes())["images"]
        found = [Record(**{key: value for key, value in row.items() if key in known}) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {record.name: record for record in found}


def as_object(records: Sequence[Record]) -> dict[str, Any]:
    states: dict[str, int] = dict.fromkeys(_COLORS, 0)
    for record in records:
        states[record.state] += 1
    images = [asdict(record) | {"shares": record.shares} for record in records]
    return {"software": f"gigamask {software_version()}", "states": states, "images": images}


def as_csv(records: Sequence[Record]) -> str:
    """A column for each class of any model, empty where a row's model has none such."""
    classes = list(dict.fromkeys(name for record in records for name in record.areas_px))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*_COLUMNS, *(f"share of {name}" for name in classes)])
    for record in records:
        values = [getattr(record, name) for name in _COLUMNS]
        shares = [f"{record.shares[name]:.6f}" if name in record.shares else "" for name in classes]
        rows.writerow([*("" if v is None else f"{v:.3f}" if isinstance(v, float) else v for v in values), *shares])
    return text.getvalue()


def as_table(records: Sequence[Record]) -> Table:
    names = (Column(header, overflow="fold") for header in ("image", "model"))
    table = Table(*names, "MP", "seconds", "MP/s", "state", "classes, or why not")
    for record in records:
        figures = (record.megapixels, record.seconds, record.megapixels_per_s)
        shares = ", ".join(f"{name} {share:.1%}" for name, share in record.shares.items())
        table.add_row(
            escape(record.name),
            record.model,
            *("" if figure is None else f"{figure:,.1f}" for figure in figures),
            f"[{_COLORS[record.state]}]{record.state}[/]",
            escape(record.reason or shares),
        )
    return table


def _replace(path: Path, text: str) -> None:
    """In one step: whoever reads it sees the old or the new."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("w", encoding="utf-8", newline="") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)
