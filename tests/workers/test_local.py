"""The main job in one process, on a real file, killed and taken up again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from gigamask.errors import BadImage, BadModel, Conflict
from gigamask.geometry import Box
from gigamask.job import JobOptions, Stage
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import mask_folder, read_mask
from gigamask.settings import Settings
from model.predictors import RegionPredictor, load_predictor
from tests.models_for_tests import threshold_model
from tests.pictures import picture, tree
from workers import local
from workers.journal import Journal
from workers.local import Progress, SegmentReport, segment_image

SHAPE = (1100, 1700)
LABELS = (picture(SHAPE)[..., 0] > 127).astype(np.uint8)
REGIONS = 12
OPTIONS = JobOptions(region_px=512)


class Killed(BaseException):
    pass


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "picture.tif"
    tifffile.imwrite(path, picture(SHAPE), photometric="rgb", tile=(256, 256))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return threshold_model(tmp_path / "threshold", tile_px=128, alpha=2)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "result" / "out.zarr"


Run = Callable[..., SegmentReport]


@pytest.fixture
def run(source: Path, model: Path, out: Path) -> Run:
    def call(progress: Callable[[Progress], None] = lambda progress: None, **changed: object) -> SegmentReport:
        given = {"source": source, "model_folder": model, "out": out, "options": OPTIONS, "settings": Settings()}
        return segment_image(**(given | changed), progress=progress)  # type: ignore[arg-type]

    return call


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The regions that the real predictor was asked for."""
    asked: list[int] = []

    def load(*args: object) -> RegionPredictor:
        predictor = load_predictor(*args)  # type: ignore[arg-type]

        class Counting:
            manifest = predictor.manifest

            def predict(self, window: np.ndarray, region: local.RegionWork) -> np.ndarray:
                asked.append(region.index)
                return predictor.predict(window, region)

        return Counting()

    monkeypatch.setattr(local, "load_predictor", load)
    return asked


def kill_at(stage: Stage, fraction: float) -> Callable[[Progress], None]:
    def progress(progress: Progress) -> None:
        if progress.stage is stage and progress.fraction >= fraction:
            raise Killed

    return progress


def test_an_image_becomes_its_mask(run: Run, out: Path) -> None:
    report = run()
    assert np.array_equal(read_mask(mask_folder(out, "threshold"), Box(0, 0, *SHAPE)), LABELS)
    assert np.array_equal(ImagePyramid(out).read(Box(0, 0, *SHAPE)), picture(SHAPE).transpose(2, 0, 1))
    assert report.areas_px == {"dark": int((LABELS == 0).sum()), "bright": int(LABELS.sum())}
    assert (report.width, report.height, report.no_data_px, report.out) == (1700, 1100, 0, out)
    assert (report.regions_total, report.regions_skipped) == (REGIONS, 0)
    assert report.megapixels == pytest.approx(1.87)
    assert set(report.stage_seconds) == {"ingest", "segment", "assemble", "read", "predict", "write"}


def test_nothing_but_the_result_is_left(run: Run, out: Path) -> None:
    run()
    assert list(out.parent.iterdir()) == [out]


def test_progress_tells_each_stage_to_its_end(run: Run) -> None:
    seen: list[Progress] = []
    run(seen.append)
    for stage in Stage:
        fractions = [p.fraction for p in seen if p.stage is stage]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
    assert {p.megapixels for p in seen if p.stage is Stage.SEGMENT} == {1.87}


def test_a_run_that_was_stopped_goes_on_and_gives_the_same_bytes(
    run: Run, out: Path, tmp_path: Path, predicted: list[int]
) -> None:
    whole = tmp_path / "whole.zarr"
    run(out=whole)
    predicted.clear()
    with pytest.raises(Killed):
        run(kill_at(Stage.SEGMENT, 0.4))
    assert not out.exists()
    first = predicted.copy()
    report = run(lambda p: None if p.stage is not Stage.INGEST else pytest.fail("the image was read again"))
    again = predicted[len(first) :]
    assert set(first) | set(again) == set(range(REGIONS))
    assert len(again) < REGIONS
    assert len(first) + len(again) <= REGIONS + 2  # in hand when it was stopped
    assert tree(out) == tree(whole)
    assert report.areas_px == {"dark": int((LABELS == 0).sum()), "bright": int(LABELS.sum())}


def test_a_process_that_was_killed_goes_on_and_gives_the_same_bytes(
    run: Run, source: Path, model: Path, out: Path, tmp_path: Path
) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from gigamask.job import JobOptions\nfrom gigamask.settings import Settings\n"
        "from workers.local import segment_image\n"
        "def die(p):\n"
        "    if p.stage == 'segment' and p.fraction > 0.3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "segment_image(*map(Path, sys.argv[1:]), JobOptions(region_px=512), Settings(), die)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, source, model, out], cwd=os.fspath(Path.cwd()), check=False)
    assert ended.returncode == -signal.SIGKILL
    assert not out.exists()
    with Journal(out.with_name("out.zarr.journal")) as journal:
        assert 0 < len(journal.records) < REGIONS
    run()
    run(out=tmp_path / "whole.zarr")
    assert tree(out) == tree(tmp_path / "whole.zarr")


def test_killed_in_assembly_only_assembly_is_done_again(run: Run, predicted: list[int], out: Path) -> None:
    with pytest.raises(Killed):
        run(kill_at(Stage.ASSEMBLE, 0.0))
    predicted.clear()
    run()
    assert predicted == []
    assert np.array_equal(read_mask(mask_folder(out, "threshold"), Box(0, 0, *SHAPE)), LABELS)


def test_another_model_reuses_the_image_but_no_label(run: Run, predicted: list[int], tmp_path: Path, out: Path) -> None:
    with pytest.raises(Killed):
        run(kill_at(Stage.SEGMENT, 0.4))
    predicted.clear()
    other = threshold_model(tmp_path / "other", tile_px=64, alpha=1, name="other")
    run(lambda p: None if p.stage is not Stage.INGEST else pytest.fail("the image was read again"), model_folder=other)
    assert len(predicted) == REGIONS
    assert [path.name for path in (out / "labels").iterdir() if path.is_dir()] == ["other"]


def test_another_image_under_the_same_name_starts_over(run: Run, predicted: list[int], source: Path, out: Path) -> None:
    with pytest.raises(Killed):
        run(kill_at(Stage.SEGMENT, 0.4))
    predicted.clear()
    tifffile.imwrite(source, 255 - picture(SHAPE), photometric="rgb")
    run()
    assert len(predicted) == REGIONS
    expected = (255 - picture(SHAPE)[..., 0] > 127).astype(np.uint8)
    assert np.array_equal(read_mask(mask_folder(out, "threshold"), Box(0, 0, *SHAPE)), expected)


def test_an_existing_result_is_refused_unless_it_is_to_be_overwritten(run: Run, out: Path) -> None:
    run()
    before = tree(out)
    with pytest.raises(Conflict, match="exists already"):
        run()
    assert tree(out) == before
    run(overwrite=True, options=JobOptions(region_px=1024))
    assert tree(out) != before
    assert list(out.parent.iterdir()) == [out]


def test_only_a_zarr_is_ever_overwritten(run: Run, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "thesis.txt").touch()
    with pytest.raises(Conflict, match="no Zarr"):
        run(overwrite=True)
    assert (out / "thesis.txt").exists()


@pytest.mark.parametrize(("stage", "fraction"), [(Stage.SEGMENT, 0.0), (Stage.ASSEMBLE, 0.0)])
def test_a_failed_overwrite_leaves_the_old_result(run: Run, out: Path, stage: Stage, fraction: float) -> None:
    run()
    before = tree(out)
    with pytest.raises(Killed):
        run(kill_at(stage, fraction), overwrite=True)
    assert tree(out) == before


def test_two_runs_do_not_write_one_result(run: Run, out: Path) -> None:
    with Journal(out.with_name("out.zarr.journal")), pytest.raises(Conflict, match="another process"):
        run()


def test_what_cannot_be_read_is_said_and_leaves_nothing(run: Run, tmp_path: Path, out: Path) -> None:
    with pytest.raises(BadImage, match="No such file"):
        run(source=tmp_path / "absent.tif")
    with pytest.raises(BadModel):
        run(model_folder=tmp_path)
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0" + b"\xff" * 100)
    with pytest.raises(BadImage):
        run(source=broken)
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_a_torn_journal_line_is_a_region_not_done(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as journal:
        journal.begin({"a": 1}, {"b": 2})
        journal.record(local.RegionRecord(0, False, {1: 5}))
    with path.open("a") as stream:
        stream.write('{"region": 1, "ski')
    with Journal(path) as journal:
        assert (journal.image, journal.mask, list(journal.records)) == ({"a": 1}, {"b": 2}, [0])
        journal.record(local.RegionRecord(2, True, {255: 9}))
    with Journal(path) as journal:
        assert journal.records[2] == local.RegionRecord(2, True, {255: 9})
        assert list(journal.records) == [0, 2]


SLIDE = Path(__file__).resolve().parents[2] / "../shared/data/slides/CMU-1-Small-Region.svs"


@pytest.mark.skipif(not SLIDE.is_file(), reason="the sample slide CMU-1-Small-Region.svs is not beside the checkout")
def test_a_real_slide_is_labelled_as_its_pixels_say_and_measured_in_micrometres(run: Run, out: Path) -> None:
    report = run(source=SLIDE)
    image = ImagePyramid(out)
    red = image.read(Box(0, 0, *image.info.shape))[0]
    bright = read_mask(mask_folder(out, "threshold"), Box(0, 0, *image.info.shape)) == 1
    assert np.array_equal(bright, red > 127)
    assert (report.width, report.height, report.unit) == (2220, 2967, "micrometer")
    assert report.areas is not None
    assert sum(report.areas.values()) == pytest.approx(2220 * 2967 * 0.499**2)
