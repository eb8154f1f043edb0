"""`make demo` as a new user runs it: the whole Earth, and the model's claim about the half that it never saw."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import zarr

from gigamask.settings import SHIPPED_MODELS
from tests.e2e.conftest import ROOT

TOLERANCE = 0.003


def claimed_iou() -> dict[str, float]:
    """From the table of scores on the model's card."""
    card = (SHIPPED_MODELS / "earth-water" / "README.md").read_text()
    row = next(line for line in card.splitlines() if line.startswith("| SGNet (this model) |"))
    ocean, land, lake = (float(cell) for cell in row.split("|")[2:5])
    return {"ocean": ocean, "land": land, "lake": lake}


def test_the_demo_reaches_the_scores_that_the_model_card_claims(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "demo", "--out", str(tmp_path), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["iou"] == pytest.approx(claimed_iou(), abs=TOLERANCE)
    assert sum(told["areas_px"].values()) == 5400 * 2700
    assert zarr.open_group(told["out"], mode="r")["labels/earth-water/0"].shape == (2700, 5400)
    assert Path(told["overlay"]).read_bytes().startswith(b"\x89PNG")
