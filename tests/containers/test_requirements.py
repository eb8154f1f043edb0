"""What an image installs, derived from pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.containers.dockerfile import read_stages

ROOT = Path(__file__).resolve().parents[2]
DEPENDENCIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
LISTS = {
    "service": ("service.Dockerfile", "requirements.txt"),
    "cpu": ("worker.Dockerfile", "cpu.txt"),
    "gpu": ("worker.Dockerfile", "gpu.txt"),
}


def run_script(*options: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, ROOT / "docker" / "list_requirements.py", ROOT / "pyproject.toml", *options]
    return subprocess.run(script, capture_output=True, text=True)


def options_of(image: str) -> list[str]:
    """The options with which the image's Dockerfile calls the script."""
    dockerfile, list_name = LISTS[image]
    command = read_stages(ROOT / "docker" / dockerfile)["requirements"].last("RUN").value
    call = next(part for part in command.split("&&") if part.strip().endswith(f"> {list_name}"))
    return re.findall(r"--(?:without|replace) \S+", call)


def requirements_of(image: str) -> dict[str, Requirement]:
    words = [word for option in options_of(image) for word in option.split()]
    done = run_script(*words)
    assert done.returncode == 0, done.stderr
    listed = [Requirement(line) for line in done.stdout.splitlines()]
    return {requirement.name: requirement for requirement in listed}


def test_without_options_the_list_is_pyprojects_own() -> None:
    assert run_script().stdout.splitlines() == DEPENDENCIES


def test_a_worker_takes_its_libvips_from_the_distribution() -> None:
    for image in ("cpu", "gpu"):
        listed = requirements_of(image)
        assert "pyvips" in listed and "pyvips-binary" not in listed
        assert {"openslide-bin", "openslide-python"} <= set(listed)


def test_an_image_holds_one_onnx_runtime() -> None:
    """The two builds share files."""
    assert {"onnxruntime", "onnxruntime-gpu"} & set(requirements_of("cpu")) == {"onnxruntime"}
    assert {"onnxruntime", "onnxruntime-gpu"} & set(requirements_of("gpu")) == {"onnxruntime-gpu"}
    assert requirements_of("gpu")["onnxruntime-gpu"].specifier == requirements_of("cpu")["onnxruntime"].specifier


def test_extras_survive() -> None:
    assert requirements_of("service")["uvicorn"].extras == {"standard"}


@pytest.mark.parametrize("option", ["--without=pyvips-binaries", "--replace=onnx-runtime=onnxruntime-gpu"])
def test_a_name_that_is_no_dependency_fails(option: str) -> None:
    done = run_script(option)
    assert done.returncode != 0
    assert "expected dependencies of pyproject.toml" in done.stderr


@pytest.mark.parametrize("image", LISTS)
def test_every_requirement_is_pinned_to_a_version_that_it_allows(image: str) -> None:
    lines = (ROOT / "docker" / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    for name, requirement in requirements_of(image).items():
        assert requirement.specifier.contains(pins[name]), f"{requirement} against {pins[name]}"
