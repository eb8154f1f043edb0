"""A file of a result is whole or not there, whatever happens while it is made."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gigamask.errors import Conflict, InsufficientStorage, InvalidOption, NotFound
from gigamask.exports import catalog
from gigamask.exports.building import fraction_of, hold, lock_path, sweep_folder
from gigamask.exports.catalog import (
    DEFAULTS,
    FORMATS,
    ExportOptions,
    Format,
    Progress,
    download_name,
    export,
    find_format,
    read_options,
    write_options,
)
from gigamask.exports.overlay import OPACITY
from gigamask.geometry import Box
from gigamask.pyramid.result import Result
from gigamask.roi import parse_roi
from gigamask.store import attempt
from tests.exports.results_for_tests import blobs, make_result


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return make_result(tmp_path_factory.mktemp("result") / "a.zarr", blobs((600, 900)))


def with_format(monkeypatch: pytest.MonkeyPatch, entry: Format) -> None:
    monkeypatch.setattr(catalog, "FORMATS", (entry,))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def odd_format(write: catalog.Write, **more: object) -> Format:
    return replace(Format("odd.bin", "odd", "Odd", "application/octet-stream", write), **more)


def test_every_format_has_its_own_names() -> None:
    assert len({entry.name for entry in FORMATS} | {entry.short for entry in FORMATS}) == 2 * len(FORMATS)
    for entry in FORMATS:
        assert find_format(entry.name) is find_format(entry.short) is entry


@pytest.mark.parametrize("entry", FORMATS, ids=lambda entry: entry.short)
def test_every_format_is_written_or_refused_with_a_reason(entry: Format, result: Result, tmp_path: Path) -> None:
    seen: list[float] = []
    target = tmp_path / "out" / entry.name
    if entry.offered(result):
        with pytest.raises(Conflict, match=r"cannot be had"):
            export(result.root, entry.name, target, progress=seen.append)
        assert not target.exists()
        return
    export(result.root, entry.name, target, progress=seen.append)
    assert target.exists()
    assert names_in(target.parent) == [entry.name]
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert all(0 <= fraction <= 1 for fraction in seen)


def test_a_format_that_is_not_there_is_told_with_those_that_are(result: Result, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there are: ome-tiff, cog"):
        export(result.root, "mask.bmp", tmp_path / "mask.bmp")


def test_what_fails_leaves_nothing_and_replaces_nothing(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_result: Result, target: Path, _options: ExportOptions, _progress: Progress) -> None:
        target.write_bytes(b"half")
        (target.parent / "draft").write_bytes(b"half")
        raise InvalidOption("no")

    with_format(monkeypatch, odd_format(fail))
    target = tmp_path / "odd.bin"
    target.write_bytes(b"the last one")
    with pytest.raises(InvalidOption):
        export(result.root, "odd", target)
    assert names_in(tmp_path) == ["odd.bin"]
    assert target.read_bytes() == b"the last one"


@pytest.mark.parametrize("words", [OSError(errno.ENOSPC, "x"), RuntimeError("GDAL: write failed: Disk quota exceeded")])
def test_a_full_disk_is_told_as_such(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Exception
) -> None:
    def fail(*_: object) -> None:
        raise words

    with_format(monkeypatch, odd_format(fail))
    with pytest.raises(InsufficientStorage):
        export(result.root, "odd", tmp_path / "odd.bin")


def test_what_a_result_cannot_be_had_as_says_why(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_format(monkeypatch, odd_format(lambda *_: None, offered=lambda result: "it is no map"))
    with pytest.raises(Conflict, match="it is no map"):
        export(result.root, "odd", tmp_path / "odd.bin")


def test_remains_of_a_killed_writer_are_swept_by_the_next(result: Result, tmp_path: Path) -> None:
    target = tmp_path / "mask.tif"
    stale = tmp_path / f"mask.tif.{'0' * 32}.partial"
    stale.with_suffix(".lock").touch()
    stale.mkdir()
    (stale / "draft.tif").write_bytes(b"half")
    export(result.root, "cog", target)
    assert names_in(tmp_path) == ["mask.tif"]


def test_options_survive_the_way_to_another_process() -> None:
    options = ExportOptions(
        label="a", colors={3: "#00ff00", 0: "#ff8800"}, simplify_px=1.5, roi=parse_roi("10,20,30,40"), min_area_px=7
    )
    assert read_options(write_options(options)) == options
    assert read_options("{}") == DEFAULTS
    again = replace(options, colors={0: "#ff8800", 3: "#00ff00"})
    assert write_options(again) == write_options(options)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"nonesuch": 1}', '{"colors": {"x": "#ffffff"}}', '{"roi": {"a": 1}}']
)
def test_what_are_no_options_is_refused(text: str) -> None:
    with pytest.raises(InvalidOption):
        read_options(text)


def test_a_format_leaves_alone_what_it_does_not_take() -> None:
    options = ExportOptions(colors={0: "#ff8800"}, simplify_px=2.0, min_area_px=9)
    assert find_format("cog").narrow(options) == ExportOptions(colors={0: "#ff8800"})
    assert find_format("ozx").narrow(options) == DEFAULTS


def test_a_download_is_named_after_its_image_and_model() -> None:
    names = {entry.name: download_name("slide-land", entry) for entry in FORMATS}
    assert names["mask.ome.tif"] == "slide-land.ome.tif"
    assert names["mask-0.4.zarr"] == "slide-land-0.4.zarr"
    assert names["overlay.png"] == "slide-land-overlay.png"


def test_an_overlay_is_the_image_under_its_colours(result: Result, tmp_path: Path) -> None:
    export(result.root, "overlay", tmp_path / "o.png", ExportOptions(colors={1: "#ff0000"}))
    shown = np.asarray(Image.open(tmp_path / "o.png"))
    whole = Box(0, 0, *result.shape)
    pixels, labels = result.pixels(whole)[:3], result.labels(whole)
    assert shown.shape == (*labels.shape, 3)
    bare, red = labels == 255, labels == 1
    np.testing.assert_array_equal(shown[bare], np.moveaxis(pixels, 0, -1)[bare])
    expected = np.moveaxis(pixels, 0, -1)[red] * (1 - OPACITY) + np.array([255, 0, 0]) * OPACITY
    assert np.abs(shown[red] - expected).max() <= 0.51


def test_an_ozx_is_the_result_in_one_file(result: Result, tmp_path: Path) -> None:
    export(result.root, "ozx", tmp_path / "a.ozx")
    with zipfile.ZipFile(tmp_path / "a.ozx") as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "zarr.json"
        assert len(archive.namelist()) == sum(p.is_file() for p in result.root.rglob("*"))


# -- one builder a file


def test_a_target_has_one_builder_and_others_see_how_far_it_is(tmp_path: Path) -> None:
    target = tmp_path / "mask.tif"
    assert fraction_of(target) is None
    with hold(target) as tell:
        assert tell is not None
        assert fraction_of(target) == 0.0
        tell(0.25)
        assert fraction_of(target) == 0.25
        with hold(target) as other:
            assert other is None
    assert fraction_of(target) is None
    assert names_in(tmp_path) == []


def start(result: Result, target: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gigamask.exports", str(result.root), "mask.tif", str(target), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def said(child: subprocess.Popen[bytes]) -> dict[str, object]:
    """The last line; an exit code that fits it."""
    output, errors = child.communicate(timeout=60)
    last: dict[str, object] = json.loads(output.splitlines()[-1])
    assert child.returncode == (1 if "problem" in last else 0), errors
    return last


def test_a_process_makes_the_file_and_a_second_one_leaves_it(result: Result, tmp_path: Path) -> None:
    target = tmp_path / "mask.tif"
    with start(result, target) as child:
        assert said(child) == {"done": True}
    made = target.stat()
    with start(result, target) as child:
        assert said(child) == {"done": True}
    assert target.stat().st_ino == made.st_ino
    assert names_in(tmp_path) == ["mask.tif"]


def test_a_process_that_finds_another_at_work_says_so(result: Result, tmp_path: Path) -> None:
    target = tmp_path / "mask.tif"
    with hold(target), start(result, target) as child:
        assert said(child) == {"elsewhere": True}
    assert not target.exists()


HOLD = """
import sys, time
from pathlib import Path
from gigamask.exports.building import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_dead_builder_holds_nothing(result: Result, tmp_path: Path) -> None:
    target = tmp_path / "mask.tif"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert fraction_of(target) == 0.0
        holder.send_signal(signal.SIGKILL)
    assert lock_path(target).exists()
    assert fraction_of(target) is None
    with start(result, target) as child:
        assert said(child) == {"done": True}
    assert names_in(tmp_path) == ["mask.tif"]


def test_a_folder_is_swept_of_what_the_dead_left_and_of_nothing_else(tmp_path: Path) -> None:
    kept, dead = tmp_path / "mask.tif", tmp_path / "other.tif"
    kept.touch()
    lock_path(dead).write_text("0.5")
    remains = tmp_path / f"other.tif.{'0' * 32}.partial"
    remains.with_suffix(".lock").touch()
    remains.mkdir()
    with hold(tmp_path / "living.tif"), attempt(tmp_path / "living.tif") as living:
        sweep_folder(tmp_path)
        assert names_in(tmp_path) == sorted(
            ["living.tif.building", living.folder.name, living.folder.with_suffix(".lock").name, "mask.tif"]
        )


def test_too_little_memory_is_a_problem_and_no_file(result: Result, tmp_path: Path) -> None:
    with start(result, tmp_path / "mask.tif", "--memory-bytes", str(40 * 1024**2)) as child:
        output, _ = child.communicate(timeout=60)
    assert child.returncode != 0
    assert b'"done"' not in output
    assert not (tmp_path / "mask.tif").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells children of their parent's death on Linux alone")
def test_a_process_dies_with_the_one_that_started_it(result: Result, tmp_path: Path) -> None:
    with start(result, tmp_path / "mask.tif", "--parent", str(os.getppid())) as child:
        child.wait(30)  # its parent is this process, and not the one that it was told
    assert child.returncode == -signal.SIGKILL
