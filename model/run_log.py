"""What a run tells while it trains: a row an iteration in `log.csv`, a row a validation in `validation.csv`, and the
same figures for TensorBoard where that is installed.

Rows after the checkpoint that a run resumes from are forgotten, so each iteration is told once, however often the
run was killed.
"""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LOG, VALIDATION_LOG, TENSORBOARD = "log.csv", "validation.csv", "tensorboard"
_LOSSES = ("total", "local", "surround", "consistency", "host", "learning_rate")


class RunLog:
    """Opened by `open_log`."""

    def __init__(self, folder: Path, writer: Any = None) -> None:
        self._folder, self._writer = folder, writer  # a SummaryWriter or None

    def add_losses(self, iteration: int, losses: Mapping[str, float]) -> None:
        row = {name: losses.get(name, 0.0) for name in _LOSSES}
        self._add(LOG, "training", iteration, row)

    def add_validation(self, iteration: int, miou: float, iou: Mapping[str, float]) -> None:
        """iou: of each class, nan where it is neither there nor predicted"""
        self._add(VALIDATION_LOG, "validation", iteration, {"mIoU": miou, **iou})

    def flush(self) -> None:
        """Before a checkpoint is written: what it holds is told for good."""
        if self._writer is not None:
            self._writer.flush()

    def _add(self, name: str, group: str, iteration: int, row: Mapping[str, float]) -> None:
        _append(self._folder / name, ("iteration", *row), (iteration, *(f"{value:.6g}" for value in row.values())))
        if self._writer is not None:
            for key, value in row.items():
                if not math.isnan(value):
                    self._writer.add_scalar(f"{group}/{key}", value, iteration)


@contextmanager
def open_log(folder: Path, iteration: int, tensorboard: bool) -> Iterator[RunLog]:
    """iteration: the one that was reached, 0 at a fresh start; what was told of later ones is forgotten."""
    for name in (LOG, VALIDATION_LOG):
        _forget_rows_after(folder / name, iteration)
    if iteration == 0:
        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
    writer = _open_writer(folder / TENSORBOARD, iteration) if tensorboard and has_tensorboard() else None
    try:
        yield RunLog(folder, writer)
    finally:
        if writer is not None:
            writer.close()


def has_tensorboard() -> bool:
    return find_spec("tensorboard") is not None


def _open_writer(folder: Path, iteration: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    # readers drop what earlier files say of steps from here on
    return SummaryWriter(str(folder), purge_step=iteration + 1)


def _append(path: Path, columns: Sequence[str], row: Sequence[object]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as stream:
        rows = csv.writer(stream)
        if fresh:
            rows.writerow(columns)
        rows.writerow(row)


def _forget_rows_after(path: Path, iteration: int) -> None:
    if not path.exists():
        return
    text = path.read_text()
    if iteration == 0 or "\n" not in text:  # killed before the header was whole
        path.unlink()
        return
    header, *rows = text.splitlines(keepends=True)
    kept = [row for row in rows if row.endswith("\n") and int(row.split(",")[0]) <= iteration]
    path.write_text("".join([header, *kept]))
