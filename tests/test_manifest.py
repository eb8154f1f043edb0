"""A model folder is what its manifest says, or it is refused with what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigamask.errors import BadModel, UnknownModel
from gigamask.manifest import ModelShelf, checked_file, read_manifest
from tests.models_for_tests import threshold_model


def test_a_folder_dropped_in_is_seen_at_the_next_call(tmp_path: Path) -> None:
    shelf = ModelShelf((tmp_path,))
    assert shelf.manifests() == []
    threshold_model(tmp_path / "threshold")
    assert [m.name for m in shelf.manifests()] == ["threshold"]


def test_an_unknown_model_is_told_with_those_there_are(tmp_path: Path) -> None:
    threshold_model(tmp_path / "threshold")
    with pytest.raises(UnknownModel, match="no model 'other'; there are: threshold"):
        ModelShelf((tmp_path,)).manifest("other")


def test_a_folder_with_another_name_than_its_manifest_is_refused(tmp_path: Path) -> None:
    threshold_model(tmp_path / "renamed")
    with pytest.raises(BadModel, match="'renamed' holds the model 'threshold'"):
        ModelShelf((tmp_path,)).manifest("renamed")


def test_a_file_that_was_changed_is_refused_with_both_hashes(tmp_path: Path) -> None:
    folder = threshold_model(tmp_path / "threshold")
    manifest = read_manifest(folder)
    assert checked_file(folder, manifest, "onnx") == folder / "model.onnx"
    (folder / "model.onnx").write_bytes(b"something else")
    with pytest.raises(BadModel, match=f"sha256 .*, expected {manifest.files['onnx'].sha256}"):
        checked_file(folder, manifest, "onnx")


@pytest.mark.parametrize("path", ["../model.onnx", "/etc/passwd", "a/b.onnx", ".."])
def test_a_model_file_lies_in_its_own_folder(tmp_path: Path, path: str) -> None:
    folder = threshold_model(tmp_path / "threshold")
    manifest = folder / "model.json"
    manifest.write_text(manifest.read_text().replace('"model.onnx"', f'"{path}"'))
    with pytest.raises(BadModel, match="lies in its own folder"):
        read_manifest(folder)
