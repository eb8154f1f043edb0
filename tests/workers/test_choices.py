"""All that a job may choose, together, on a slide whose mask is known: region of interest, background, resolution,
overlap, smallest object and probabilities, in one process and through the queue, whatever kills it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from gigamask.geometry import Box
from gigamask.image_info import ReadOptions
from gigamask.job import Job, JobOptions, Overlap, RegionOutcomes, Stage, State
from gigamask.manifest import NO_DATA, PixelSize, read_manifest
from gigamask.plan import plan_job
from gigamask.pyramid import ngff
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskWriter, mask_folder, read_mask
from gigamask.pyramid.probabilities import ProbabilityPyramid, probability_folder
from gigamask.queue.job_store import JobStore
from gigamask.roi import Roi, inside, parse_roi
from gigamask.settings import Settings
from gigamask.sieve import sieve
from gigamask.store import Store, new_id, partial
from gigamask.tissue import find_tissue
from tests.models_for_tests import SOFTNESS, THRESHOLD, scored_model, threshold_model
from tests.pictures import tree, write_image
from workers import assemble, sieving
from workers.local import Progress, SegmentReport, segment_image
from workers.loop import run_worker
from workers.sieving import remove_raw

Pixels = NDArray[np.uint8]

SHAPE, WHOLE = (1400, 1900), Box(0, 0, 1400, 1900)
T, SCALE, MIN_OBJECT_PX = 64, 2, 60
HALF_MICROMETRE = PixelSize(value=0.5, unit="micrometer")
GLASS, STROMA, NUCLEUS = (243, 242, 244), (214, 120, 165), (90, 30, 130)
ROI = parse_roi(
    {"type": "Polygon", "coordinates": [[[150, 90.5], [1500, 30], [1700.3, 1210], [610, 1333], [150, 90.5]]]}, "pixel"
)


def slide() -> Pixels:
    """(h, w, 3) at 0.25 um: made of blocks of 2 x 2, so that at 0.5 um nothing is lost."""
    y, x = np.mgrid[: SHAPE[0] // 2, : SHAPE[1] // 2]
    tissue = ((y - 250) ** 2 + (x - 250) ** 2 < 190**2) | ((abs(y - 520) < 120) & (abs(x - 700) < 150))
    noise = np.random.default_rng(0).random(tissue.shape)
    nuclei = tissue & ((noise > 0.97) | (np.sin(y / 11) * np.sin(x / 13) > 0.6))
    colors = np.select([nuclei[..., None], tissue[..., None]], [np.array(NUCLEUS), np.array(STROMA)], np.array(GLASS))
    return colors.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("slide") / "image.zarr"
    return write_image(root, slide(), pixel_size=(0.25, 0.25), unit="micrometer")


def options(**changed: object) -> JobOptions:
    chosen = {"region_px": 512, "roi": ROI, "background": "skip", "min_object_px": MIN_OBJECT_PX, "probabilities": True}
    return JobOptions.model_validate(chosen | changed)


def kept_pixels(image: Path, roi: Roi = ROI) -> NDArray[np.bool_]:
    """Cell by cell and pixel by pixel, as the words say it."""
    tissue, within = find_tissue(ImagePyramid(image)), inside(roi, WHOLE)
    assert tissue.level == 0
    kept, side = np.zeros(SHAPE, bool), T * SCALE
    for y in range(0, SHAPE[0], side):
        for x in range(0, SHAPE[1], side):
            cell = Box(y, x, y + side, x + side).clip(SHAPE)
            kept[cell.slices] = within[cell.slices] if tissue.mask[cell.slices].any() else False
    return kept


def expected_labels(image: Path) -> Pixels:
    raw = np.where(kept_pixels(image), slide()[..., 0] > THRESHOLD, NO_DATA).astype(np.uint8)
    return sieve(raw, MIN_OBJECT_PX, WHOLE)


def expected_probabilities(image: Path) -> Pixels:
    """(2, h, w)"""
    dark = 1 / (1 + np.exp(-2 * (THRESHOLD + 0.5 - slide()[..., 0].astype(float)) / SOFTNESS))
    return np.where(kept_pixels(image), np.rint(255 * np.stack([dark, 1 - dark])), 0).astype(np.uint8)


def labels_of(result: Path, model: str = "scored") -> Pixels:
    return read_mask(mask_folder(result, model), WHOLE)


def own_attributes(result: Path) -> ngff.Attributes:
    found: ngff.Attributes = ngff.read_attributes(mask_folder(result, "scored"))["gigamask"]
    return found


def skipped_regions(labels: Pixels, region_px: int = 512) -> set[int]:
    rows, cols = (range(0, n, region_px) for n in SHAPE)
    corners = [(y, x) for y in rows for x in cols]
    return {k for k, (y, x) in enumerate(corners) if (labels[y : y + region_px, x : x + region_px] == NO_DATA).all()}


# -- in one process


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scored_model(tmp_path_factory.mktemp("models") / "scored", T, size=HALF_MICROMETRE)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "slide.tif"
    tifffile.imwrite(path, slide(), photometric="rgb", tile=(256, 256))
    return path


READ = ReadOptions(pixel_size_um=0.25)


def segment(source: Path, model: Path, out: Path, chosen: JobOptions, **more: object) -> SegmentReport:
    return segment_image(source, model, out, chosen.model_copy(update={"read": READ}), Settings(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("region_px", "overlap"), [(512, "none"), (1024, "none"), (512, "half"), (2048, "gaussian")])
def test_the_mask_and_the_probabilities_are_what_the_choices_say(
    source: Path, model: Path, image: Path, tmp_path: Path, region_px: int, overlap: Overlap
) -> None:
    out = tmp_path / "out.zarr"
    report = segment(source, model, out, options(region_px=region_px, overlap=overlap))
    expected = expected_labels(image)
    assert np.array_equal(labels_of(out), expected)
    found = ProbabilityPyramid(probability_folder(out)).read(WHOLE)
    assert np.abs(found - expected_probabilities(image).astype(int)).max() <= 1
    assert report.areas_px == {"dark": (expected == 0).sum(), "bright": (expected == 1).sum()}
    assert report.no_data_px == (expected == NO_DATA).sum()
    assert set(own_attributes(out)["skipped_regions"]) == skipped_regions(expected, region_px)
    assert own_attributes(out)["scale"] == SCALE
    assert own_attributes(out)["region_px"] == region_px
    assert sorted(path.name for path in out.iterdir() if path.is_dir() and not path.name.isdigit()) == [
        "labels",
        "probabilities",
    ]


class Killed(BaseException):
    pass


Undisturbed = tuple[dict[str, bytes], SegmentReport]


@pytest.fixture(scope="module")
def undisturbed(source: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The files and the report of a run that nothing killed."""
    out = tmp_path_factory.mktemp("whole") / "out.zarr"
    report = segment(source, model, out, options())
    return tree(out), report


@pytest.mark.parametrize("fraction", [0.1, 0.34, 0.7])
def test_killed_in_assembly_it_goes_on_to_the_same_bytes(
    source: Path, model: Path, tmp_path: Path, fraction: float, undisturbed: Undisturbed
) -> None:
    """While small objects are taken away; while levels are built, of the mask and of the probabilities."""

    def die(progress: Progress) -> None:
        if progress.stage is Stage.ASSEMBLE and progress.fraction >= fraction:
            raise Killed

    out = tmp_path / "out.zarr"
    with pytest.raises(Killed):
        segment(source, model, out, options(), progress=die)
    report = segment(source, model, out, options())
    assert tree(out) == undisturbed[0]
    assert (report.areas_px, report.no_data_px) == (undisturbed[1].areas_px, undisturbed[1].no_data_px)
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("step", ["_write_metadata", "_remove_locks", "remove_raw"])
def test_killed_at_the_last_steps_it_goes_on_to_the_same_bytes(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, undisturbed: Undisturbed
) -> None:
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(assemble, step, _die)
        segment(source, model, tmp_path / "out.zarr", options())
    segment(source, model, tmp_path / "out.zarr", options())
    assert tree(tmp_path / "out.zarr") == undisturbed[0]


def test_killed_while_raw_labels_are_removed_it_goes_on_to_the_same_bytes(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Undisturbed
) -> None:
    remove = shutil.rmtree

    def remove_some(folder: Path, ignore_errors: bool = False) -> None:
        remove(folder / "scored" / "0", ignore_errors=True)
        if folder.exists():
            raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(sieving.shutil, "rmtree", remove_some)
        segment(source, model, tmp_path / "out.zarr", options())
    report = segment(source, model, tmp_path / "out.zarr", options())
    assert tree(tmp_path / "out.zarr") == undisturbed[0]
    assert report.areas_px == undisturbed[1].areas_px


def test_who_lost_the_assembly_to_another_writes_nothing_from_labels_that_are_gone(
    source: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was paused, and wakes between another's removal of the raw labels and its publication."""
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(assemble, "remove_raw", _die)
        segment(source, model, tmp_path / "out.zarr", options())
    root = partial(tmp_path / "out.zarr")
    mask, before = mask_folder(root, "scored"), tree(mask_folder(root, "scored"))
    plan = plan_job(ImagePyramid(root).info, read_manifest(model), options())

    def end_meanwhile(labels: Pixels, min_object_px: int, core: Box) -> Pixels:
        remove_raw(root)
        return sieve(labels, min_object_px, core)

    monkeypatch.setattr(sieving, "sieve", end_meanwhile)
    with pytest.raises(FileNotFoundError, match="removed while"):
        sieving.sieve_mask(root / "raw" / "scored", MaskWriter(mask, plan), MIN_OBJECT_PX)
    assert tree(mask) == before


def _die(*_: object) -> None:
    raise Killed


def test_another_choice_reuses_the_image_but_no_label(source: Path, model: Path, image: Path, tmp_path: Path) -> None:
    def die(progress: Progress) -> None:
        if progress.stage is Stage.ASSEMBLE:
            raise Killed

    out = tmp_path / "out.zarr"
    with pytest.raises(Killed):
        segment(source, model, out, options(), progress=die)
    plain = options(roi=None, background="keep", min_object_px=0, probabilities=False)
    segment(source, model, out, plain, progress=lambda p: None if p.stage is not Stage.INGEST else pytest.fail("read"))
    assert np.array_equal(labels_of(out), slide()[..., 0] > THRESHOLD)
    assert not probability_folder(out).exists()
    assert own_attributes(out)["selection"] is None
    assert own_attributes(out)["skipped_regions"] == []


# -- through the queue


@pytest.fixture
def store(settings: Settings) -> Store:
    scored_model(settings.models[0] / "scored", T, size=HALF_MICROMETRE)
    return Store(settings.store)


@pytest.fixture
def image_id(store: Store, image: Path) -> str:
    image_id = new_id()
    shutil.copytree(image, store.image_zarr(image_id))
    return image_id


def run_all(settings: Settings) -> None:
    for stage in Stage:
        run_worker(stage, settings, burst=True)


def test_a_queued_job_with_every_choice_gives_the_same_mask(
    jobs: JobStore, settings: Settings, store: Store, image: Path, image_id: str
) -> None:
    job = jobs.submit(image_id, "slide.tif", "scored", options())
    run_worker(Stage.INGEST, settings, burst=True)
    run_worker(Stage.SEGMENT, settings, burst=True)
    expected = expected_labels(image)
    skipped = frozenset(skipped_regions(expected))
    outcomes = RegionOutcomes(512, (3, 4), frozenset(range(12)) - skipped, skipped, frozenset())
    assert 0 < len(skipped) < 12
    assert jobs.outcomes(job.id) == outcomes
    run_worker(Stage.ASSEMBLE, settings, burst=True)
    assert jobs.outcomes(job.id) == outcomes
    done = jobs.get(job.id)
    result = store.mask_zarr(job.id)
    assert (done.state, done.error) == (State.SUCCEEDED, None)
    assert np.array_equal(labels_of(result), expected)
    found = ProbabilityPyramid(probability_folder(result)).read(WHOLE)
    assert np.abs(found - expected_probabilities(image).astype(int)).max() <= 1
    counts = np.bincount(expected.ravel(), minlength=256)
    assert done.areas_px == {label: counts[label] for label in (0, 1, NO_DATA)}
    assert (done.scale, done.regions_skipped) == (SCALE, len(skipped))
    assert not partial(result).exists()
    _check_selection(done, image, own_attributes(result))


def _check_selection(done: Job, image: Path, own: ngff.Attributes) -> None:
    tissue, selection = find_tissue(ImagePyramid(image)), done.selection
    assert selection is not None
    assert (selection.method, selection.threshold) == (tissue.method, tissue.threshold)
    assert selection.tissue_share == tissue.share
    assert selection.tiles_total == -(-SHAPE[0] // 128) * -(-SHAPE[1] // 128)
    assert 0 < selection.tiles_selected < selection.tiles_total
    assert own["selection"] == selection.model_dump()


def test_local_and_queued_jobs_give_the_same_bytes(
    jobs: JobStore, settings: Settings, store: Store, image_id: str, undisturbed: Undisturbed
) -> None:
    job = jobs.submit(image_id, "slide.tif", "scored", options())
    run_all(settings)
    queued, local = tree(store.mask_zarr(job.id)), undisturbed[0]
    parts = [name for name in local if "/c/" in name and name.startswith(("labels/", "probabilities/"))]
    assert parts
    assert [name for name in parts if queued[name] != local[name]] == []


def test_a_job_that_is_cancelled_while_small_objects_are_taken_away_leaves_nothing(
    jobs: JobStore, settings: Settings, store: Store, image_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.submit(image_id, "slide.tif", "scored", options())
    run_worker(Stage.INGEST, settings, burst=True)
    run_worker(Stage.SEGMENT, settings, burst=True)
    sieved: list[Box] = []

    def cancel_meanwhile(labels: Pixels, min_object_px: int, core: Box) -> Pixels:
        if not sieved:
            jobs.cancel(job.id)
        sieved.append(core)
        return sieve(labels, min_object_px, core)

    monkeypatch.setattr(sieving, "sieve", cancel_meanwhile)
    run_worker(Stage.ASSEMBLE, settings, burst=True)
    assert len(sieved) == 1
    assert jobs.get(job.id).state is State.CANCELLED
    assert [path.name for path in store.job(job.id).iterdir()] == ["job.json"]


def test_a_record_outlives_redis_with_its_choices(
    jobs: JobStore, settings: Settings, store: Store, image_id: str
) -> None:
    job = jobs.submit(image_id, "slide.tif", "scored", options())
    run_all(settings)
    before, outcomes = jobs.get(job.id), jobs.outcomes(job.id)
    jobs._connection.call("FLUSHALL")
    assert jobs.get(job.id) == before
    assert jobs.outcomes(job.id) == outcomes
    jobs.restore()
    assert jobs.get(job.id).selection == before.selection


@pytest.mark.parametrize(
    ("changed", "model", "code", "message"),
    [
        ({"roi": parse_roi("5000,5000,10,10")}, "scored", "invalid_option", "region of interest"),
        ({"overlap": "half", "probabilities": False}, "threshold", "bad_model", "gives no scores"),
    ],
)
def test_a_choice_that_the_image_or_the_model_cannot_have_fails_the_job_with_its_code(
    jobs: JobStore,
    settings: Settings,
    store: Store,
    image_id: str,
    changed: dict[str, object],
    model: str,
    code: str,
    message: str,
) -> None:
    threshold_model(settings.models[0] / "threshold")
    job = jobs.submit(image_id, "slide.tif", model, options(**changed))
    run_all(settings)
    failed = jobs.get(job.id)
    assert failed.state is State.FAILED
    assert failed.error is not None
    assert failed.error.code == code
    assert message in failed.error.detail


def test_a_missing_pixel_size_is_told_before_the_image_is_read_and_mended_by_another_job(
    jobs: JobStore, settings: Settings, store: Store, source: Path
) -> None:
    image_id = new_id()
    folder = store.image(image_id) / "source"
    folder.mkdir(parents=True)
    shutil.copy(source, folder / "slide.tif")
    job = jobs.submit(image_id, "slide.tif", "scored", options())
    run_all(settings)
    error = jobs.get(job.id).error
    assert error is not None
    assert (error.code, "--pixel-size-um" in error.detail) == ("invalid_option", True)
    assert not store.image_zarr(image_id).exists()
    again = jobs.submit(image_id, "slide.tif", "scored", options(read=READ))
    run_all(settings)
    assert jobs.get(again.id).state is State.SUCCEEDED
