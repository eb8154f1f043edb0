"""`gigamask batch`: many images, through failures and kills, told in a summary that is whole at any moment."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from cli.batch_summary import Record, as_csv, read_summary, write_summary
from cli.main import app
from gigamask.geometry import Box
from gigamask.manifest import NO_DATA
from gigamask.pyramid.result import open_result
from tests.models_for_tests import threshold_model
from tests.pictures import picture
from workers import local

SHAPE = (300, 400)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    threshold_model(folder / "threshold")
    threshold_model(folder / "second", name="second")
    return folder


@pytest.fixture(autouse=True)
def _models_to_choose_from(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIGAMASK_MODELS", str(shelf))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """a.tif and c.png are pictures, broken.tif begins like one, notes.txt does not."""
    folder = tmp_path / "images"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", picture(SHAPE), photometric="rgb", tile=(128, 128))
    (folder / "broken.tif").write_bytes(b"II*\0" + bytes(60))
    Image.fromarray(picture(SHAPE, seed=1)).save(folder / "c.png")
    (folder / "notes.txt").write_text("left and right of the river")
    return folder


def keep_only(images: Path, *names: str) -> None:
    for path in images.iterdir():
        if path.name not in names:
            path.unlink()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["batch", *map(str, arguments)])


def labels_of(out: Path, name: str | None = None) -> np.ndarray[Any, Any]:
    return open_result(out, name).labels(Box(0, 0, *SHAPE))


def summary(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads((folder / "summary.json").read_bytes())["images"]}


def states(folder: Path) -> dict[str, str]:
    return {name: row["state"] for name, row in summary(folder).items()}


def test_a_broken_image_does_not_stop_the_others_and_what_is_done_is_kept(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run(images, "--model", "threshold", "--out", out)
    assert first.exit_code == 1
    assert "notes.txt" in first.stderr
    assert states(out) == {"a": "succeeded", "broken": "failed", "c": "succeeded"}
    assert summary(out)["broken"]["reason"].startswith("bad_image: ")
    for name, seed in (("a", 0), ("c", 1)):
        assert np.array_equal(labels_of(out / f"{name}.zarr"), picture(SHAPE, seed=seed)[..., 0] > 127)
    assert all(word in first.stdout for word in ("threshold", "succeeded", "bad_image", "bright"))

    before, made = summary(out), (out / "a.zarr/zarr.json").stat().st_mtime_ns
    tifffile.imwrite(images / "broken.tif", picture(SHAPE, seed=2), photometric="rgb")
    assert run(images, "--model", "threshold", "--out", out).exit_code == 0
    assert states(out) == {"a": "kept", "broken": "succeeded", "c": "kept"}
    assert (out / "a.zarr/zarr.json").stat().st_mtime_ns == made
    for figure in ("seconds", "megapixels", "areas_px", "shares", "no_data_px"):
        assert summary(out)["a"][figure] == before["a"][figure]


def test_the_csv_says_what_the_json_says(images: Path, tmp_path: Path) -> None:
    keep_only(images, "a.tif", "broken.tif")
    out = tmp_path / "out"
    told = run(images, "--model", "threshold", "--out", out, "--json")
    assert json.loads(told.stdout.splitlines()[-1])["images"] == list(summary(out).values())
    with (out / "summary.csv").open(newline="") as stream:
        rows = {row["name"]: row for row in csv.DictReader(stream)}
    bright = float((picture(SHAPE)[..., 0] > 127).mean())
    assert float(rows["a"]["share of bright"]) == pytest.approx(bright, abs=1e-6)
    assert float(rows["a"]["megapixels"]) == 0.12
    assert rows["broken"]["share of bright"] == ""
    assert rows["broken"]["state"] == "failed"


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for seed in range(2):
        tifffile.imwrite(images / f"{seed}.tif", picture(SHAPE, seed=seed), photometric="rgb")
    command = [sys.executable, "-m", "cli.main", "batch", str(images), "--model", "threshold", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (out / "0.zarr").exists() or states(out)["0"] != "succeeded":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    made = (out / "0.zarr/zarr.json").stat().st_mtime_ns
    assert states(out)["1"] == "waiting"
    assert run(images, "--model", "threshold", "--out", out).exit_code == 0
    assert states(out)["0"] == "kept"
    assert set(states(out).values()) <= {"kept", "succeeded"}
    assert (out / "0.zarr/zarr.json").stat().st_mtime_ns == made
    for seed in range(2):
        assert np.array_equal(labels_of(out / f"{seed}.zarr"), picture(SHAPE, seed=seed)[..., 0] > 127)


def test_the_rows_of_a_manifest_have_models_names_and_choices_of_their_own(images: Path, tmp_path: Path) -> None:
    square = [[10, 20], [60, 20], [60, 90], [10, 90], [10, 20]]
    (images / "left.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    manifest, out = images / "list.csv", tmp_path / "out"
    lines = ["path,model,name,pixel_size_um,roi", 'a.tif,second,one,0.5,"100,50,200,100"', "c.png,,two,,left.geojson"]
    manifest.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    told = run(manifest, "--model", "threshold", "--out", out, "--overlap", "none")
    assert told.exit_code == 0, told.stderr
    assert {name: row["model"] for name, row in summary(out).items()} == {"one": "second", "two": "threshold"}
    assert open_result(out / "one.zarr").info.pixel_size == (0.5, 0.5)
    held = labels_of(out / "one.zarr") != NO_DATA
    assert held[50:150, 100:300].all()
    assert held.sum() == 100 * 200
    assert summary(out)["one"]["no_data_px"] == 300 * 400 - 100 * 200
    assert (labels_of(out / "two.zarr") != NO_DATA).sum() == 50 * 70


def test_several_models_each_give_their_own_output(images: Path, tmp_path: Path) -> None:
    keep_only(images, "a.tif")
    out = tmp_path / "out"
    assert run(images, "-m", "threshold", "-m", "second", "-m", "second", "--out", out).exit_code == 0
    assert states(out) == {"a.threshold": "succeeded", "a.second": "succeeded"}
    assert np.array_equal(labels_of(out / "a.second.zarr", "second"), labels_of(out / "a.threshold.zarr", "threshold"))


def test_files_that_differ_in_their_ending_alone_keep_it(images: Path, tmp_path: Path) -> None:
    Image.fromarray(picture(SHAPE)).save(images / "a.png")
    told = run(images, "-m", "threshold", "--out", tmp_path / "out", "--dry-run", "--json")
    names = [row["name"] for row in json.loads(told.stdout)["images"]]
    assert names == ["a.png", "a.tif", "broken", "c"]


def test_an_output_of_other_options_or_of_an_older_image_is_told_and_left(images: Path, tmp_path: Path) -> None:
    keep_only(images, "a.tif")
    out = tmp_path / "out"
    assert run(images, "-m", "threshold", "--out", out, "--region-px", "512").exit_code == 0
    assert run(images, "-m", "threshold", "--out", out).exit_code == 0, "the region's side changes no label"
    for arguments, word in (
        (["-m", "second"], "of model threshold 1"),
        (["-m", "threshold", "--background", "skip", "--min-object-px", "9"], "(background, min_object_px)"),
    ):
        told = run(images, "--out", out, *arguments)
        assert told.exit_code == 1
        assert word in summary(out)["a"]["reason"]
        assert "--overwrite" in summary(out)["a"]["reason"]
    tifffile.imwrite(images / "a.tif", picture(SHAPE, seed=5), photometric="rgb")
    for _ in range(2):  # a second run must not take the telling for the making
        assert run(images, "-m", "threshold", "--out", out).exit_code == 1
        assert "before it changed" in summary(out)["a"]["reason"]
    assert np.array_equal(labels_of(out / "a.zarr"), picture(SHAPE)[..., 0] > 127)
    assert run(images, "-m", "threshold", "--out", out, "--overwrite").exit_code == 0
    assert np.array_equal(labels_of(out / "a.zarr"), picture(SHAPE, seed=5)[..., 0] > 127)
    assert run(images, "-m", "threshold", "--out", out).exit_code == 0
    assert states(out) == {"a": "kept"}


def test_something_that_is_no_result_is_not_overwritten(images: Path, tmp_path: Path) -> None:
    keep_only(images, "a.tif")
    theirs = tmp_path / "out/a.zarr"
    theirs.mkdir(parents=True)
    (theirs / "thesis.txt").write_text("all of it")
    for arguments in ([], ["--overwrite"]):
        assert run(images, "-m", "threshold", "--out", tmp_path / "out", *arguments).exit_code == 1
        assert states(tmp_path / "out")["a"] == "failed"
        assert (theirs / "thesis.txt").read_text() == "all of it"


def test_a_fault_of_ours_takes_one_image_and_not_the_night(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_on_a(source: Path, *arguments: Any, **options: Any) -> local.SegmentReport:
        if source.name == "a.tif":
            raise RuntimeError("never thought of")
        return whole(source, *arguments, **options)

    whole = local.segment_image
    monkeypatch.setattr(local, "segment_image", fail_on_a)
    assert run(images, "-m", "threshold", "--out", tmp_path / "out").exit_code == 1
    assert states(tmp_path / "out") == {"a": "failed", "broken": "failed", "c": "succeeded"}
    assert summary(tmp_path / "out")["a"]["reason"] == "internal: RuntimeError: never thought of"


def test_a_dry_run_lists_and_does_nothing(images: Path, tmp_path: Path) -> None:
    told = run(images, "-m", "threshold", "--out", tmp_path / "out", "--dry-run")
    assert told.exit_code == 0
    assert told.stdout.count("waiting") == 3
    assert not (tmp_path / "out").exists()


BAD_MANIFESTS = {
    "path\na.tif\n\nnone.tif\n": "list.csv, line 4: there is no file at none.tif",
    "path,modell\na.tif,threshold\n": "line 1: columns are path and any of model, name, pixel_size_um, roi; got",
    "model\nthreshold\n": "line 1: columns are path",
    "path,path\na.tif,c.png\n": "line 1: columns are path",
    "path,name\na.tif\n": "line 2: as many fields as column names; got fewer",
    "path\na.tif,c.png\n": "line 2: as many fields as column names; got more",
    "path,model\na.tif,nonesuch\n": "line 2: no model 'nonesuch'; there are: second, threshold",
    "path,pixel_size_um\na.tif,small\n": "line 2: pixel_size_um is a number, not 'small'",
    "path,pixel_size_um\na.tif,-1\n": "line 2: pixel_size_um: Input should be greater than 0",
    'path,roi\na.tif,"1,2,3"\n': "line 2: a region of interest is a box x,y,width,height",
    "path,roi\na.tif,gone.geojson\n": "line 2: region of interest: ",
    "path,name\na.tif,../a\n": "line 2: a name is that of a file, without a folder; got '../a'",
    "path,name\na.tif,x\nc.png,x\n": "line 3: x.zarr is already that of list.csv, line 2",
    "path\n": "names no image",
    'path\n"a.tif\n': "is no CSV manifest",
}


@pytest.mark.parametrize("text", BAD_MANIFESTS)
def test_what_is_wrong_in_a_manifest_is_told_with_its_line_before_anything_is_done(
    text: str, images: Path, tmp_path: Path
) -> None:
    (images / "list.csv").write_text(text)
    told = run(images / "list.csv", "--model", "threshold", "--out", tmp_path / "out")
    assert told.exit_code == 1
    assert BAD_MANIFESTS[text] in told.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_model_or_a_source_the_way_is_told(images: Path, tmp_path: Path) -> None:
    (images / "list.csv").write_text("path;name\na.tif;x\n")
    for source, word in (
        (images, "needs --model"),
        (images / "list.csv", "line 2: names no model"),
        (images / "c.png", "`gigamask segment`"),
        (images / "nothing", "there is nothing at"),
    ):
        told = run(source, "--out", tmp_path / "out")
        assert told.exit_code == 1
        assert word in told.stderr


def test_a_summary_is_read_back_and_a_broken_one_is_as_none(tmp_path: Path) -> None:
    water = Record("a", "/a.tif", "m", "/a.zarr", "succeeded", "", 1.5, 3.0, 0.5, {"water": 3, "land": 1}, 0, 10, 20)
    tissue = Record("b", "/b.tif", "n", "/b.zarr", "succeeded", areas_px={"tumour": 0})
    write_summary(tmp_path, [water, tissue])
    assert read_summary(tmp_path) == {"a": water, "b": tissue}
    header, first, second = csv.reader(as_csv([water, tissue]).splitlines())
    assert header[-3:] == ["share of water", "share of land", "share of tumour"]
    assert first[-3:] == ["0.750000", "0.250000", ""]
    assert second[-3:] == ["", "", "0.000000"]
    (tmp_path / "summary.json").write_text('{"images": [5]}')
    assert read_summary(tmp_path) == {}
    assert read_summary(tmp_path / "none") == {}
