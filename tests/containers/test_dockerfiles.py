"""The images as their Dockerfiles say them; no engine is needed."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
from pathlib import Path

import pytest

from tests.containers.dockerfile import Stage, read_stages

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
STAGES = {f"{path.stem}:{name}": stage for path in DOCKERFILES for name, stage in read_stages(path).items()}
IMAGES = {name: STAGES[name] for name in ("service:service", "worker:cpu", "worker:gpu")}
SOURCES = ("gigamask", "service", "model", "workers", "cli")
BUILD_TOOLS = ("gcc", "g++", "build-essential", "make", "-dev", "python3-pip", "python3-venv")

every_dockerfile = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
every_image = pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES.keys())


def copied_from(stage: Stage) -> list[tuple[str | None, list[str]]]:
    """(stage, paths) of each COPY; None is the build's context."""
    copies = [instruction.value.split() for instruction in stage.all("COPY")]
    return [
        (words[0].removeprefix("--from="), words[1:-1]) if words[0].startswith("--from=") else (None, words[:-1])
        for words in copies
    ]


def context_paths() -> set[str]:
    return {path for stage in STAGES.values() for source, paths in copied_from(stage) if not source for path in paths}


def test_every_target_is_known() -> None:
    built = {name for name in STAGES if name.split(":")[1] in ("service", "cpu", "gpu")}
    assert built == set(IMAGES)


@every_dockerfile
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@every_image
def test_an_image_runs_as_a_numbered_user_that_is_not_root(image: Stage) -> None:
    user, group = image.last("USER").value.split(":")
    assert int(user) > 0 and int(group) > 0  # numbers, for Kubernetes' runAsNonRoot
    assert image.position("^USER") > max(i for i, each in enumerate(image.instructions) if each.name in ("RUN", "COPY"))


@every_image
def test_all_images_share_one_user_so_that_they_share_one_store(image: Stage) -> None:
    assert image.last("USER") == IMAGES["service:service"].last("USER")


@every_image
def test_a_signal_reaches_the_process_through_an_exec_form(image: Stage) -> None:
    assert image.last("ENTRYPOINT").words == ["tini", "--", "gigamask"]
    assert image.last("CMD").words
    assert "tini" in image.last("RUN").value.split()


@every_image
def test_an_image_has_a_health_check_in_exec_form(image: Stage) -> None:
    check = image.last("HEALTHCHECK").value.partition("CMD ")[2]
    assert check.startswith('["python", "/opt/gigamask/check_health.py"')


@every_image
def test_dependencies_are_copied_before_the_application(image: Stage) -> None:
    assert image.position("^COPY .*/opt/venv$") < image.position("^COPY --from=application")


@every_dockerfile
def test_dependencies_are_installed_without_the_sources_in_reach(path: Path) -> None:
    """So that a change of code rebuilds no dependency."""
    for stage in read_stages(path).values():
        if stage.name.startswith(("requirements", "dependencies")):
            seen = {name for source, paths in copied_from(stage) if not source for name in paths}
            assert seen <= {"pyproject.toml", "docker/list_requirements.py", "docker/constraints.txt"}


@every_dockerfile
def test_the_application_is_built_from_all_packages_and_installs_no_dependency(path: Path) -> None:
    stage = read_stages(path)["application"]
    copied = [path for source, paths in copied_from(stage) for path in paths]
    assert set(SOURCES) <= set(copied)
    assert "--no-deps" in stage.last("RUN").value
    assert stage.position("hatchling") < stage.position("^COPY gigamask")


@every_image
def test_no_build_tool_is_left_in_an_image(image: Stage) -> None:
    installed = image.last("RUN").value.split("&&")[1].split()
    assert not [word for word in installed if word.endswith(BUILD_TOOLS)]
    if "python:3.11" in image.last("FROM").value:
        assert "pip uninstall --yes pip" in image.last("RUN").value


@pytest.mark.parametrize(("target", "package"), [("worker:cpu", "libvips42"), ("worker:gpu", "libvips42t64")])
def test_a_worker_has_the_distributions_libvips(target: str, package: str) -> None:
    assert package in IMAGES[target].last("RUN").value.split()


def test_the_gpu_target_stands_on_cuda_and_brings_the_python_that_its_packages_were_installed_for() -> None:
    gpu, dependencies = IMAGES["worker:gpu"], STAGES["worker:dependencies-gpu"]
    assert "nvidia/cuda:13" in gpu.last("FROM").value and "cudnn-runtime-ubuntu24.04" in gpu.last("FROM").value
    assert dependencies.last("FROM").value.startswith("ubuntu:24.04")


def test_the_build_context_holds_what_is_copied_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == context_paths()


@pytest.mark.parametrize("path", sorted(context_paths()))
def test_what_is_copied_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_compiled_python_stays_out_of_the_context() -> None:
    last = (ROOT / ".dockerignore").read_text().splitlines()[-2:]
    assert any(fnmatch.fnmatch("model/parts/__pycache__", pattern) for pattern in last)
