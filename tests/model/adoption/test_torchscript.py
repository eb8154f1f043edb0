"""TorchScript becomes ONNX once, and gives the same; what reaches beyond tensors is refused before it runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gigamask.errors import BadModel
from model.adoption.engine import Graph
from model.adoption.torchscript import convert, require_torchscript
from tests.model.adoption.graphs import TOLD, proposed

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def scripted(network: nn.Module, path: Path) -> Path:
    torch.jit.script(network.eval()).save(str(path))
    return path


class Strided(nn.Module):
    """Scores of two classes, a quarter of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.classify = nn.Conv2d(3, 6, 4, stride=4), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(torch.relu(self.down(x)))


class Growing(nn.Module):
    """A loop over what was found so far, which ONNX has no words for; two classes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sizes = [x.size(1)]
        for k in range(x.dim() - 3):
            sizes.append(sizes[k] + 1)
        found = x[:, :1] * float(sizes.pop(-1))
        if len(sizes) == 1:
            found = torch.cat([found, x[:, 1:2]], dim=1)
        return found


class Reading(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/hostname", shared=False, size=4, dtype=torch.float32).sum()


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


def test_it_gives_what_torch_gives(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = Strided()
    graph = convert(scripted(network, tmp_path / "model.pt"), TOLD)
    pictures = torch.rand(2, 3, 96, 96)
    (found,) = Graph(graph).run(["map"], {"image": pictures.numpy()})
    np.testing.assert_allclose(found, network(pictures).detach().numpy(), atol=1e-5)


def test_it_is_adopted_like_any_other(tmp_path: Path) -> None:
    torch.manual_seed(1)
    found = proposed(scripted(Strided(), tmp_path / "model.ts"), activation="none")
    assert (found.study.wiring.map.reduction, found.study.verdict.agreement) == (4, 1.0)
    assert found.origin.name == "model.ts"


def test_a_program_whose_loops_onnx_does_not_know_is_recorded_at_one_size(tmp_path: Path) -> None:
    graph = convert(scripted(Growing(), tmp_path / "model.pt"), TOLD)
    assert not {node.op_type for node in graph.graph.node} & {"Loop", "If"}
    picture = torch.rand(1, 3, 64, 64)
    (found,) = Graph(graph).run(["map"], {"image": picture.numpy()})
    np.testing.assert_allclose(found, Growing()(picture).numpy(), atol=1e-6)


def test_a_program_that_opens_files_is_refused_before_it_runs(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="'from_file', which touches files"):
        require_torchscript(scripted(Reading(), tmp_path / "model.pt"))


def test_a_program_that_gives_two_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="gives tuple, expected one tensor"):
        proposed(scripted(Pair(), tmp_path / "model.pt"))


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"fails on a picture of \(1, 3, 64, 64\)"):
        proposed(scripted(nn.Conv2d(5, 2, 1), tmp_path / "model.pt"))
