"""What `python -m benchmarks.model` says: counts against the paper's networks, schemes against each other, memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import growth
from benchmarks.cost import CLASSES, TILE_PX, Cost, build_network, count_costs, manifest_of
from benchmarks.model import cost_table, measure_cost
from benchmarks.schemes import balance, by_regions, mmseg_slide, monai_window
from model.predictors import tile_predictor
from model.predictors.torch import TorchNetwork

CPU = torch.device("cpu")


@cache
def costs(host: str) -> dict[tuple[str, int | None], Cost]:
    return {(cost.mode, cost.region_px): cost for cost in count_costs(host, (2048, 4096), span=1)}


@pytest.mark.parametrize(
    ("host", "alone", "tile"),
    [("deeplabv3plus_r50", 672, 915), ("stdc1", 32, 275)],
)
def test_counts_per_megapixel_are_those_of_the_papers_networks(host: str, alone: float, tile: float) -> None:
    assert costs(host)["host", None].gmac_per_mp == pytest.approx(alone, abs=0.5)
    assert costs(host)["tile", None].gmac_per_mp == pytest.approx(tile, abs=0.5)


def test_what_is_shared_costs_less_and_least_in_large_regions() -> None:
    found = costs("stdc1")
    order = [("host", None), ("neighbourhood", 4096), ("neighbourhood", 2048), ("trunk_shared", 4096)]
    order += [("trunk_shared", 2048), ("tile", None)]
    ratios = [found[key].over_host for key in order]
    assert len(found) == 6
    assert sorted(ratios[:2] + ratios[3:]) == ratios[:2] + ratios[3:]
    assert found["neighbourhood", 4096].gmac_per_mp < found["neighbourhood", 2048].gmac_per_mp


def test_the_trunk_is_counted_over_the_hull_of_the_surrounds() -> None:
    saved = costs("stdc1")["tile", None].gmac_per_tile - costs("stdc1")["trunk_shared", 2048].gmac_per_tile
    trunk = 10.791  # of a surround of 1024 px (spec 0.4); 2560 px and the halo on both sides serve 16 tiles
    assert saved == pytest.approx(trunk * (1 - ((2560 + 2 * 176) / 1024) ** 2 / 16), abs=0.01)


def test_the_table_has_a_line_for_every_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.model.HOSTS", dict.fromkeys(["stdc1", "mobilenet_v2"]))
    table = cost_table(measure_cost([2048], span=1))
    assert list(table.columns[0].cells) == ["stdc1", "mobilenet_v2"]
    assert [column.header for column in table.columns[3:]] == [
        "host", "tile", "trunk_shared, 2048 px", "neighbourhood, 2048 px",
    ]  # fmt: skip


def test_all_schemes_give_the_same_labels_where_tiles_divide_the_image() -> None:
    torch.manual_seed(0)
    network = build_network("mobilenet_v2_lraspp", "host", 1, device="cpu")
    balance(network)
    manifest = manifest_of(network, "host")
    predictor = tile_predictor(manifest, TorchNetwork(network, manifest, device="cpu"), batch=1)
    image = np.random.default_rng(0).integers(0, 256, (3, 512, 1024)).astype(np.uint8)
    ours = by_regions(predictor, image, 512)
    assert len(np.unique(ours)) > 1
    # untrained scores lie within 1e-4 of each other, so the order of a sum turns a few
    assert (mmseg_slide(network, image, CLASSES, TILE_PX, CPU) == ours).mean() > 0.999
    pytest.importorskip("monai", reason="needs monai: pip install --no-deps monai==1.6.*")
    assert (monai_window(network, image, TILE_PX, 1, CPU) == ours).mean() > 0.999


def row(scheme: str, side_px: int, limit_gib: float) -> dict[str, Any]:
    return growth.measure(scheme, side_px, limit_gib)


@pytest.mark.parametrize("limit_gib", [0.1, 0.9])  # the image itself, or the scores
@pytest.mark.parametrize("scheme", ["mmseg slide", "monai"])
def test_what_does_not_fit_ends_at_the_limit_and_says_so(scheme: str, limit_gib: float) -> None:
    if scheme == "monai":
        pytest.importorskip("monai", reason="needs monai: pip install --no-deps monai==1.6.*")
    found = row(scheme, 4096, limit_gib)
    assert (found["peak_gib"], found["outcome"]) == (None, f"out of memory at {limit_gib} GiB")


def test_gigamasks_memory_does_not_grow_with_the_image() -> None:
    small, large = row("gigamask", 2048, 2.0), row("gigamask", 4096, 2.0)
    assert large["peak_gib"] < 1.15 * small["peak_gib"]
