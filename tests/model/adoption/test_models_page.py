"""docs/models.md from its first block to its last, as a reader would type it."""

from __future__ import annotations

import io
import re
import runpy
import shlex
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.main import get_command
from typer.testing import CliRunner

from cli import models
from cli.main import app

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "models.md"
_BLOCK = re.compile(r"```(sh|python)\n(.*?)```", re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """Each line's words; a backslash at its end joins the next."""
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def follow(kind: str, block: str) -> str:
    """What the block prints. In this process, where torch is loaded once: each `gigamask` of a shell takes seconds."""
    if kind == "python":
        with redirect_stdout(io.StringIO()) as printed:
            Path("block.py").write_text(block)
            runpy.run_path("block.py", run_name="__main__")
        return printed.getvalue()
    told = []
    for program, *arguments in commands(block):
        assert program == "gigamask"
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        told.append(done.stdout)
    return "".join(told)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the page has been followed."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as changed, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exporters and of tracing, which a reader would see
        changed.chdir(folder)
        changed.setenv("XDG_DATA_HOME", str(folder / "data"))
        changed.setenv("COLUMNS", "160")
        changed.delenv("GIGAMASK_MODELS", raising=False)
        blocks = _BLOCK.findall(PAGE.read_text(encoding="utf-8"))
        (folder / "printed").write_text("".join(follow(kind, block) for kind, block in blocks))
    yield folder


@pytest.mark.parametrize(("result", "model", "classes"), [("tissue", "tissue-unet", 2), ("roofs", "roofs", 3)])
def test_each_network_of_the_page_ends_in_a_mask(result: str, model: str, classes: int, folder: Path) -> None:
    mask = np.asarray(zarr.open_array(folder / f"{result}.zarr" / "labels" / model / "0", mode="r"))
    assert mask.shape == (700, 900)
    assert int(mask.max()) < classes


def test_the_page_shows_what_it_says(folder: Path) -> None:
    printed = (folder / "printed").read_text()
    assert "nothing written; without --dry-run it goes to" in printed
    assert "tissue-unet: 2 files are as its manifest says; 100.000% of its test vector" in printed
    assert (folder / "data" / "gigamask" / "models" / "roofs" / "model.json").is_file()
    assert (folder / "models" / "roofs-again" / "model.json").is_file()


def test_every_option_of_the_command_stands_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    (command,) = (c for name, c in get_command(models.app).commands.items() if name == "add")  # type: ignore[attr-defined]
    unexplained = {"--help", "--title", "--version", "--layout", "--name"}
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    assert [option for option in sorted(options - unexplained) if option not in page] == []
