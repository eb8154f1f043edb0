"""The shipped models: whole, reproducible, the same on both engines, and loud when it is broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gigamask.errors import BadModel
from gigamask.manifest import read_manifest
from gigamask.plan import plan_regions
from model.data import earth
from model.export import measure_parity, one_region
from model.predictors import load_predictor
from model.predictors.onnx import OnnxNetwork

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(params=sorted(path.parent.name for path in MODELS.glob("*/model.json")))
def shipped(request: pytest.FixtureRequest) -> Path:
    return MODELS / str(request.param)


def vector(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture (3, H, W) and its labels."""
    with np.load(folder / "test_vector.npz", allow_pickle=False) as stored:
        return stored["picture"], stored["labels"]


@pytest.fixture(scope="module")
def coast() -> NDArray[np.uint8]:
    """(3, 700, 1100): the Great Lakes and the Atlantic."""
    return np.ascontiguousarray(earth.earth_pixels(slice(1000, 2100))[500:1200].transpose(2, 0, 1))


@pytest.fixture
def copy(earth_water: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(earth_water, tmp_path / "earth-water"))


def segment(folder: Path, image: NDArray[np.uint8], batch: int, region_px: int) -> NDArray[np.uint8]:
    predictor = load_predictor(folder, batch=batch, threads=2)
    labels = np.full(image.shape[1:], 255, np.uint8)
    for region in plan_regions((image.shape[1], image.shape[2]), predictor.manifest, region_px).regions():
        labels[region.box.slices] = predictor.predict(image[:, *region.window.slices], region)
    return labels


def test_it_is_small_enough_to_ship(shipped: Path) -> None:
    assert sum(path.stat().st_size for path in shipped.iterdir()) < 20e6


def test_its_graphs_name_no_file_of_the_machine_that_made_them(shipped: Path) -> None:
    graphs = list(shipped.glob("*.onnx"))
    assert graphs
    assert not any(b".py" in graph.read_bytes() for graph in graphs)


def test_it_has_a_card_that_names_its_split_and_scores(shipped: Path) -> None:
    card = (shipped / "README.md").read_text()
    for word in ("Split", "trained on", "tested", "IoU", "Licence", "Not for"):
        assert word in card, word


def test_it_gives_the_labels_of_its_test_vector(shipped: Path) -> None:
    picture, expected = vector(shipped)
    labels = load_predictor(shipped).predict(picture, one_region(picture, read_manifest(shipped)))
    assert (labels == expected).mean() > 0.9999


def test_onnx_runtime_and_torch_agree(shipped: Path) -> None:
    parity = measure_parity(shipped, read_manifest(shipped), [vector(shipped)[0]])
    assert parity.label_agreement > 0.9999
    assert parity.max_score_difference < 1e-2


def test_labels_do_not_depend_on_batch_or_region_size(shipped: Path, coast: NDArray[np.uint8]) -> None:
    one = segment(shipped, coast, batch=1, region_px=512)
    other = segment(shipped, coast, batch=4, region_px=1024)
    # tile by tile they are the same bits; sums over a shared map may come in another order
    assert np.array_equal(one, other) or (
        read_manifest(shipped).context.mode != "tile" and (one == other).mean() > 0.9999
    )
    assert set(np.unique(one)) <= set(range(len(read_manifest(shipped).classes)))


def test_a_picture_smaller_than_a_tile_is_segmented(earth_water: Path, coast: NDArray[np.uint8]) -> None:
    labels = segment(earth_water, coast[:, :100, :300], batch=1, region_px=512)
    assert labels.shape == (100, 300)
    assert labels.max() <= 2


def test_a_changed_file_is_refused(copy: Path) -> None:
    graph = copy / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")
    with pytest.raises(BadModel, match=r"model\.onnx has sha256"):
        load_predictor(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(BadModel, match=r"model\.safetensors is missing"):
        load_predictor(copy, engine="torch")


def test_weights_of_another_architecture_are_refused(copy: Path) -> None:
    rewrite(copy, lambda told: told["architecture"]["surround"].update(blocks=3))
    with pytest.raises(BadModel, match=r"model\.safetensors does not fit its architecture"):
        load_predictor(copy, engine="torch")


def test_pickles_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model.pt")
    rewrite(copy, lambda told: told["files"]["safetensors"].update(path="model.pt"))
    with pytest.raises(BadModel, match="pickles are refused"):
        load_predictor(copy, engine="torch")


def test_a_graph_that_is_no_graph_is_refused(copy: Path) -> None:
    vector = read_manifest(copy).files["test_vector"]
    rewrite(copy, lambda told: told["files"].update(onnx=vector.model_dump()))
    with pytest.raises(BadModel, match="not a model that ONNX Runtime opens"):
        load_predictor(copy)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"no model\.json"):
        load_predictor(tmp_path)


def test_an_absent_gpu_is_an_error_and_not_a_slow_run(earth_water: Path) -> None:
    with pytest.raises(BadModel, match="CUDAExecutionProvider"):
        OnnxNetwork(earth_water, read_manifest(earth_water), device="cuda")


def rewrite(folder: Path, change) -> None:  # type: ignore[no-untyped-def]
    path = folder / "model.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
