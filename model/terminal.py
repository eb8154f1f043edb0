"""What the commands of `model` tell a person: errors in one line, on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from gigamask.errors import GigamaskError

err = Console(stderr=True, highlight=False)


@contextmanager
def told_errors() -> Iterator[None]:
    """What is wrong with a plan, a model, a data set or an option ends the command with exit code 1 and its message."""
    try:
        yield
    except (GigamaskError, ValueError, OSError, ModuleNotFoundError) as exc:
        err.print("[bold red]error[/] ", end="")
        err.print(str(exc), markup=False, soft_wrap=True)
        raise typer.Exit(1) from exc
