"""What is no segmentation, or not safe to open, is refused with what was expected and what was got."""

from __future__ import annotations

import errno
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from gigamask.errors import BadModel, Conflict, GigamaskError, InvalidOption
from gigamask.manifest import LabelClass
from model.adoption.adopt import propose
from model.adoption.description import Description, Scaling
from tests.model.adoption.graphs import (
    ANY,
    CLASSES,
    FLOAT,
    ONE,
    TOLD,
    ZERO,
    adopted,
    labels_graph,
    node,
    proposed,
    red_graph,
    save,
)

THREE = (*CLASSES, LabelClass(id=2, name="other", color="#ff0000"))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class Trap:
    """A pickle that leaves a mark where it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["model.pt", "model.onnx", "model.pkl"])
def test_a_pickle_is_refused_unopened_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    mark = tmp_path / "opened"
    path = written(tmp_path / name, pickle.dumps(Trap(mark)))
    with pytest.raises(BadModel, match=r"pickle.*refused; export it to ONNX"):
        proposed(path)
    assert not mark.exists()


def test_a_checkpoint_of_torch_is_refused_unopened(tmp_path: Path) -> None:
    mark, path = tmp_path / "opened", tmp_path / "model.pth"
    torch.save({"weights": torch.zeros(2), "trap": Trap(mark)}, path)
    with pytest.raises(BadModel, match=r"checkpoint \(torch.save\): a pickle .* export it to ONNX"):
        proposed(path)
    assert not mark.exists()


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(BadModel, match="weights without the network"):
        proposed(path)


def two_inputs(path: Path) -> Path:
    values = [helper.make_tensor_value_info(name, FLOAT, ANY) for name in ("image", "stain")]
    made = helper.make_tensor_value_info("map", FLOAT, ANY)
    graph = helper.make_graph([node("Add", "image stain", "map")], "two", values, [made])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def classifier(path: Path) -> Path:
    nodes = [
        node("ReduceMean", "image", "means", keepdims=0, axes=[2, 3]),
        node("Gather", "means two", "map", axis=1),
    ]
    return save(path, nodes, ANY, ["B", 2], constants={"two": np.array([0, 1], np.int64)}, opset=17)


def no_numbers(path: Path) -> Path:
    nodes = [
        node("Gather", "image zero", "red", axis=1),
        node("Log", "red", "map"),
    ]
    return save(path, nodes, ANY, ONE, constants=ZERO)


def custom(path: Path) -> Path:
    nodes = [helper.make_node("Stain", ["image"], ["map"], domain="hospital.custom")]
    return save(path, nodes, ANY, ONE, extra_imports=("hospital.custom",))


def identity(path: Path, given: list[int | str], given_type: int = FLOAT) -> Path:
    return save(path, [node("Identity", "image", "map")], given, given, given_type=given_type, made_type=given_type)


def old(path: Path) -> Path:
    return save(path, [node("Relu", "image", "map")], ANY, ANY, opset=5)


def odd_size(path: Path) -> Path:
    nodes = [node("Gather", "image zero", "red", axis=1), node("Slice", "red start end axes", "map")]
    constants = {
        **ZERO,
        "start": np.array([0, 0], np.int64),
        "end": np.array([-3, -3], np.int64),
        "axes": np.array([2, 3], np.int64),
    }
    return save(path, nodes, ANY, ["B", 1, "oh", "ow"], constants=constants)


Make = Callable[[Path], Path]
REFUSED: dict[str, tuple[Make, dict[str, Any], str]] = {
    "no ONNX": (lambda p: written(p, b"a poem, not a graph"), {}, "is no ONNX file"),
    "empty": (lambda p: written(p, b""), {}, "is no ONNX file"),
    "two inputs": (two_inputs, {}, "takes one picture; the graph takes image, stain"),
    "four channels": (lambda p: identity(p, ["B", 4, "h", "w"]), {}, r"4 channels, expected 3 \(RGB\) or 1"),
    "integers": (lambda p: identity(p, ANY, TensorProto.INT64), {}, "is int64, expected one of float, float16"),
    "volumes": (lambda p: identity(p, ["B", 3, "d", "h", "w"]), {}, r"5 axes \(\?, 3, \?, \?, \?\), expected 4"),
    "four at once": (lambda p: identity(p, [4, 3, 64, 64]), {}, "takes 4 pictures at once"),
    "not square": (lambda p: identity(p, [1, 3, 64, 128]), {}, "64 x 128 px"),
    "another side": (lambda p: red_graph(p, [1, 3, 96, 96], [1, 1, 96, 96]), {}, "96 px alone, not tiles of 64"),
    "classes": (
        red_graph,
        {"classes": THREE},
        r"1 channels \(1, 1, 64, 64\), not the 3 classes: expected \(1, 3, h, w\)",
    ),
    "one class": (red_graph, {"classes": CLASSES[:1]}, "two classes or more"),
    "no classes": (red_graph, {"classes": ()}, "classes are not known"),
    "a classifier": (classifier, {}, r"is \(1, 2\), no map of the picture"),
    "labels": (lambda p: labels_graph(p, top=7), {"activation": None}, r"the labels \[0, 7\], expected 0\.\.1"),
    "no numbers": (no_numbers, {"activation": "none"}, "values that are no numbers"),
    "not sigmoid": (red_graph, {"scaling": Scaling()}, r"after sigmoid values lie in 0\.\.1; .* gives 0\.\.255"),
    "softmax of one": (red_graph, {"activation": "softmax"}, "softmax over 1 channels leaves none"),
    "threshold": (red_graph, {"threshold": 1.5}, "between 0 and 1, not 1.5"),
    "custom operators": (custom, {}, r"hospital\.custom\.Stain"),
    "an old opset": (old, {}, "opset 5, older than"),
    "an odd size": (odd_size, {}, "61 px of a picture of 64 px"),
    "a halo": (lambda p: red_graph(p, [1, 3, 64, 64], [1, 1, 64, 64]), {"halo_px": 20}, "leaves 24 px, expected 32"),
    "an input": (red_graph, {"input_name": "picture"}, "no input 'picture', only 'image'"),
    "an output": (red_graph, {"output_name": "mask"}, "no output 'mask', only map"),
    "figures": (red_graph, {"scaling": Scaling((1.0, 1.0), (0.0, 0.0))}, "3 channels has 1 or 3 figures, not 2"),
    "no licence": (red_graph, {"license": ""}, "licence is not known"),
    "a tile": (red_graph, {"tile_px": 9000}, "32 to 4096 px, not 9000"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_with_the_reason(what: str, tmp_path: Path) -> None:
    make, told, words = REFUSED[what]
    with pytest.raises((BadModel, InvalidOption), match=words):
        proposed(make(tmp_path / "brought.onnx"), **told)


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="no such file or folder"):
        proposed(tmp_path / "absent.onnx")
    with pytest.raises(BadModel, match=r"describes no model: expected rdf\.yaml"):
        proposed(tmp_path)


def with_weights(path: Path, location: str) -> Path:
    """`red * 1` with the 1 in another file."""
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    nodes = [node("Gather", "image zero", "red", axis=1), node("Mul", "red one", "map")]
    save(path, nodes, ANY, ONE, constants={**ZERO, "one": np.ones(1, np.float32)})
    model = onnx.load(path)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "one")
    content = tensor.raw_data or one.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())
    target = path.parent / location
    target.parent.mkdir(exist_ok=True, parents=True)
    target.write_bytes(content)
    return path


def test_weights_in_a_file_beside_the_graph_are_taken_into_it(tmp_path: Path) -> None:
    path = with_weights(tmp_path / "a.onnx", "a.onnx.data")
    folder = adopted(path, tmp_path / "models")
    assert not any(
        t.external_data for t in onnx.load(folder / "model.onnx", load_external_data=False).graph.initializer
    )
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.onnx", "test_vector.npz"]


@pytest.mark.parametrize("location", ["../secret.bin", "deep/weights.bin"])
def test_weights_elsewhere_are_not_read(location: str, tmp_path: Path) -> None:
    path = with_weights(tmp_path / "bundle" / "a.onnx", location) if (tmp_path / "bundle").mkdir() is None else None
    assert path is not None
    with pytest.raises(BadModel, match=re.escape(repr(location))):
        proposed(path)


def test_weights_through_a_link_are_not_read(tmp_path: Path) -> None:
    path = with_weights(tmp_path / "a.onnx", "weights.bin")
    (tmp_path / "weights.bin").rename(tmp_path / "elsewhere.bin")
    (tmp_path / "weights.bin").symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(BadModel, match="no file beside it"):
        proposed(path)


def test_weights_of_sparse_tensors_in_other_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither onnx nor we take them in; ONNX Runtime would look for them where the process happens to be."""
    monkeypatch.chdir(tmp_path)
    np.ones(1, np.float32).tofile("secret.bin")
    values = TensorProto(name="c", data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    values.external_data.add(key="location", value="secret.bin")
    model = onnx.load(red_graph(tmp_path / "a.onnx"))
    sparse = onnx.SparseTensorProto(
        values=values, indices=numpy_helper.from_array(np.zeros(1, np.int64), "i"), dims=[1]
    )
    model.graph.sparse_initializer.append(sparse)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BadModel, match="keeps weights in"):
        proposed(tmp_path / "a.onnx")


def test_an_existing_model_stays_where_another_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment between the two renames."""
    folder = adopted(red_graph(tmp_path / "a.onnx"), tmp_path / "models")
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if path.parent.name.startswith(".adopting-") and path.name == "mine":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(Conflict, match="Input/output error"):
        proposed(tmp_path / "a.onnx", version="2").write(tmp_path / "models", overwrite=True)
    assert b'"version": "1"' in (folder / "model.json").read_bytes()
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["mine"]


def test_an_existing_model_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    graph = red_graph(tmp_path / "a.onnx")
    folder = adopted(graph, tmp_path / "models")
    before = (folder / "model.json").read_bytes()
    with pytest.raises(Conflict, match="exists already"):
        adopted(graph, tmp_path / "models", version="2")
    assert (folder / "model.json").read_bytes() == before
    proposed(graph, version="2").write(tmp_path / "models", overwrite=True)
    assert b'"version": "2"' in (folder / "model.json").read_bytes()
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["mine"]


def test_a_folder_that_is_no_model_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    with pytest.raises(Conflict, match="is no model folder"):
        proposed(red_graph(tmp_path / "a.onnx")).write(tmp_path / "models", overwrite=True)


def test_a_root_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    root = written(tmp_path / "file", b"")
    with pytest.raises(InvalidOption, match="--to names another folder"):
        adopted(red_graph(tmp_path / "a.onnx"), root / "models")


def test_a_name_is_made_from_the_files_and_told(tmp_path: Path) -> None:
    graph = red_graph(tmp_path / "My Model (v2).onnx")
    unnamed = Description(classes=CLASSES, tile_px=64, license="MIT")
    found = propose(graph, unnamed)
    assert found.name == "my-model-v2"
    told = " ".join(found.study.assumptions)
    for word in ("my-model-v2", "0..1", "sigmoid", "how large a pixel"):
        assert word in told


def test_what_was_said_is_not_called_assumed(tmp_path: Path) -> None:
    from gigamask.manifest import PixelSize

    found = proposed(red_graph(tmp_path / "a.onnx"), pixel_size=PixelSize(value=0.5, unit="micrometer"))
    assert list(found.study.assumptions) == ["1 channel(s) for 2 classes: bright; else dark"]


def test_an_archive_that_unpacks_to_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/code/a.py", "")
        archive.writestr("model/constants.pkl", b"")
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 24 : place + 28] = (3_000_000_000).to_bytes(4, "little")  # the size that the directory claims
    path.write_bytes(content)
    with pytest.raises(GigamaskError, match="unpacks to more than"):
        propose(path, TOLD)


def test_an_archive_whose_program_cannot_be_unpacked_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/constants.pkl", b"")
        archive.writestr("model/code/a.py", "pass\n" * 500)
    content = bytearray(path.read_bytes())
    place = content.index(b"model/code/a.py") + len("model/code/a.py")
    content[place : place + 6] = b"\xff" * 6
    path.write_bytes(content)
    with pytest.raises(BadModel, match="is a broken archive"):
        propose(path, TOLD)
