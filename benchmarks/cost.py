"""Multiply-accumulates of a network, counted on torch's meta device: no weights, no pixels, no time.

GMAC = 1e9 multiply-accumulates of convolutions, products and attention; per tile of 512 px and per megapixel, in a
region in the middle of a large image, margins included: what it reads beyond itself, its neighbours compute again.
Counted are the modules that predictors run (model/deployed.py), on the windows that the plan gives them.

    host           the host alone
    tile           the paper: every tile with a surround of its own
    trunk_shared   the trunk once for a region, the rest as `tile`
    neighbourhood  the whole branch once for a region and as far around it as its tokens see
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gigamask.manifest import LabelClass, ModelManifest
from gigamask.plan import Region, plan_regions
from model.deployed import Deployed, DeployedContext, DeployedTile, context_rule
from model.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from model.predictors.shared import frame_of, map_cells
from model.sgnet import Architecture, SGNet, Surround

TILE_PX, CLASSES = 512, 7  # DeepGlobe's, as in the paper's Table 6
MODES = ("host", "tile", "trunk_shared", "neighbourhood")
_REGIONS_ACROSS = 5  # so that the one in the middle reads no border


@dataclass(frozen=True, slots=True)
class Cost:
    """parameters_m: millions, the heads of training left out. region_px: None where no region shares anything.
    over_host: times the cost of the host alone."""

    host: str
    mode: str
    region_px: int | None
    parameters_m: float
    gmac_per_tile: float
    gmac_per_mp: float
    over_host: float


def count_costs(host: str, regions_px: Sequence[int], span: int) -> Iterator[Cost]:
    """A row for the host alone, for `tile`, and for every region side of each shared mode. span: see Surround."""
    alone = 0.0
    for mode in MODES:
        network = build_network(host, mode, span)
        manifest = manifest_of(network, mode)
        shared = manifest.context.mode != "tile"
        for region_px in regions_px if shared else regions_px[:1]:
            per_tile = gmac_per_tile(network, manifest, region_px)
            alone = alone or per_tile
            per_mp, told = per_tile * 1e6 / TILE_PX**2, region_px if shared else None
            yield Cost(host, mode, told, parameters_m(network), per_tile, per_mp, per_tile / alone)


def build_network(host: str, mode: str, span: int, device: str = "meta") -> SGNet:
    surround = None if mode == "host" else Surround(auxiliary=False)
    if mode == "neighbourhood":
        surround = Surround(auxiliary=False, reach="neighbourhood", span=span)
    with torch.device(device):
        return SGNet(Architecture(host, CLASSES, TILE_PX, surround)).eval()


def manifest_of(network: SGNet, mode: str) -> ModelManifest:
    a = network.architecture
    context = context_rule("tile" if mode == "host" else mode, a.surround)
    return bench_manifest(a.classes, a.tile_px, a.alpha).model_copy(update={"context": context})


def bench_manifest(classes: int, tile_px: int, alpha: int) -> ModelManifest:
    """Of a network that lies in no folder."""
    named = tuple(LabelClass(id=k, name=f"class {k}", color="#000000") for k in range(classes))
    return ModelManifest(
        name="bench", version="0", tile_px=tile_px, alpha=alpha, mean=IMAGENET_MEAN, std=IMAGENET_STD,
        classes=named, files={}, license="-",
    )  # fmt: skip


def parameters_m(network: SGNet) -> float:
    heads = network.host.auxiliary.parameters() if network.host.auxiliary is not None else ()
    return (sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in heads)) / 1e6


def gmac_per_tile(network: SGNet, manifest: ModelManifest, region_px: int) -> float:
    mode, t = manifest.context.mode, manifest.tile_px
    with torch.device("meta"):
        normalise, local, offset = Normalise(), _bytes(t, t), torch.empty((1, 2), dtype=torch.int32)
        if mode == "tile":
            side = t * manifest.alpha
            inputs = (local,) if manifest.alpha == 1 else (local, _bytes(side, side), offset)
            return gmac(Deployed(network, normalise), *inputs)
        region = middle_region(manifest, region_px)
        picture, cells = _bytes(*frame_of(region, manifest).shape), map_cells(manifest)
        branch = DeployedContext(network, normalise, mode)
        with torch.inference_mode():
            part = branch(picture)[..., :cells, :cells]
        own = gmac(DeployedTile(network, normalise, mode), local, part, offset)
        return own + gmac(branch, picture) / len(region.tiles)


def middle_region(manifest: ModelManifest, region_px: int) -> Region:
    """Of an image so large that it reads no border."""
    plan = plan_regions((region_px * _REGIONS_ACROSS,) * 2, manifest, region_px)
    return plan.region(plan.region_count // 2)


def gmac(forward: Callable[..., Any], *inputs: Tensor) -> float:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        forward(*inputs)
    return float(counter.get_total_flops()) / 2e9


def _bytes(height: int, width: int) -> Tensor:
    return torch.empty((1, 3, height, width), dtype=torch.uint8)
