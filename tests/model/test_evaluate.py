"""The evaluation, on pictures and predictors whose scores are known."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from gigamask.errors import BadModel, InvalidOption
from gigamask.geometry import Box
from gigamask.manifest import LabelClass, ModelManifest
from gigamask.plan import Region
from model.data.pictures import ArrayPicture, Picture
from model.evaluate import app, measure, table
from tests.model.test_tiles import manifest
from tests.models_for_tests import threshold_model

Bytes = NDArray[np.uint8]
T = 64
CLASSES = manifest(2).classes


class Threshold:
    """Class 1 where red is above 100, else class 0."""

    manifest: ModelManifest = manifest(2)

    def predict(self, window: Bytes, region: Region) -> Bytes:
        return (window[0][region.box.within(region.window).slices] > 100).astype(np.uint8)


class Recording(Threshold):
    def __init__(self) -> None:
        self.regions: list[Region] = []

    def predict(self, window: Bytes, region: Region) -> Bytes:
        self.regions.append(region)
        return super().predict(window, region)


class LeftHalves(Threshold):
    """Class 1 in the left half of every tile, whatever the picture shows."""

    def predict(self, window: Bytes, region: Region) -> Bytes:
        labels = np.zeros(region.box.shape, np.uint8)
        for tile in region.tiles:
            labels[tile.keep.within(region.box).slices][:, : T // 2] = 1
        return labels


def picture(shape: tuple[int, int], seed: int = 0) -> ArrayPicture:
    """Noise whose truth is Threshold's answer, a tenth of it wrong and a fifth ignored."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    truth = (image[..., 0] > 100).astype(np.uint8)
    truth[rng.random(shape) < 0.1] = 2
    truth[rng.random(shape) < 0.2] = 255
    return ArrayPicture(f"noise {seed}", image, truth)


def untimed(report: Any) -> dict[str, Any]:
    varies = ("predict_mp_per_s", "read_and_predict_mp_per_s", "peak_rss_mib", "peak_gpu_mib")
    return {name: value for name, value in report.to_json().items() if name not in varies}


def test_only_labels_that_are_known_count() -> None:
    image = np.zeros((300, 1100, 3), np.uint8)
    image[:, 50:] = 200
    truth = np.zeros((300, 1100), np.uint8)
    truth[:, 100:] = 1
    truth[:, 600:] = 255
    report = measure([ArrayPicture("a", image, truth)], CLASSES, Threshold(), 512)
    assert report.iou == {"c0": 0.5, "c1": 500 / 550, "c2": pytest.approx(np.nan, nan_ok=True)}
    assert report.miou == pytest.approx((0.5 + 500 / 550) / 2)
    assert report.confusion.tolist() == [[15000, 15000, 0], [0, 150000, 0], [0, 0, 0]]
    assert report.to_json()["iou"]["c2"] is None


def test_one_confusion_holds_all_pictures() -> None:
    pictures: list[Picture] = [picture((90, 700), 1), picture((600, 70), 2)]
    together = measure(pictures, CLASSES, Threshold(), 512)
    alone = [measure([each], CLASSES, Threshold(), 512) for each in pictures]
    assert np.array_equal(together.confusion, alone[0].confusion + alone[1].confusion)
    assert together.confusion.sum() == sum((each.ids != 255).sum() for each in pictures)  # type: ignore[attr-defined]


def test_regions_without_a_known_label_are_not_predicted() -> None:
    image, truth = np.zeros((700, 1600, 3), np.uint8), np.full((700, 1600), 255, np.uint8)
    truth[600:610, 1100:1110] = 1
    predictor = Recording()
    report = measure([ArrayPicture("a", image, truth)], CLASSES, predictor, 512)
    assert [region.box for region in predictor.regions] == [Box(512, 1024, 700, 1536), Box(544, 1056, 700, 1568)]
    assert report.confusion.sum() == 100


def test_where_nothing_is_known_nothing_is_scored() -> None:
    nothing = ArrayPicture("a", np.zeros((80, 80, 3), np.uint8), np.full((80, 80), 255, np.uint8))
    found = measure([nothing], CLASSES, Threshold(), 512).to_json()
    assert (found["miou"], found["predict_mp_per_s"], found["pixels"]) == (None, None, 0)
    assert set(found["seams"].values()) == {None}


def test_a_predictor_that_labels_each_pixel_alone_has_no_seams() -> None:
    report = measure([picture((700, 1100))], CLASSES, Threshold(), 512)
    assert report.seams is not None
    assert report.seams.disagreement == 0
    assert report.seams.excess == pytest.approx(report.seams.truth_excess, abs=0.03)
    assert report.seams.band_miou == pytest.approx(report.seams.elsewhere_miou, abs=0.02)


def test_labels_that_follow_the_tiles_are_told_by_every_seam_measure() -> None:
    truth = np.zeros((640, 640), np.uint8)
    truth[:, :2] = 1
    report = measure([ArrayPicture("a", np.zeros((640, 640, 3), np.uint8), truth)], CLASSES, LeftHalves(), 512)
    assert report.seams is not None
    assert report.seams.disagreement == 1  # a grid moved by half a tile turns every label over
    # a pixel row crosses 9 borders and 10 middles, all with a change; columns have none
    across, elsewhere = 9 * 640, 10 * 640
    pairs = 2 * 9 * 640, 2 * 639 * 640 - 2 * 9 * 640
    assert report.seams.excess == pytest.approx((across / pairs[0]) / (elsewhere / pairs[1]) - 1)
    assert report.seams.truth_excess == pytest.approx(-1)  # its one change is between columns 1 and 2


def test_errors_along_borders_show_in_the_band_alone() -> None:
    shape, image = (256, 256), np.zeros((256, 256, 3), np.uint8)
    image[:, 126:130] = 200  # 4 px: the band of tiles of 64, along one border
    report = measure([ArrayPicture("a", image, np.zeros(shape, np.uint8))], CLASSES[:3], Threshold(), 512)
    assert report.seams is not None
    assert report.seams.elsewhere_miou == 1
    in_band = 256**2 - (256 - 3 * 4) ** 2
    assert report.seams.band_miou == pytest.approx((1 - 256 * 4 / in_band) / 2)  # and class 1, only a false alarm


@pytest.mark.parametrize("predictor", [Threshold, LeftHalves])
def test_no_score_depends_on_the_regions(predictor: type[Threshold]) -> None:
    pictures = [picture((1100, 1300), 1), picture((100, 30), 2)]
    small, large = (measure(pictures, CLASSES, predictor(), side) for side in (512, 1024))
    assert untimed(small) == untimed(large)


def test_without_seams_the_scores_are_the_same_and_each_region_is_predicted_once() -> None:
    pictures, predictor = [picture((700, 1100))], Recording()
    without = measure(pictures, CLASSES, predictor, 512, seams=False)
    assert without.seams is None
    assert len(predictor.regions) == 6
    assert np.array_equal(without.confusion, measure(pictures, CLASSES, Threshold(), 512).confusion)


def test_a_class_named_building_is_told_by_itself() -> None:
    names = ("ground", "Building", "c2")
    classes = tuple(LabelClass(id=k, name=name, color="#000000") for k, name in enumerate(names))
    predictor = Threshold()
    predictor.manifest = manifest(2).model_copy(update={"classes": classes})
    report = measure([picture((70, 70))], classes, predictor, 512)
    assert report.building_iou == report.iou["Building"]
    assert measure([picture((70, 70))], CLASSES, Threshold(), 512).building_iou is None


def test_progress_ends_at_one() -> None:
    told: list[float] = []
    measure([picture((700, 1100)), picture((40, 40))], CLASSES, Threshold(), 512, told=told.append)
    assert told == sorted(told)
    assert (len(told), told[-1]) == (7, 1.0)


@dataclass(frozen=True)
class Endless:
    """A picture that is never held: made where it is read."""

    name: str
    shape: tuple[int, int]

    def pixels(self, box: Box) -> Bytes:
        return np.full((*box.shape, 3), 200, np.uint8)

    def labels(self, box: Box) -> Bytes:
        return np.ones(box.shape, np.uint8)


def peak_bytes(height: int) -> int:
    tracemalloc.start()
    measure([Endless("endless", (height, 600))], CLASSES, Threshold(), 512)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_picture() -> None:
    assert peak_bytes(20_000) < 1.1 * peak_bytes(4_000)


def test_rates_and_memory_are_told() -> None:
    report = measure([picture((700, 1100))], CLASSES, Threshold(), 512)
    assert report.predict_mp_per_s > report.read_and_predict_mp_per_s > 0
    assert report.peak_rss_mib > 10


def test_a_model_of_other_classes_is_refused_with_both_lists() -> None:
    classes = tuple(LabelClass(id=k, name=name, color="#000000") for k, name in enumerate(("sea", "land")))
    with pytest.raises(BadModel, match=r"known/model\.json: its classes are c0, c1, c2; the data set's are sea, land"):
        measure([picture((70, 70))], classes, Threshold(), 512)


def test_a_label_above_the_class_count_is_refused_with_the_pictures_name() -> None:
    wrong = ArrayPicture("tile 9", np.zeros((70, 70, 3), np.uint8), np.full((70, 70), 7, np.uint8))
    with pytest.raises(ValueError, match=r"tile 9, rows 0 to 70: label 7, expected ids from 0 to 2"):
        measure([wrong], CLASSES, Threshold(), 512)


def test_no_pictures_and_odd_regions_are_refused() -> None:
    with pytest.raises(ValueError, match="no pictures to judge: expected at least 1, got 0"):
        measure([], CLASSES, Threshold(), 512)
    with pytest.raises(InvalidOption, match=r"region side is one of .*, not 500"):
        measure([picture((70, 70))], CLASSES, Threshold(), 500)


def test_the_command_prints_the_shipped_models_scores_as_one_line_of_json(earth_water: Path) -> None:
    done = CliRunner().invoke(app, ["earth", "--model", str(earth_water), "--no-seams"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["model"], found["dataset"], found["split"], found["seams"]) == ("earth-water", "earth", "test", None)
    assert found["pixels"] == 2700 * 2700
    card = (earth_water / "README.md").read_text()
    row = next(line for line in card.splitlines() if line.startswith("| SGNet (this model) |"))
    claimed = [float(cell) for cell in row.split("|")[2:5]]
    assert list(found["iou"].values()) == pytest.approx(claimed, abs=0.003)


def test_the_table_has_a_row_for_every_measure() -> None:
    report = measure([picture((700, 1100))], CLASSES, Threshold(), 512)
    measures = list(table(report, "").columns[0].cells)
    assert [str(cell) for cell in measures[:4]] == ["IoU, c0", "IoU, c1", "IoU, c2", "mIoU"]
    assert {"disagreement of two tilings", "seam excess", "mIoU along borders", "MP/s", "peak memory"} <= set(measures)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["earth", "--model", "{tmp}/nowhere"], "{tmp}/nowhere/model.json is not there: expected a model folder"),
        (["mars", "--model", "{model}"], "unknown dataset 'mars': expected one of"),
        (
            ["earth", "--model", "{model}"],
            "threshold/model.json: its classes are dark, bright; the data set's are ocean",
        ),
        (["earth", "--model", "{model}", "--split", "val"], "earth has no pictures in its split 'val'"),
        (["dubai", "--model", "{model}", "--root", "{tmp}/nowhere"], "dubai: no folder {tmp}/nowhere"),
    ],
)
def test_what_is_wrong_ends_the_command_with_one_sentence(tmp_path: Path, arguments: list[str], told: str) -> None:
    places = {"tmp": str(tmp_path), "model": str(threshold_model(tmp_path / "threshold", alpha=2))}
    done = CliRunner().invoke(app, [part.format(**places) for part in arguments])
    assert done.exit_code == 1
    assert f"error {told.format(**places)}" in done.stderr
    assert "Traceback" not in done.stderr
