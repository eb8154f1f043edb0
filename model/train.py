"""`python -m model.train RECIPE`: train, export, and check that both engines agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from model.terminal import err, told_errors

if TYPE_CHECKING:
    from model.recipe import Recipe
    from model.training import TrainingRun

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="a TOML file, or the name of one in model/recipes, such as earth")],
    run: Annotated[Path | None, typer.Option(help="folder of checkpoints and logs  [default: runs/NAME]")] = None,
    out: Annotated[Path | None, typer.Option(help="model folder to write  [default: models/NAME]")] = None,
    root: Annotated[Path | None, typer.Option(help="folder of the data set, where it is not in a package")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; auto: a GPU where there is one")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's choice")] = 0,
    export: Annotated[bool, typer.Option(help="write the model folder at the end")] = True,
) -> None:
    """Train SGNet, or its host alone, from a recipe; then export it as a model folder that Gigamask serves.

    **Killed?** Call it again. It goes on from the last checkpoint in the run folder and ends with the same weights.

    **To try something**, copy a recipe, change its name and any knob, and give the file's path.
    `model/recipes/deepglobe.toml` has every knob there is, with its default and what it does.

    **To watch**, there is a progress bar here, and in the run folder `log.csv` (a row an iteration), `validation.csv`
    (IoU on the data set's validation pictures, where it has any) and a TensorBoard log (`tensorboard --logdir runs`).

    **At the end** the weights of the best validation are exported, or the last ones where there was none: safetensors,
    ONNX and `model.json`; both engines must agree on the labels.

    Needs the `train` extra. A host that starts from ImageNet says where its weights come from when they are missing.
    """
    with told_errors(recipe), _told_stop():
        from model.recipe import find_recipe, read_recipe

        chosen = read_recipe(find_recipe(recipe))
        finished = train_recipe(chosen, run or Path("runs") / chosen.name, find_device(device, threads), root)
        if export:
            _export(finished, out or Path("models") / chosen.name)


def train_recipe(recipe: Recipe, folder: Path, device: str, root: Path | None = None) -> TrainingRun:
    """The run at its end, with its last weights (`take_best` gives it the best)."""
    run = open_run(recipe, folder, device, root)
    with _bar() as bar:
        task = bar.add_task(recipe.name, total=recipe.schedule.iterations, completed=run.iteration, told="")
        for losses in run.steps(lambda fraction: bar.update(task, told=f"validating {fraction:.0%}")):
            best = f"  best mIoU {run.best.miou:.4f}" if run.best else ""
            bar.update(task, completed=run.iteration, told=f"loss {losses['total']:.4f}{best}")
    return run


def open_run(recipe: Recipe, folder: Path, device: str, root: Path | None = None) -> TrainingRun:
    """A run on the data set that the recipe names, as far as it has come."""
    from model.data.crops import CropSampler
    from model.data.datasets import find_dataset
    from model.recipe import check_classes
    from model.run_log import has_tensorboard
    from model.training import TrainingRun
    from model.validation import Validation

    dataset = find_dataset(recipe.dataset, root)
    check_classes(recipe, [c.name for c in dataset.classes])
    if recipe.machine.tensorboard and not has_tensorboard():
        err.print("no TensorBoard log: pip install tensorboard, or set machine.tensorboard = false", markup=False)
    alpha = recipe.architecture(len(dataset.classes)).alpha
    sampler = CropSampler(dataset.pictures("train"), recipe.network.tile_px, alpha, recipe.crops, recipe.seed)
    judged_on = dataset.pictures("val") if recipe.schedule.validate_every else []
    validation = Validation(judged_on, dataset.classes) if judged_on else None
    return TrainingRun(recipe, sampler, len(dataset.classes), folder, device, validation)


def find_device(name: str, threads: int = 0) -> str:
    """cpu or cuda. Raises ValueError for a GPU that is not there."""
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"--device is auto, cpu or cuda, not {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here; expected auto or cpu")
    if threads:
        torch.set_num_threads(threads)
    return "cuda" if name != "cpu" and torch.cuda.is_available() else "cpu"


def _export(run: TrainingRun, folder: Path) -> None:
    from model.export import export_run

    best = run.take_best()
    chosen = f"iteration {best.iteration}, validation mIoU {best.miou:.4f}" if best else "the last iteration"
    err.print(f"exporting {chosen}", markup=False)
    export_run(run, folder)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
    )


@contextmanager
def _told_stop() -> Iterator[None]:
    """Ctrl-C says that nothing is lost: exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        err.print("stopped; the same command goes on from the last checkpoint")
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app()
