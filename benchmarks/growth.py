"""Peak memory of the three schemes as the image grows. python -m benchmarks.growth SCHEME SIDE_PX LIMIT_GIB

Each run is a process of its own. Its network is one 1x1 convolution, so what is measured is the scheme: Gigamask reads
windows and writes a mask to the disk as a worker does; the others hold image and scores whole, as they must. Its
address space may grow by the limit and no more, so that what does not fit fails at once and harms nobody.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.cost import bench_manifest
from benchmarks.schemes import slide, window
from gigamask.geometry import Box
from gigamask.plan import plan_regions
from gigamask.processes import give_back_freed_memory
from gigamask.pyramid.mask import MaskWriter
from model.peak import PeakMemory
from model.predictors import tile_predictor
from model.predictors.torch import TorchNetwork
from model.sgnet import SGNet

GIB = 1 << 30
CLASSES, TILE_PX, REGION_PX = 7, 512, 2048
SCHEMES = ("gigamask", "mmseg slide", "monai")
SLIDE_TILES = 16  # its maps are whole from the first tile on; each further one costs a pass over them
STRIP_PX = 512


def measure(scheme: str, side_px: int, limit_gib: float) -> dict[str, object]:
    """One row: peak_gib, null where it ran out of memory, and the outcome in words. Raises CalledProcessError."""
    command = [sys.executable, "-m", "benchmarks.growth", scheme, str(side_px), str(limit_gib)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    row: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return row


def run(scheme: str, side_px: int, limit_gib: float) -> dict[str, object]:
    give_back_freed_memory()  # as `gigamask worker` does
    network = Pointwise().eval()
    network(torch.zeros(1, 3, TILE_PX, TILE_PX))
    _limit_growth(limit_gib)
    memory = PeakMemory()
    row: dict[str, object] = {"scheme": scheme, "side_px": side_px, "limit_gib": limit_gib}
    try:
        with torch.inference_mode():
            _ACTS[scheme](network, side_px)
    except (MemoryError, RuntimeError) as exc:
        if not _is_out_of_memory(exc):
            raise
        return row | {"peak_gib": None, "outcome": f"out of memory at {limit_gib:g} GiB"}
    return row | {"peak_gib": round(memory.rss_mib() / 1024, 2), "outcome": "done"}


class Pointwise(nn.Module):
    """(B, 3, h, w) -> (B, K, h, w), called as SGNet is"""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Conv2d(3, CLASSES, 1)

    def forward(self, local: Tensor, surround: Tensor | None = None, offset: Tensor | None = None) -> Tensor:
        found: Tensor = self.scores(local)
        return found


def _by_regions(network: nn.Module, side_px: int) -> None:
    manifest = bench_manifest(CLASSES, TILE_PX, alpha=1)
    predictor = tile_predictor(manifest, TorchNetwork(cast(SGNet, network), manifest, device="cpu"), batch=1)
    plan = plan_regions((side_px, side_px), manifest, REGION_PX)
    with tempfile.TemporaryDirectory(prefix="gigamask-bench-") as folder:
        mask = MaskWriter(Path(folder) / "mask", plan)
        mask.create()
        for region in plan.regions():
            mask.write_region(region, predictor.predict(read_window(region.window), region))


def _by_slide(network: nn.Module, side_px: int) -> None:
    slide(network, _whole_image(side_px), CLASSES, TILE_PX, SLIDE_TILES)


def _by_window(network: nn.Module, side_px: int) -> None:
    window(network, _whole_image(side_px), TILE_PX, batch=1)


_ACTS = dict(zip(SCHEMES, (_by_regions, _by_slide, _by_window), strict=True))


def read_window(box: Box) -> NDArray[np.uint8]:
    """(3, h, w): a picture of any size that is made where it is read"""
    y, x = np.arange(box.y0, box.y1), np.arange(box.x0, box.x1)
    ramp = ((y[:, None] // 3 + x // 5) % 251).astype(np.uint8)
    return np.stack([ramp, ramp.T.copy().T, 250 - ramp])


def _whole_image(side_px: int) -> Tensor:
    """(1, 3, side, side) float32, filled in strips: making it costs no second copy"""
    image = torch.empty(1, 3, side_px, side_px)
    for y in range(0, side_px, STRIP_PX):
        strip = Box(y, 0, min(y + STRIP_PX, side_px), side_px)
        image[0, :, y : strip.y1] = torch.from_numpy(read_window(strip)) / 255
    return image


def _limit_growth(limit_gib: float) -> None:
    most = psutil.Process().memory_info().vms + round(limit_gib * GIB)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _is_out_of_memory(exc: Exception) -> bool:
    """numpy raises MemoryError, torch a RuntimeError that says so."""
    return isinstance(exc, MemoryError) or "can't allocate memory" in str(exc)


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))))
