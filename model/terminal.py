"""What the commands of `model` tell a person: errors in one line, on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from gigamask.errors import GigamaskError

err = Console(stderr=True, highlight=False)


@contextmanager
def told_errors(about: str = "") -> Iterator[None]:
    """What is wrong with a file, a model, a data set or an option ends the command in one line: exit code 1.

    about: what the line begins with, such as the recipe.
    """
    try:
        yield
    except (GigamaskError, ValueError, OSError, ModuleNotFoundError, FloatingPointError) as exc:
        err.print("[bold red]error[/] ", end="")
        err.print(f"{about}: " if about else "", " ".join(str(exc).split()), sep="", markup=False, soft_wrap=True)
        raise typer.Exit(1) from exc
