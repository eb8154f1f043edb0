"""A wrapped graph that gives anything else than the graph as it came is never written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gigamask.errors import BadModel
from model.adoption.description import byte_range
from model.adoption.engine import Graph
from model.adoption.frame import choose_frame
from model.adoption.onnx_file import read_onnx
from model.adoption.trial import hold_to_original
from tests.model.adoption.graphs import proposed, shifted_graph
from tests.model.adoption.test_closed_form import two_channels


@pytest.mark.parametrize(
    "told",
    [{"scaling": byte_range(0, 0.9)}, {"channels": "bgr"}, {"frame": choose_frame(100, crop_px=8)}],
    ids=lambda told: next(iter(told)),
)
def test_an_answer_that_differs_is_refused(told: dict[str, Any], tmp_path: Path) -> None:
    path = shifted_graph(tmp_path / "a.onnx", 4)
    found = proposed(path, tile_px=100).study
    original, right = Graph(read_onnx(path)), found.wiring
    assert hold_to_original(found.model, original, right, 0, any_batch=True).agreement == 1.0
    with pytest.raises(BadModel, match="the same label for"):
        hold_to_original(found.model, original, replace(right, **told), 0, any_batch=True)


def test_scores_are_held_to_as_well_as_labels(tmp_path: Path) -> None:
    """Probabilities and their logarithms have the same largest one."""
    path = two_channels(tmp_path / "a.onnx")
    found = proposed(path, activation="softmax").study
    wrong = replace(found.wiring, map=replace(found.wiring.map, activation="none"))
    with pytest.raises(BadModel, match=r"100\.000% of the pixels and scores apart by"):
        hold_to_original(found.model, Graph(read_onnx(path)), wrong, 0, any_batch=True)
