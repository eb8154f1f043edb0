"""Plans of experiments: what they spell out, and one small plan run for real, killed and called again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from model.data.dubai import CLASSES
from model.experiments import PLANS, RESULT, WEIGHTS, app, claimed, markdown, merge, read_plan

TINY = """
name = "tiny"
seeds = [1, 2]

[base]
name = "tiny"
version = "0"
dataset = "dubai"
seed = 0

[base.network]
host = "mobilenet_v2"
tile_px = 64
imagenet = false

[base.schedule]
iterations = 2
batch = 2
learning_rate = 1e-3

[arms.host]

[arms.sgnet]
contexts = ["neighbourhood", "tile"]

[arms.sgnet.network.surround]
width = 0.25
blocks = 1
window = 2
reach = "neighbourhood"
span = 1
"""


@pytest.fixture
def dubai(tmp_path: Path) -> Path:
    """Mosaics of 180 x 180 px in the published layout, each part one class."""
    for tile in (1, 2, 3, 5, 6, 7, 8):
        for part in range(1, 10):
            color = bytes.fromhex(CLASSES[(tile + part) % 5].color[1:])
            pixels = np.broadcast_to(np.array(list(color), np.uint8), (60, 60, 3))
            for kind, ending in (("images", "jpg"), ("masks", "png")):
                folder = tmp_path / "dubai" / f"Tile {tile}" / kind
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / f"image_part_{part:03d}.{ending}")
    return tmp_path / "dubai"


def test_changes_go_over_the_base_table_by_table() -> None:
    base = {"a": 1, "t": {"x": 1, "y": 2}}
    assert merge(base, {"t": {"y": 3}, "b": 4}) == {"a": 1, "t": {"x": 1, "y": 3}, "b": 4}
    assert base == {"a": 1, "t": {"x": 1, "y": 2}}


@pytest.mark.parametrize("name", sorted(path.stem for path in PLANS.glob("*.toml")))
def test_every_shipped_plan_spells_out_whole_recipes(name: str) -> None:
    arms = read_plan(PLANS / f"{name}.toml")
    assert len({arm.folder for arm in arms}) == len(arms)
    seeds = [arm.recipe.seed for arm in arms]
    assert seeds == sorted(seeds)  # all arms of a seed before the next


def test_a_plan_with_an_unknown_knob_is_refused_by_file_arm_and_knob(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(TINY.replace("[arms.host]", "[arms.host]\nschedule.speed = 1"))
    with pytest.raises(ValueError, match=r"wrong\.toml: host: schedule: unknown key 'speed'"):
        read_plan(path)


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with claimed(tmp_path / "arm") as first, claimed(tmp_path / "arm") as second:
        assert (first, second) == (True, False)
    with claimed(tmp_path / "arm") as again:
        assert again


def test_a_plan_is_trained_and_judged_and_what_is_finished_is_not_done_again(tmp_path: Path, dubai: Path) -> None:
    plan, runs, out = tmp_path / "tiny.toml", tmp_path / "runs", tmp_path / "results.jsonl"
    plan.write_text(TINY)
    command = [str(plan), "--root", str(dubai), "--runs", str(runs), "--out", str(out), "--threads", "1"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["arm"], r["seed"], r["context"]) for r in results] == [
        ("host", 1, "tile"), ("sgnet", 1, "neighbourhood"), ("sgnet", 1, "tile"),
        ("host", 2, "tile"), ("sgnet", 2, "neighbourhood"), ("sgnet", 2, "tile"),
    ]  # fmt: skip
    assert all(r["pixels"] == 180 * 180 and 0 <= r["miou"] <= 1 for r in results)
    assert "| sgnet | neighbourhood | 2 |" in done.output

    weights = {path: path.stat().st_mtime_ns for path in runs.rglob(WEIGHTS)}
    next(runs.glob(f"tiny/host-2-*/{RESULT}")).unlink()  # killed after training, before it was judged
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert again.exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in runs.rglob(WEIGHTS)} == weights
    assert len(out.read_text().splitlines()) == len(results)


def test_an_arm_that_was_edited_is_another_arm(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    before = {arm.name: arm.folder for arm in read_plan(path) if arm.recipe.seed == 1}
    path.write_text(TINY.replace("blocks = 1", "blocks = 2"))
    after = {arm.name: arm.folder for arm in read_plan(path) if arm.recipe.seed == 1}
    assert before["host"] == after["host"]
    assert before["sgnet"] != after["sgnet"]


def test_a_context_that_an_arm_cannot_do_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY.replace("[arms.host]", '[arms.host]\ncontexts = ["trunk_shared"]'))
    with pytest.raises(ValueError, match=r"tiny\.toml: host: contexts: .* needs a network with a surround"):
        read_plan(path)


def test_an_arm_that_fails_does_not_keep_the_others_from_their_turn(tmp_path: Path, dubai: Path) -> None:
    plan, runs = tmp_path / "tiny.toml", tmp_path / "runs"
    broken = TINY.replace("[arms.host]", "[arms.broken]\nloss.local = nan\n\n[arms.host]")
    plan.write_text(broken.replace("seeds = [1, 2]", "seeds = [1]").split("[arms.sgnet]")[0])
    done = CliRunner().invoke(app, [str(plan), "--root", str(dubai), "--runs", str(runs), "--threads", "1"])
    assert done.exit_code == 1
    assert "broken, seed 1: FloatingPointError: loss is nan" in done.stderr
    assert "| host | tile | 1 |" in done.stdout


def test_a_plan_that_is_not_there_is_one_line_with_those_there_are() -> None:
    done = CliRunner().invoke(app, ["mars"])
    assert done.exit_code == 1
    assert "shipped plans: ablations, dubai-cpu, earth-cpu" in done.stderr


def test_a_table_of_nothing_says_so() -> None:
    assert markdown([]) == "nothing is finished yet"
