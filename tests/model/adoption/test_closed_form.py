"""A graph that is a threshold of red gives, adopted, exactly that mask, however it was brought."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from onnx import TensorProto

from gigamask.geometry import Box
from gigamask.job import JobOptions
from gigamask.manifest import read_manifest
from gigamask.plan import plan_regions
from gigamask.pyramid.mask import mask_folder, read_mask
from gigamask.settings import Settings
from model.adoption.description import Scaling, byte_range
from model.predictors import load_predictor
from tests.model.adoption.graphs import (
    ANY,
    ONE,
    UINT8,
    ZERO,
    Shape,
    adopted,
    labels_graph,
    node,
    red_graph,
    save,
    shifted_graph,
    valid_graph,
)
from tests.pictures import picture
from workers.local import segment_image

SHAPE = (300, 421)
PICTURE = picture(SHAPE)
RED = PICTURE[..., 0]


def predicted(folder: Path, batch: int = 0) -> np.ndarray:
    """By the predictor that workers use, region by region."""
    predictor = load_predictor(folder, batch=batch)
    labels = np.zeros(SHAPE, np.uint8)
    for region in plan_regions(SHAPE, predictor.manifest, 512).regions():
        rows, columns = region.window.slices
        window = np.ascontiguousarray(PICTURE[rows, columns].transpose(2, 0, 1))
        labels[region.box.slices] = predictor.predict(window, region)
    return labels


def nhwc(path: Path) -> Path:
    nodes = [node("Gather", "image zero", "map", axis=3)]
    return save(path, nodes, ["B", "h", "w", 3], ["B", "h", "w", 1], constants=ZERO)


def bytes_in(path: Path) -> Path:
    """uint8 pixels as they are; 255 where red is over 127, as a probability in 0..1."""
    nodes = [
        node("Gather", "image zero", "red", axis=1),
        node("Greater", "red middle", "over"),
        node("Cast", "over", "map", to=TensorProto.FLOAT),
    ]
    return save(path, nodes, ANY, ONE, given_type=UINT8, constants={**ZERO, "middle": np.uint8(127)})


def half_precision(path: Path) -> Path:
    nodes = [node("Gather", "image zero", "map", axis=1)]
    sixteen = {"given_type": TensorProto.FLOAT16, "made_type": TensorProto.FLOAT16}
    return save(path, nodes, ANY, ONE, constants=ZERO, **sixteen)


def bgr(path: Path) -> Path:
    nodes = [node("Gather", "image two", "map", axis=1)]
    return save(path, nodes, ANY, ONE, constants={"two": np.array([2], np.int64)})


def two_channels(path: Path) -> Path:
    """Probabilities of both classes."""
    nodes = [
        node("Gather", "image zero", "red", axis=1),
        node("Sub", "one red", "dark"),
        node("Concat", "dark red", "map", axis=1),
    ]
    return save(path, nodes, ANY, ["B", 2, "h", "w"], constants={**ZERO, "one": np.float32(1)})


def planes_only(path: Path) -> Path:
    nodes = [node("Gather", "image first", "map", axis=1)]
    return save(path, nodes, ANY, ["B", "h", "w"], constants={"first": np.int64(0)})


FIXED: Shape = [1, 3, 64, 64]
Make = Callable[[Path], Path]
BROUGHT: dict[str, tuple[Make, dict[str, Any]]] = {
    "any size": (red_graph, {}),
    "opset 11": (lambda path: red_graph(path, opset=11), {}),
    "fixed size": (lambda path: red_graph(path, FIXED, [1, 1, 64, 64]), {}),
    "channels last": (nhwc, {}),
    "blue first": (bgr, {"channels": "bgr"}),
    "bytes": (bytes_in, {"scaling": Scaling()}),
    "half precision": (half_precision, {}),
    "both classes": (two_channels, {"activation": "softmax"}),
    "planes only": (planes_only, {}),
    "labels": (labels_graph, {"activation": None}),
    "labels with a channel": (lambda path: labels_graph(path, flat=False), {"activation": None}),
    "no power of two": (red_graph, {"tile_px": 96}),
    "a halo that it does not need": (red_graph, {"halo_px": 11}),
    "unpadded convolutions": (lambda path: valid_graph(path, 7), {"tile_px": 78}),
}


@pytest.mark.parametrize("how", BROUGHT)
def test_an_adopted_threshold_gives_its_mask_exactly(how: str, tmp_path: Path) -> None:
    make, told = BROUGHT[how]
    folder = adopted(make(tmp_path / "brought.onnx"), tmp_path / "models", **told)
    np.testing.assert_array_equal(predicted(folder), RED > 127)


@pytest.mark.parametrize("threshold", [0.25, 0.75])
def test_a_threshold_is_the_probability_over_which_a_pixel_is_the_class(threshold: float, tmp_path: Path) -> None:
    folder = adopted(red_graph(tmp_path / "a.onnx"), tmp_path / "models", threshold=threshold)
    np.testing.assert_array_equal(predicted(folder), threshold < RED / 255)


def test_grey_is_luma(tmp_path: Path) -> None:
    graph = save(tmp_path / "a.onnx", [node("Identity", "image", "map")], ["B", 1, "h", "w"], ["B", 1, "h", "w"])
    luma = PICTURE @ np.array([0.299, 0.587, 0.114])
    found = predicted(adopted(graph, tmp_path / "models"))
    clear = np.abs(luma - 127.5) > 0.01
    np.testing.assert_array_equal(found[clear], (luma > 127.5)[clear])


def test_mean_and_std_are_taken_off_before_the_network(tmp_path: Path) -> None:
    """(red / 255 - 0.6) / 0.2 is over 0 where red is over 153."""
    scaling = byte_range(0, 1).normalised((0.6, 0, 0), (0.2, 1, 1))
    folder = adopted(red_graph(tmp_path / "a.onnx"), tmp_path / "models", scaling=scaling, activation="none")
    clear = RED != 153
    np.testing.assert_array_equal(predicted(folder)[clear], (RED > 153)[clear])
    assert read_manifest(folder).mean == pytest.approx((153, 0, 0))
    assert read_manifest(folder).std == pytest.approx((51, 255, 255))


def test_a_halo_is_seen_and_not_kept_so_that_tiles_meet_without_a_seam(tmp_path: Path) -> None:
    """The pixel 16 to the right, within the image: without a halo each tile's last columns would be 0."""
    graph = shifted_graph(tmp_path / "a.onnx", 16)
    expected = np.zeros(SHAPE, bool)
    expected[:, :-16] = RED[:, 16:] > 127
    halo = adopted(graph, tmp_path / "with", halo_px=16)
    assert read_manifest(halo).tile_px == 64
    for batch in (1, 5):
        np.testing.assert_array_equal(predicted(halo, batch), expected)
    assert not (predicted(adopted(graph, tmp_path / "without")) == expected).all()


def test_what_unpadded_convolutions_lack_is_mirrored_at_the_border(tmp_path: Path) -> None:
    """The pixel 12 up and to the left: beyond the image its mirror image, anywhere else the image."""
    folder = adopted(valid_graph(tmp_path / "a.onnx", 12, look_px=12), tmp_path / "models", tile_px=100)
    manifest = read_manifest(folder)
    assert (manifest.tile_px, manifest.alpha) == (64, 2)
    expected = np.pad(RED, 12, mode="reflect")[: SHAPE[0], : SHAPE[1]] > 127
    for batch in (1, 5):
        np.testing.assert_array_equal(predicted(folder, batch), expected)


def test_a_map_at_a_quarter_of_the_size_is_enlarged_between_its_cells(tmp_path: Path) -> None:
    """Means of 4 x 4 px, as bilinear enlargement by half-pixel centres gives them back (scipy)."""
    from scipy.ndimage import zoom

    nodes = [
        node("Gather", "image zero", "red", axis=1),
        node("AveragePool", "red", "map", kernel_shape=[4, 4], strides=[4, 4]),
    ]
    graph = save(tmp_path / "a.onnx", nodes, ANY, ["B", 1, "oh", "ow"], constants=ZERO)
    found = predicted(adopted(graph, tmp_path / "models"))[:64, :64]
    cells = RED[:64, :64].reshape(16, 4, 16, 4).mean(axis=(1, 3))
    expected = zoom(cells, 4, order=1, mode="nearest", grid_mode=True)
    clear = np.abs(expected - 127.5) > 0.01
    np.testing.assert_array_equal(found[clear], (expected > 127.5)[clear])


@pytest.mark.parametrize("batch", [1, 3])
def test_labels_do_not_depend_on_the_batch_even_where_the_graph_takes_one_picture(batch: int, tmp_path: Path) -> None:
    """Reshape with a batch of 1 written into it."""
    nodes = [node("Gather", "image zero", "red", axis=1), node("Reshape", "red one", "map")]
    constants = {**ZERO, "one": np.array([1, 1, 64, 64], np.int64)}
    graph = save(tmp_path / "a.onnx", nodes, FIXED, [1, 1, 64, 64], constants=constants)
    folder = adopted(graph, tmp_path / "models")
    assert read_manifest(folder).provenance["adoption"]["batch"] == 1
    np.testing.assert_array_equal(predicted(folder, batch), RED > 127)


def test_a_graph_that_mixes_the_pictures_of_a_batch_is_given_one_at_a_time(tmp_path: Path) -> None:
    """Every picture gets the answer of the first."""
    nodes = [
        node("Gather", "image zero", "red", axis=1),
        node("Sub", "red red", "nothing"),
        node("Gather", "red zero", "first", axis=0),
        node("Add", "first nothing", "map"),
    ]
    folder = adopted(save(tmp_path / "a.onnx", nodes, ANY, ONE, constants=ZERO), tmp_path / "models")
    assert read_manifest(folder).provenance["adoption"]["batch"] == 1
    np.testing.assert_array_equal(predicted(folder, 4), RED > 127)


def test_an_image_smaller_than_what_the_network_sees_is_segmented(tmp_path: Path) -> None:
    source, out = tmp_path / "small.tif", tmp_path / "out.zarr"
    tifffile.imwrite(source, PICTURE[:40, :50], photometric="rgb")
    folder = adopted(valid_graph(tmp_path / "a.onnx", 7), tmp_path / "models", tile_px=78)
    segment_image(source, folder, out, JobOptions(), Settings())
    found = read_mask(mask_folder(out, "mine"), Box(0, 0, 40, 50), 0)
    np.testing.assert_array_equal(found, RED[:40, :50] > 127)


@pytest.mark.parametrize("overlap", ["none", "half"])
def test_an_adopted_model_segments_an_image(overlap: Any, tmp_path: Path) -> None:
    source, out = tmp_path / "picture.tif", tmp_path / "out.zarr"
    tifffile.imwrite(source, PICTURE, photometric="rgb")
    folder = adopted(red_graph(tmp_path / "a.onnx"), tmp_path / "models", halo_px=8)
    segment_image(source, folder, out, JobOptions(region_px=512, overlap=overlap), Settings())
    found = read_mask(mask_folder(out, "mine"), Box(0, 0, *SHAPE), 0)
    np.testing.assert_array_equal(found, RED > 127)


def test_scores_are_logits_whose_softmax_is_the_probability(tmp_path: Path) -> None:
    import onnx

    from model.adoption.engine import Graph

    folder = adopted(red_graph(tmp_path / "a.onnx"), tmp_path / "models")
    local = np.ascontiguousarray(PICTURE[:64, :64].transpose(2, 0, 1))[None]
    (scores,) = Graph(onnx.load(folder / "model.onnx")).run(["scores"], {"local": local})
    exp = np.exp(scores[0].astype(np.float64))
    np.testing.assert_allclose((exp / exp.sum(axis=0))[1], RED[:64, :64] / 255, atol=1e-6)
