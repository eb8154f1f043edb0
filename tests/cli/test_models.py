"""`gigamask models`: from a file on disk to a model that segments, and away again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from gigamask.geometry import Box
from gigamask.pyramid.mask import mask_folder, read_mask
from gigamask.settings import SHIPPED_MODELS, Settings, own_models
from tests.model.adoption.graphs import red_graph
from tests.pictures import picture

Run = Callable[..., Result]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder of models beside the shipped ones."""
    folder = tmp_path / "models"
    monkeypatch.setenv("GIGAMASK_MODELS", f"{SHIPPED_MODELS}:{folder}")
    monkeypatch.setenv("COLUMNS", "200")
    return folder


@pytest.fixture
def run(shelf: Path) -> Run:
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def added(run: Run, tmp_path: Path) -> Result:
    return add(run, red_graph(tmp_path / "brought.onnx"))


def add(run: Run, graph: Path, *more: object) -> Result:
    options = (
        "--name",
        "mine",
        "--classes",
        "dark,1=bright:#ffee00",
        "--um-per-px",
        0.5,
        "--tile",
        64,
        "--range",
        "0,1",
    )
    return run("models", "add", graph, *options, "--activation", "sigmoid", "--license", "MIT", *more)


@pytest.mark.usefixtures("added")
def test_from_a_file_to_a_mask(run: Run, shelf: Path, tmp_path: Path) -> None:
    listed = run("models", "list", "--json")
    (mine,) = (m for m in json.loads(listed.stdout) if m["name"] == "mine")
    assert mine["pixel_size"] == {"value": 0.5, "unit": "micrometer"}
    assert mine["classes"][1] == {"id": 1, "name": "bright", "color": "#ffee00"}
    source, out = tmp_path / "picture.tif", tmp_path / "out.zarr"
    tifffile.imwrite(source, picture((130, 200)), photometric="rgb")
    done = run("segment", source, "--model", "mine", "--out", out, "--pixel-size-um", 0.5)
    assert done.exit_code == 0, done.output
    found = read_mask(mask_folder(out, "mine"), Box(0, 0, 130, 200))
    np.testing.assert_array_equal(found, picture((130, 200))[..., 0] > 127)
    checked = run("models", "check", "mine", "--json")
    assert json.loads(checked.stdout) == {
        "name": "mine",
        "files": ["model.onnx", "test_vector.npz"],
        "label_agreement": 1.0,
    }
    assert run("models", "remove", "mine", "--yes").exit_code == 0
    assert list(shelf.iterdir()) == []


def test_what_was_assumed_is_shown(run: Run, tmp_path: Path) -> None:
    graph = red_graph(tmp_path / "brought.onnx")
    found = run("models", "add", graph, "--classes", "dark,bright", "--license", "MIT", "--mean", "0.1", "--std", "0.9")
    assert found.exit_code == 0, found.output
    words = " ".join(found.stderr.split())
    for told in (
        "brought, from the file's",
        "512 px",
        "mean and std are of pixels in 0..1",
        "raw scores",
        "large a pixel",
    ):
        assert told in words


def test_a_dry_run_checks_and_writes_nothing(run: Run, shelf: Path, tmp_path: Path) -> None:
    found = add(run, red_graph(tmp_path / "brought.onnx"), "--dry-run", "--json")
    told = json.loads(found.stdout.splitlines()[-1])
    assert told["written"] is None
    assert told["manifest"]["tile_px"] == 64
    assert not shelf.exists()


def test_a_refusal_writes_nothing_and_is_told_with_its_code(run: Run, shelf: Path, tmp_path: Path) -> None:
    graph = red_graph(tmp_path / "brought.onnx")
    found = add(run, graph, "--threshold", 3, "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout.splitlines()[-1])["error"]["code"] == "invalid_option"
    assert not shelf.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--scale", "1/255", "--range", "0,1"), "--range or --scale, not both"),
        (("--scale", "0"), "positive number or a fraction"),
        (("--range", "1"), "--range is two numbers"),
        (("--range", "1,0"), "low < high"),
        (("--mean", "a,b"), "--mean is a number or three"),
        (("--std", "0"), "std is positive"),
        (("--um-per-px", "0"), "positive length"),
        (("--um-per-px", "1", "--m-per-px", "1"), "one size"),
        (("--classes", "a,b:green"), "id=name:#rrggbb"),
        (("--classes", "0=a,2=b"), "without a gap"),
        (("--classes", "absent.json"), "No such file"),
    ],
)
def test_a_wrong_option_is_told(options: tuple[str, ...], words: str, run: Run, tmp_path: Path) -> None:
    found = run("models", "add", red_graph(tmp_path / "a.onnx"), "--license", "MIT", *options)
    assert found.exit_code == 1
    assert words in " ".join(found.stderr.split())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.json", '["dark", "bright"]'),
        ("classes.json", '[{"name": "bright", "id": 1}, {"name": "dark", "id": 0, "color": "#000000"}]'),
        ("config.json", '{"id2label": {"0": "dark", "1": "bright"}, "model_type": "segformer"}'),
        ("classes.csv", "id,name,color\n0,dark,#000000\n1,bright,\n"),
        ("classes.csv", "name\ndark\nbright\n"),
    ],
)
def test_classes_come_from_a_file(name: str, text: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    found = add(run, red_graph(tmp_path / "a.onnx"), "--classes", tmp_path / name, "--json")
    classes = json.loads(found.stdout.splitlines()[-1])["manifest"]["classes"]
    assert [entry["name"] for entry in classes] == ["dark", "bright"]


def test_the_list_tells_what_a_tile_really_sees(run: Run, tmp_path: Path) -> None:
    add(run, red_graph(tmp_path / "a.onnx"), "--halo", 8)
    rows = {line.split()[1]: line for line in run("models").stdout.splitlines() if line.startswith("│")}
    assert "halo 400 px" in rows["dubai-landcover"]
    assert "surround 1024 px" in rows["earth-water"]
    assert "halo 16 px" in rows["mine"]  # 8 asked for, 96 px seen: sides are taken in steps of 32


@pytest.mark.usefixtures("added")
def test_a_broken_folder_is_told_and_hides_none_of_the_others(run: Run, shelf: Path) -> None:
    (shelf / "broken").mkdir()
    (shelf / "broken" / "model.json").write_text("{")
    found = run("models", "--json")
    assert found.exit_code == 0
    assert {"mine", "earth-water"} <= {m["name"] for m in json.loads(found.stdout)}
    assert "broken/model.json" in found.stderr


@pytest.mark.usefixtures("added")
def test_a_changed_file_fails_its_check(run: Run, shelf: Path) -> None:
    with (shelf / "mine" / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    found = run("models", "check", "mine")
    assert found.exit_code == 1
    assert "sha256" in found.stderr


def test_the_shipped_models_pass_their_check_and_stay(run: Run) -> None:
    assert run("models", "check", "earth-water").exit_code == 0
    found = run("models", "remove", "earth-water", "--yes")
    assert found.exit_code == 1
    assert "comes with Gigamask" in found.stderr
    assert (SHIPPED_MODELS / "earth-water" / "model.json").exists()


@pytest.mark.usefixtures("added")
def test_removing_asks_first(run: Run, shelf: Path) -> None:
    assert CliRunner().invoke(app, ["models", "remove", "mine"], input="n\n").exit_code == 1
    assert (shelf / "mine").exists()


def test_without_a_setting_models_go_where_the_service_looks_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIGAMASK_MODELS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert own_models() == tmp_path / "gigamask" / "models"
    assert Settings().models == (SHIPPED_MODELS, own_models())
    runner = CliRunner()
    found = add(lambda *a: runner.invoke(app, [str(x) for x in a]), red_graph(tmp_path / "a.onnx"))
    assert found.exit_code == 0, found.output
    assert (own_models() / "mine" / "model.json").exists()


def test_a_package_that_is_not_here_is_told_with_what_to_do(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['onnx'] = None; sys.argv = ['gigamask', 'models', 'add', 'a.onnx', '--to', '.']\n"
        "from cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs the package 'onnx'" in done.stderr


def test_a_folder_that_the_service_does_not_look_into_is_told(run: Run, tmp_path: Path) -> None:
    found = add(run, red_graph(tmp_path / "a.onnx"), "--to", tmp_path / "elsewhere")
    assert found.exit_code == 0
    assert "GIGAMASK_MODELS does not name" in found.stderr
    shutil.rmtree(tmp_path / "elsewhere")
