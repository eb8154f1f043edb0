"""The command line teaches, answers at once, and says what went wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app

COMMANDS = (
    "segment",
    "batch",
    "up",
    "serve",
    "worker",
    "submit",
    "status",
    "models",
    "info",
    "doctor",
    "demo",
    "export",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['gigamask', '--help']\n"
        "from cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pyvips', 'tensorstore', 'onnxruntime', 'zarr', 'fastapi', 'redis'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_model_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(b"")
    result = CliRunner().invoke(app, ["segment", str(image), "--model", "nonesuch", "--out", str(tmp_path / "o.zarr")])
    assert result.exit_code == 1
    assert "nonesuch" in result.stderr
    assert "earth-water" in result.stderr


def test_an_absent_service_is_told_with_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["status", "--server", "http://127.0.0.1:9", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout.splitlines()[-1])["error"]["code"] == "server_unreachable"
    assert "gigamask up" in result.stderr


def test_doctor_finds_what_the_tests_need() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    found = {finding["part"]: finding for finding in json.loads(result.stdout)}
    assert found["libvips"]["ok"]
    assert found["OpenSlide"]["ok"]
    assert found["Redis, embedded"]["ok"]
    assert found["ONNX Runtime"]["ok"]


@pytest.mark.parametrize(
    "option",
    [
        ("--pixel-size-um", "0"),
        ("--region-px", "700"),
        ("--sample-range", "5", "inf"),
        ("--roi", "1,2,3"),
        ("--roi", "nowhere.geojson"),
        ("--min-object-px", "1000000"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_read(tmp_path: Path, option: tuple[str, ...]) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(b"not even an image")
    arguments = ["segment", str(image), "--model", "earth-water", "--out", str(tmp_path / "o.zarr"), *option]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "invalid_option" in result.stderr
    assert not (tmp_path / "o.zarr").exists()
