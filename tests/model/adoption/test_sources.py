"""Folders that describe themselves: WSInfer, BioImage.IO and MONAI, where they hold a segmentation."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from gigamask.errors import BadModel
from model.adoption.adopt import Proposal, propose
from model.adoption.description import Description, byte_range
from model.adoption.texts import read_yaml
from tests.model.adoption.graphs import CLASSES, ONE, node, red_graph, save
from tests.pictures import picture

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
SIDE = 64
LICENCE = Description(license="MIT")


def write_json(path: Path, told: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told))


# WSInfer


def wsinfer(folder: Path, network: nn.Module, **changed: Any) -> Path:
    config = {
        "spec_version": "1.0",
        "architecture": "tiny",
        "num_classes": 2,
        "patch_size_pixels": 128,
        "spacing_um_px": 0.25,
        "class_names": ["other", "tumour"],
        "transform": [
            {"name": "Resize", "arguments": {"size": SIDE}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}},
        ],
    }
    write_json(folder / "config.json", config | changed)
    torch.jit.script(network.eval()).save(str(folder / "torchscript_model.pt"))
    return folder


def test_a_wsinfer_model_that_gives_a_map_is_adopted(tmp_path: Path) -> None:
    found = propose(wsinfer(tmp_path / "wsinfer", nn.Conv2d(3, 2, 1)), LICENCE)
    manifest = found.manifest
    assert [entry.name for entry in manifest.classes] == ["other", "tumour"]
    assert manifest.tile_px == SIDE
    assert manifest.pixel_size is not None
    assert manifest.pixel_size.value == pytest.approx(0.5)  # 128 px of 0.25 um become 64 px
    assert manifest.mean == pytest.approx((127.5,) * 3)
    assert manifest.std == pytest.approx((63.75,) * 3)
    assert manifest.provenance["format"] == "WSInfer 1.0"


def test_a_wsinfer_classifier_of_patches_is_refused_with_the_reason(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(BadModel, match=r"is \(1, 2\), no map of the picture"):
        propose(wsinfer(tmp_path / "wsinfer", network), LICENCE)


def test_a_transform_that_is_not_known_is_refused(tmp_path: Path) -> None:
    folder = wsinfer(tmp_path / "wsinfer", nn.Conv2d(3, 2, 1), transform=[{"name": "StainNorm"}])
    with pytest.raises(BadModel, match="asks for the transform 'StainNorm'"):
        propose(folder, LICENCE)


@pytest.mark.parametrize("step", [{"name": "Normalize"}, {"name": "Normalize", "arguments": {"mean": 3, "std": [1]}},
                                  {"name": "Resize", "arguments": {"size": []}}], ids=str)  # fmt: skip
def test_a_transform_with_arguments_that_are_none_is_refused(step: dict[str, Any], tmp_path: Path) -> None:
    folder = wsinfer(tmp_path / "wsinfer", nn.Conv2d(3, 2, 1), transform=[step])
    with pytest.raises(BadModel, match="in a way that is not known here"):
        propose(folder, LICENCE)


# BioImage.IO

GIVEN = picture((SIDE, SIDE)).transpose(2, 0, 1)[None].astype(np.float32)
GAIN, SHIFT = 1 / 255, 0.0


def tensors(folder: Path, expected: np.ndarray | None = None) -> None:
    np.save(folder / "given.npy", GIVEN)
    made = GIVEN[:, :1] * GAIN + SHIFT if expected is None else expected
    np.save(folder / "made.npy", made.astype(np.float32))


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


LINEAR_04 = {"name": "scale_linear", "kwargs": {"gain": GAIN, "offset": SHIFT, "axes": "yx"}}


def rdf_04(folder: Path, steps: list[Any] | None = None, halo: int = 16, **changed: Any) -> Path:
    folder.mkdir(parents=True)
    red_graph(folder / "weights.onnx")
    tensors(folder)
    (folder / "README.md").write_text("# What it finds\n")
    told = {
        "format_version": "0.4.10",
        "type": "model",
        "name": "Bright things",
        "description": "Finds what is bright",
        "authors": [{"name": "A. Author"}],
        "cite": [{"text": "A paper", "doi": "10.1038/s41592-018-0261-2"}],
        "documentation": "README.md",
        "license": "MIT",
        "version": "0.2",
        "timestamp": "2024-01-01T00:00:00",
        "inputs": [
            {
                "name": "raw",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": [1, 3, SIDE, SIDE],
                "preprocessing": [LINEAR_04] if steps is None else steps,
            }
        ],
        "outputs": [
            {
                "name": "bright",
                "axes": "bcyx",
                "data_type": "float32",
                "shape": [1, 1, SIDE, SIDE],
                "halo": [0, 0, halo, halo],
            }
        ],
        "weights": {
            "onnx": {"source": "weights.onnx", "opset_version": 18, "sha256": hash_of(folder / "weights.onnx")}
        },
        "test_inputs": ["given.npy"],
        "test_outputs": ["made.npy"],
    }
    (folder / "rdf.yaml").write_text(yaml.safe_dump(told | changed, sort_keys=False))
    return folder


def rdf_05(folder: Path, **changed: Any) -> Path:
    folder.mkdir(parents=True)
    red_graph(folder / "weights.onnx")
    tensors(folder)
    (folder / "README.md").write_text("# What it finds\n")
    plane = [
        {"type": "space", "id": axis, "size": {"min": 32, "step": 16}, "unit": "micrometer", "scale": 0.5}
        for axis in "yx"
    ]
    made = [
        {
            "type": "space",
            "id": a,
            "size": {"tensor_id": "raw", "axis_id": a},
            "scale": 0.5,
            "unit": "micrometer",
            "halo": 8,
        }
        for a in "yx"
    ]
    told = {
        "format_version": "0.5.4",
        "type": "model",
        "name": "Bright things",
        "description": "Finds what is bright",
        "authors": [{"name": "A. Author"}],
        "cite": [{"text": "A paper", "doi": "10.1038/s41592-018-0261-2"}],
        "documentation": "README.md",
        "license": "MIT",
        "inputs": [
            {
                "id": "raw",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["r", "g", "b"]}, *plane],
                "test_tensor": {"source": "given.npy", "sha256": hash_of(folder / "given.npy")},
                "data": {"type": "float32"},
                "preprocessing": [
                    {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
                    {"id": "scale_linear", "kwargs": {"gain": GAIN, "offset": SHIFT}},
                ],
            }
        ],
        "outputs": [
            {
                "id": "bright",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["bright"]}, *made],
                "test_tensor": {"source": "made.npy", "sha256": hash_of(folder / "made.npy")},
                "data": {"type": "float32"},
            }
        ],
        "weights": {
            "onnx": {"source": "weights.onnx", "opset_version": 18, "sha256": hash_of(folder / "weights.onnx")}
        },
    }
    (folder / "rdf.yaml").write_text(yaml.safe_dump(told | changed, sort_keys=False))
    return folder


def with_classes(folder: Path, **told: Any) -> Proposal:
    return propose(folder, Description(classes=CLASSES, **told))


def test_a_bioimageio_model_of_format_04_is_adopted_with_its_halo_and_its_test(tmp_path: Path) -> None:
    found = with_classes(rdf_04(tmp_path / "package"))
    frame, manifest = found.study.wiring.frame, found.manifest
    assert (frame.network_px, frame.tile_px) == (64, 32)
    assert found.sample_agreement == 1.0
    assert (manifest.name, manifest.version, manifest.license) == ("bright-things", "0.2", "MIT")
    assert manifest.provenance["authors"] == "A. Author"


def test_a_bioimageio_model_of_format_05_tells_classes_sizes_and_pixel_size_itself(tmp_path: Path) -> None:
    found = propose(rdf_05(tmp_path / "package"), Description(tile_px=64))
    manifest = found.manifest
    assert [entry.name for entry in manifest.classes] == ["background", "bright"]
    assert (found.study.wiring.frame.network_px, manifest.tile_px) == (
        80,
        64,
    )  # 64 and a halo of 8, in steps of 16 from 32
    assert manifest.pixel_size is not None
    assert (manifest.pixel_size.value, manifest.pixel_size.unit) == (0.5, "micrometer")
    assert found.sample_agreement == 1.0


def test_the_authors_test_is_held_to(tmp_path: Path) -> None:
    folder = rdf_04(tmp_path / "package")
    tensors(folder, np.zeros((1, 1, SIDE, SIDE)))
    with pytest.raises(BadModel, match="of the author's test output"):
        with_classes(folder)


def test_fixed_normalisation_is_taken_over(tmp_path: Path) -> None:
    step = {
        "name": "zero_mean_unit_variance",
        "kwargs": {"mode": "fixed", "axes": "yx", "mean": [10, 20, 30], "std": [2, 4, 5], "eps": 1e-9},
    }
    folder = rdf_04(tmp_path / "package", [step])
    tensors(folder, (GIVEN[:, :1] - 10) / 2)
    found = with_classes(folder, activation="none")
    assert found.manifest.mean == pytest.approx((10, 20, 30))
    assert found.manifest.std == pytest.approx((2, 4, 5))
    assert found.sample_agreement == 1.0


def test_what_depends_on_a_whole_picture_is_refused_until_somebody_says_otherwise(tmp_path: Path) -> None:
    step = {"name": "zero_mean_unit_variance", "kwargs": {"mode": "per_sample", "axes": "cyx"}}
    folder = rdf_04(tmp_path / "package", [step])
    with pytest.raises(BadModel, match=r"zero_mean_unit_variance \(per_sample\) depends on .* --mean and --std"):
        with_classes(folder)
    found = with_classes(folder, scaling=byte_range(0, 1))
    assert found.sample_agreement is None
    assert any("author's test was not run" in note for note in found.study.assumptions)


CHANGED = {
    "weights at an address": (
        {"weights": {"onnx": {"source": "https://example.org/weights.onnx"}}},
        "is at an address .*: download the whole package",
    ),
    "weights outside": ({"weights": {"onnx": {"source": "../weights.onnx"}}}, "which is no file in package"),
    "a pickle alone": ({"weights": {"pytorch_state_dict": {"source": "weights.onnx"}}}, "expected onnx or torchscript"),
    "other weights": ({"weights": {"onnx": {"source": "weights.onnx", "sha256": "0" * 64}}}, "expected 000"),
    "volumes": (
        {"inputs": [{"name": "raw", "axes": "bczyx", "shape": [1, 3, 8, 64, 64]}]},
        "axes 'bczyx', expected bcyx",
    ),
    "an old format": ({"format_version": "0.3.2"}, "format 0.3.2, expected a model in 0.4 or 0.5"),
    "no inputs": ({"inputs": []}, "0 inputs, expected one picture"),
    "a wrong shape": ({"outputs": [{"axes": "bcyx"}]}, "lacks what a model of format"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_description_that_does_not_do_is_refused_with_the_reason(what: str, tmp_path: Path) -> None:
    changed, words = CHANGED[what]
    with pytest.raises(BadModel, match=words):
        with_classes(rdf_04(tmp_path / "package", **changed))


def terabytes() -> bytes:
    """A small file that says that it holds many numbers."""
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head


def test_test_tensors_with_pickles_in_them_are_not_opened(tmp_path: Path) -> None:
    folder = rdf_04(tmp_path / "package")
    np.save(folder / "given.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadModel, match=r"given\.npy is no plain \.npy array"):
        with_classes(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", terabytes()], ids=["empty", "no zip", "terabytes"])
def test_test_tensors_that_are_none_are_refused(content: bytes, tmp_path: Path) -> None:
    folder = rdf_04(tmp_path / "package")
    (folder / "given.npy").write_bytes(content)
    with pytest.raises(BadModel, match=r"given\.npy is no plain \.npy array"):
        with_classes(folder)


def test_yaml_makes_no_objects_and_does_not_unfold(tmp_path: Path) -> None:
    path = tmp_path / "rdf.yaml"
    path.write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(BadModel, match="not plain YAML"):
        read_yaml(path)
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))]
    path.write_text("\n".join(lines))
    with pytest.raises(BadModel, match="unfolds to"):
        read_yaml(path)
    for text in ("a: &a [*a]\n", "a: 2001-13-45\n", f"a: {'9' * 5000}\n", "a: &a {x: 1}\nb: {<<: [*a, *a]}\n"):
        path.write_text(text)
        with pytest.raises(BadModel, match="not plain YAML"):
            read_yaml(path)


# MONAI

INTENSITY = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": -1, "b_max": 1}


def monai(folder: Path, steps: list[Any] | None = None, **port: Any) -> Path:
    given = {"type": "image", "num_channels": 3, "spatial_shape": [SIDE, SIDE], "value_range": [0, 255], **port}
    made = {"type": "image", "num_channels": 1, "spatial_shape": [SIDE, SIDE], "channel_def": {"0": "bright"}}
    metadata = {
        "version": "0.3.1",
        "task": "Bright things",
        "authors": "B. Author",
        "license": "Apache-2.0",
        "network_data_format": {"inputs": {"image": given}, "outputs": {"pred": made}},
    }
    write_json(folder / "configs" / "metadata.json", metadata)
    inference = {
        "preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "LoadImaged"}, *(steps or [INTENSITY])]},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [SIDE, SIDE]},
        "postprocessing": {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "sigmoid": True}]},
    }
    write_json(folder / "configs" / "inference.json", inference)
    (folder / "models").mkdir()
    red_graph(folder / "models" / "model.onnx")
    return folder


def test_a_monai_bundle_of_planes_is_adopted(tmp_path: Path) -> None:
    found = propose(monai(tmp_path / "bundle"), Description())
    manifest = found.manifest
    assert [entry.name for entry in manifest.classes] == ["background", "bright"]
    assert (manifest.version, manifest.license, manifest.tile_px) == ("0.3.1", "Apache-2.0", SIDE)
    assert found.study.wiring.map.activation == "none"  # the bundle's own sigmoid comes after its graph
    assert (manifest.mean, manifest.std) == ((127.5,) * 3, (127.5,) * 3)


def test_a_monai_bundle_of_volumes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="3 spatial axes, expected 2"):
        propose(monai(tmp_path / "bundle", spatial_shape=[96, 96, 96]), Description())


@pytest.mark.parametrize(
    "step",
    [
        {"_target_": "ScaleIntensityd", "minv": 0, "maxv": 1},
        {"_target_": "NormalizeIntensityd", "nonzero": True},
        {**INTENSITY, "a_max": "$import os"},
        {**INTENSITY, "a_max": 100, "clip": True},
    ],
)
def test_what_a_bundle_does_to_pixels_is_taken_over_or_refused(step: dict[str, Any], tmp_path: Path) -> None:
    folder = monai(tmp_path / "bundle", [step])
    with pytest.raises(BadModel, match=r"scaling: inference\.json: .* --range"):
        propose(folder, Description())
    assert propose(folder, Description(scaling=byte_range(0, 1))).study.wiring.scaling == byte_range(0, 1)


def test_a_bundle_with_a_pickle_alone_is_refused(tmp_path: Path) -> None:
    folder = monai(tmp_path / "bundle")
    (folder / "models" / "model.onnx").rename(folder / "models" / "model.pt")
    with pytest.raises(BadModel, match=r"model\.pt is a pickle and is not read"):
        propose(folder, Description())


def test_grey_pictures_are_taken_by_their_luma(tmp_path: Path) -> None:
    """A microscope's one channel."""
    folder = rdf_04(tmp_path / "package", test_inputs=None, test_outputs=None)
    save(folder / "weights.onnx", [node("Identity", "image", "map")], ONE, ONE)
    told = yaml.safe_load((folder / "rdf.yaml").read_text())
    told["weights"]["onnx"]["sha256"] = hash_of(folder / "weights.onnx")
    told["inputs"][0]["shape"] = [1, 1, SIDE, SIDE]
    (folder / "rdf.yaml").write_text(yaml.safe_dump(told))
    assert with_classes(folder).study.wiring.channels == "grey"
