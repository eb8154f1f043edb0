"""What every command shares: where words go, how progress looks, how an error ends the program.

Results go to stdout, everything else to stderr, so that `gigamask ... --json | tail -1` is one JSON object.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from gigamask.errors import GigamaskError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class RateColumn(ProgressColumn):
    """Megapixels a second, where a task's total is in megapixels (its field `megapixels` says so)."""

    def render(self, task: Task) -> Text:
        if not task.fields.get("megapixels"):
            return Text(" " * 11)
        speed = task.finished_speed or task.speed
        return Text(f"{speed:6.2f} MP/s" if speed else "  -- MP/s", style="progress.data.speed")


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description:<9}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
        speed_estimate_period=30,
    )


def log_to_stderr() -> None:
    """For processes that run on their own."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


@contextmanager
def told_errors(as_json: bool = False) -> Iterator[None]:
    """A GigamaskError ends the command with exit code 1 and its message; Ctrl-C with 130."""
    try:
        yield
    except GigamaskError as exc:
        if as_json:
            out.print(json.dumps({"error": {"code": exc.code, "detail": exc.message}}), soft_wrap=True, markup=False)
        err.print(f"[bold red]error[/] [dim]({exc.code})[/] ", end="")
        err.print(exc.message, markup=False, soft_wrap=True)
        raise typer.Exit(1) from exc
    except KeyboardInterrupt as exc:
        err.print("stopped; the same command goes on where it was")
        raise typer.Exit(130) from exc
