"""Hosts as ONNX graphs. The exporter takes seconds for every dozen layers, so each part is exported once.

Left out are hosts made of parts that another one has: stdc2 (stdc1, longer), MobileNetV2 under DeepLabV3+ and LR-ASPP,
EfficientNet-Lite0 under DeepLabV3+; and mobilenet_v2, which the shipped model and its tests export. Where a stage
repeats one block, few stand for all.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from model.hosts import build_host
from tests.model.hosts.exports import onnx_difference

REPEATED = {
    "fcn_r50": {"layer1": 2, "layer2": 2, "layer3": 2, "layer4": 2},
    "deeplabv3plus_r50": {"layer1": 2, "layer2": 2, "layer3": 2, "layer4": 2},
    "hrnet_w18": {"layer1": 2, "stage3": 1, "stage4": 1},
    "segformer_b0": {},
    "stdc1": {},
    "efficientnet_lite0_lraspp": {},
}


@pytest.mark.parametrize("name", REPEATED)
def test_a_hosts_graph_scores_as_torch_does_at_any_batch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    host = build_host(name, 3)
    for stage, kept in REPEATED[name].items():
        blocks = host.backbone.get_submodule(stage)
        assert isinstance(blocks, nn.Sequential)
        setattr(host.backbone, stage, blocks[:kept])
    assert onnx_difference(host, 64, tmp_path / "host.onnx") < 1e-3
