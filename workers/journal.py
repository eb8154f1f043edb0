"""What a run in one process has done, kept beside its output, so that the same command goes on where it was killed.

JSON lines: first what the work is a function of, then one a finished region, written when its shards are on disk.
"""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from gigamask.errors import Conflict

Key = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RegionRecord:
    """areas_px: label -> pixels of the region."""

    region: int
    skipped: bool
    areas_px: dict[int, int]


class Journal:
    """image, mask: what the pyramid and the labels are a function of; None where nothing is known.

    records: the finished regions, by index.
    """

    def __init__(self, path: Path) -> None:
        """Raises Conflict where another process has it open."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            self._file.close()
            raise Conflict(f"another process is writing {path.stem}") from exc
        self.image: Key | None = None
        self.mask: Key | None = None
        self.records: dict[int, RegionRecord] = {}
        self._read()

    def _read(self) -> None:
        """A last line that a kill tore off is cut away."""
        self._file.seek(0)
        whole = 0
        for number, line in enumerate(iter(self._file.readline, "")):
            try:
                entry = json.loads(line) if line.endswith("\n") else None
            except ValueError:
                entry = None
            if entry is None:
                break
            self._take(number, entry)
            whole += len(line.encode())
        self._file.truncate(whole)

    def _take(self, number: int, entry: dict[str, Any]) -> None:
        if number == 0:
            self.image, self.mask = entry["image"], entry["mask"]
            return
        areas = {int(label): count for label, count in entry["areas_px"].items()}
        self.records[entry["region"]] = RegionRecord(entry["region"], entry["skipped"], areas)

    def begin(self, image: Key | None, mask: Key | None) -> None:
        """Forget everything; start for this work."""
        self._file.truncate(0)
        self.records.clear()
        self.image, self.mask = image, mask
        self._append({"image": image, "mask": mask})

    def record(self, record: RegionRecord) -> None:
        self.records[record.region] = record
        self._append({"region": record.region, "skipped": record.skipped, "areas_px": record.areas_px})

    def _append(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
