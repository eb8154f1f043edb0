"""The region pipeline, with real models whose answers are known in closed form."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gigamask.geometry import Box
from gigamask.manifest import NO_DATA, ModelManifest, read_manifest
from gigamask.plan import Plan, Region, plan_regions
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskWriter, read_mask
from model.predictors import RegionPredictor, load_predictor
from tests.models_for_tests import MODULUS, THRESHOLD, context_model, offset_label, offset_model, threshold_model
from tests.pictures import picture, write_image
from workers.segment import SKIPPED, Outcome, RegionWork, segment

Pixels = NDArray[np.uint8]

TILE = 64
SHAPES = [(1301, 2203), (50, 40)]  # odd sizes; smaller than a tile


def threshold_labels(pixels: Pixels) -> Pixels:
    return (pixels[..., 0] > THRESHOLD).astype(np.uint8)


def offset_labels(pixels: Pixels) -> Pixels:
    """Each tile's place in its surround, when both are shifted into the image."""

    def along(total: int, at: int) -> int:
        local = max(0, min(at, total - TILE))
        return local - max(0, min(local - TILE // 2, total - 2 * TILE))

    labels = np.empty(pixels.shape[:2], np.uint8)
    for y in range(0, labels.shape[0], TILE):
        for x in range(0, labels.shape[1], TILE):
            offset = along(labels.shape[0], y), along(labels.shape[1], x)
            labels[y : y + TILE, x : x + TILE] = offset_label(*offset, TILE, 2)
    return labels


def context_labels(pixels: Pixels) -> Pixels:
    """The sum over each tile's surround, by which a single wrong pixel shows; grey beyond a small image."""
    h, w = pixels.shape[:2]
    padded = np.full((max(h, 2 * TILE), max(w, 2 * TILE), 3), 128, np.int64)
    padded[:h, :w] = pixels[..., :3]
    labels = np.empty((h, w), np.uint8)
    for y in range(0, h, TILE):
        for x in range(0, w, TILE):
            top, left = (
                max(0, min(max(0, min(at, total - TILE)) - TILE // 2, total - 2 * TILE))
                for at, total in ((y, h), (x, w))
            )
            total_value = padded[top : top + 2 * TILE, left : left + 2 * TILE].sum()
            labels[y : y + TILE, x : x + TILE] = total_value % MODULUS
    return labels


MODELS = {
    "threshold": (threshold_model, threshold_labels),
    "offset": (offset_model, offset_labels),
    "context": (context_model, context_labels),
}


def refuse(work: RegionWork, exc: Exception) -> None:
    raise exc


@dataclass(frozen=True)
class Run:
    """One image, one mask, one predictor."""

    plan: Plan
    image: ImagePyramid
    mask: MaskWriter
    predictor: RegionPredictor

    def work(self, *, only: tuple[int, ...] | None = None) -> Iterator[RegionWork]:
        for region in self.plan.regions():
            if only is None or region.index in only:
                yield RegionWork(region, self.image, self.mask, self.predictor, token=f"token {region.index}")

    def labels(self) -> Pixels:
        return read_mask(self.mask.root, Box(0, 0, *self.plan.shape))


def prepare(folder: Path, pixels: Pixels, predictor: RegionPredictor, region_px: int) -> Run:
    root = folder / "image.zarr"
    if not root.exists():
        write_image(root, pixels)
    image = ImagePyramid(root)
    plan = plan_regions(image.info.shape, predictor.manifest, region_px)
    mask = MaskWriter(folder / f"mask-{region_px}", plan)
    mask.create()
    return Run(plan, image, mask, predictor)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("model", MODELS)
def test_labels_are_what_the_model_says_for_any_region_size_and_batch(
    tmp_path: Path, shape: tuple[int, int], model: str
) -> None:
    build, expected = MODELS[model]
    pixels = picture(shape)
    folder = build(tmp_path / "model", tile_px=TILE, alpha=2)
    for region_px, batch in [(512, 1), (512, 4), (1024, 4), (2048, 4)]:
        run = prepare(tmp_path, pixels, load_predictor(folder, batch=batch), region_px)
        counts = np.zeros(256, np.int64)

        def add(work: RegionWork, outcome: Outcome, counts: NDArray[np.int64] = counts) -> None:
            counts += outcome

        segment(run.work(), add, refuse)
        assert np.array_equal(run.labels(), expected(pixels)), (region_px, batch)
        assert np.array_equal(counts, np.bincount(expected(pixels).ravel(), minlength=256))


@pytest.fixture
def predictor(tmp_path: Path) -> RegionPredictor:
    return load_predictor(threshold_model(tmp_path / "model", tile_px=TILE))


class Recorder:
    """What was told of each region, in order."""

    def __init__(self) -> None:
        self.done: dict[str, Outcome] = {}
        self.failed: dict[str, Exception] = {}

    def on_done(self, work: RegionWork, outcome: Outcome) -> None:
        self.done[work.token] = outcome

    def on_failed(self, work: RegionWork, exc: Exception) -> None:
        self.failed[work.token] = exc


def test_pixels_without_data_are_labelled_so_and_regions_of_them_alone_are_skipped(
    tmp_path: Path, predictor: RegionPredictor
) -> None:
    pixels = picture((700, 1600), 4)
    pixels[:, 512:1024, 3] = 0
    run, told = prepare(tmp_path, pixels, predictor, 512), Recorder()
    segment(run.work(), told.on_done, told.on_failed)
    assert np.array_equal(run.labels(), np.where(pixels[..., 3] > 0, threshold_labels(pixels), NO_DATA))
    assert [token for token, outcome in told.done.items() if outcome is SKIPPED] == ["token 1", "token 5"]
    assert not (run.mask.root / "0" / "c" / "0" / "1").exists()
    first = told.done["token 0"]
    assert first is not None
    assert first[NO_DATA] == (pixels[:512, :512, 3] == 0).sum()


@dataclass
class Scripted:
    """Predicts zeros; before that, does what the test wants for a region."""

    act: Callable[[Region], None]
    manifest: ModelManifest

    def predict(self, window: Pixels, region: Region) -> Pixels:
        self.act(region)
        return np.zeros(region.box.shape, np.uint8)


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[[Callable[[Region], None]], Run]:
    manifest = read_manifest(threshold_model(tmp_path / "model", tile_px=TILE))
    return lambda act: prepare(tmp_path, picture((600, 2500)), Scripted(act, manifest), 512)


Script = Callable[[Callable[[Region], None]], Run]


def test_a_region_that_cannot_be_predicted_is_told_and_the_others_go_on(scripted: Script) -> None:
    def fail_at_3(region: Region) -> None:
        if region.index == 3:
            raise ValueError("three")

    run, told = scripted(fail_at_3), Recorder()
    segment(run.work(), told.on_done, told.on_failed)
    assert list(told.done) == [f"token {k}" for k in range(10) if k != 3]
    assert [str(exc) for exc in told.failed.values()] == ["three"]
    assert list(told.failed) == ["token 3"]


def test_a_region_that_cannot_be_read_or_written_is_told_and_the_others_go_on(scripted: Script) -> None:
    run, told = scripted(lambda region: None), Recorder()
    shard = run.image.root / "0" / "c" / "0" / "0" / "0"
    shard.write_bytes(b"torn")
    (run.mask.root / "0" / "c" / "1" / "4").mkdir(parents=True)
    segment(run.work(only=(0, 4, 9)), told.on_done, told.on_failed)
    assert (list(told.done), list(told.failed)) == (["token 4"], ["token 0", "token 9"])


def test_reading_and_writing_overlap_prediction(scripted: Script) -> None:
    """While region 1 is predicted, region 2 is pulled and region 0 is told: in sequence, one would wait for ever."""
    predicting, pulled, told = threading.Event(), threading.Event(), threading.Event()

    def wait_at_1(region: Region) -> None:
        if region.index == 1:
            predicting.set()
            assert pulled.wait(5)
            assert told.wait(5)

    run = scripted(wait_at_1)

    def work() -> Iterator[RegionWork]:
        for item in run.work(only=(0, 1, 2)):
            if item.region.index == 2:
                assert predicting.wait(5)
                pulled.set()
            yield item

    def done(work: RegionWork, outcome: Outcome) -> None:
        assert work.region.index > 0 or predicting.wait(5)
        told.set()

    segment(work(), done, refuse)


def test_at_most_three_regions_are_in_hand(scripted: Script) -> None:
    run, pulled, told = scripted(lambda region: None), [0], [0]
    most = []

    def work() -> Iterator[RegionWork]:
        for item in run.work():
            pulled[0] += 1
            most.append(pulled[0] - told[0])
            yield item

    def done(work: RegionWork, outcome: Outcome) -> None:
        told[0] += 1

    segment(work(), done, refuse)
    assert max(most) <= 3


def test_work_that_is_not_there_yet_is_waited_for(scripted: Script) -> None:
    run, told = scripted(lambda region: None), Recorder()

    def work() -> Iterator[RegionWork | None]:
        for item in run.work(only=(0, 1)):
            yield from (None, None, item)

    segment(work(), told.on_done, told.on_failed)
    assert list(told.done) == ["token 0", "token 1"]


class Stop(Exception):
    pass


def stop(*_: object) -> None:
    raise Stop


def test_an_error_of_the_caller_ends_everything_and_leaves_no_thread(scripted: Script) -> None:
    before = threading.active_count()

    def endless() -> Iterator[RegionWork | None]:
        yield from run.work(only=(0,))
        while True:
            yield None

    def broken() -> Iterator[RegionWork]:
        yield from run.work(only=(0,))
        raise Stop

    run = scripted(lambda region: None)
    with pytest.raises(Stop):
        segment(endless(), stop, refuse)
    with pytest.raises(Stop):
        segment(broken(), Recorder().on_done, refuse)
    with pytest.raises(Stop):
        segment(scripted(stop).work(), Recorder().on_done, refuse)
    assert threading.active_count() == before
