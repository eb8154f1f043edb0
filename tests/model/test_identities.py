"""What may be shared between tiles and what may be left out, exactly (spec section 6.2), in float64.

x16 cells throughout: a map's cell is 16 px of the picture.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.parts.branch import SurroundBranch
from model.parts.roialign import roi_align
from model.parts.sci import Sci, to_windows
from model.parts.stdc import STRIDE, StdcTrunk
from model.sgnet import Architecture, SGNet, Surround

NEAR = Surround(width=0.25, blocks=1, window=2, reach="neighbourhood", span=1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def trained(module: nn.Module, picture: Tensor) -> nn.Module:
    """In float64, its norms as if it had seen such pictures: untrained ones let what comes from afar fade."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    module.double()(picture)
    return module.eval()


def draw(side: int) -> Tensor:
    return torch.randn(1, 3, side, side, dtype=torch.float64)


def test_a_shared_trunk_is_exact_from_ten_cells_inside_a_surround_and_not_nearer_its_edge() -> None:
    """6.2 A."""
    picture = draw(896)
    trunk = trained(StdcTrunk(0.25), picture)
    with torch.inference_mode():
        whole, own = trunk(picture), trunk(picture[..., 128:768, 192:832])  # 40 cells a side
    apart = (whole[..., 8:48, 12:52] - own).abs().amax(dim=(0, 1))
    assert apart[10:30, 10:30].max() < 1e-12
    assert apart[:9].max() > 1e-6


def test_the_last_feed_forward_is_needed_only_under_the_tile_and_a_cell_about_it() -> None:
    """6.2 B: 34 x 34 of 64 x 64 cells at the paper's size, here 6 x 6 of 16 x 16."""
    network = SGNet(Architecture("mobilenet_v2", 3, 64, replace(NEAR, alpha=4, reach="all"))).double().eval()
    assert network.branch is not None
    (block,) = network.branch.blocks
    assert isinstance(block, Sci)
    with torch.inference_mode():
        found = network.branch.trunk(draw(256))
        whole, before = block(found), without_feed_forward(block, found)  # G of Eq. 5
    local, offset = draw(64), torch.tensor([[96.0, 96.0]], dtype=torch.float64)

    def scores(margin: int) -> Tensor:
        """The feed-forward layer on the tile's cells and so many about it; zero elsewhere."""
        part = slice(96 // STRIDE - margin, 160 // STRIDE + margin)
        tokens = before[..., part, part].permute(0, 2, 3, 1)
        pruned = torch.zeros_like(whole)
        pruned[..., part, part] = (block.ffn(block.norm_ffn(tokens)) + tokens).permute(0, 3, 1, 2)
        return network.fuse(local, network.context_map(pruned), offset)

    with torch.inference_mode():
        expected = network.fuse(local, network.context_map(whole), offset)
        assert (scores(margin=1) - expected).abs().max() < 1e-12
        assert (scores(margin=0) - expected).abs().max() > 1e-6


def without_feed_forward(block: Sci, x: Tensor) -> Tensor:
    """Its output with an FFN that gives nothing, so that Eq. 5 passes G on."""
    kept, block.ffn = block.ffn, nn.Sequential(Nothing())
    try:
        return cast(Tensor, block(x))
    finally:
        block.ffn = kept


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_the_first_blocks_windows_and_their_tokens_are_shared_exactly_where_surrounds_begin_on_the_lattice() -> None:
    """6.2 C: origins in multiples of w cells."""
    sci = Sci(32, window=4).double().eval()
    features = torch.randn(1, 32, 24, 24, dtype=torch.float64)

    def tokens(x: Tensor) -> tuple[Tensor, Tensor]:
        """F'_w of Eq. 1 and g of Eq. 2, as maps of windows"""
        f = to_windows(x, 4)
        f = sci.window_attention(sci.norm_window(f)) + f
        side = x.shape[-1] // 4
        return f.reshape(side, side, 16, 32), f.mean(dim=1).reshape(side, side, 32)

    with torch.inference_mode():
        for whole, on, off in zip(
            tokens(features), tokens(features[..., 8:20, 8:20]), tokens(features[..., 6:18, 6:18]), strict=True
        ):
            assert (whole[2:5, 2:5] - on).abs().max() < 1e-12
            assert (whole[2:4, 2:4] - off[1:3, 1:3]).abs().max() > 1e-6


@pytest.mark.parametrize("mixing", ["sci", "sci_conv", "windows", "none"])
def test_a_map_of_bounded_reach_is_the_same_from_any_window_that_holds_its_halo(mixing: str) -> None:
    """6.2 E: one pass over a picture serves every tile in it, whatever part of it was read."""
    surround = replace(NEAR, mixing=mixing)  # type: ignore[arg-type]
    lattice, halo = surround.lattice_px, surround.halo_px
    picture = draw(896)
    branch = trained(SurroundBranch(surround), picture)
    with torch.inference_mode():
        whole = branch(picture)
        for y0, y1 in ((416, 480), (432, 496)):  # on the lattice of 32 px, and not
            assert apart(branch, picture, whole, (y0, y1), halo, lattice) < 1e-12


def test_a_halo_that_is_too_small_shows() -> None:
    """The cells beside a tile are in need of all of it, to within the cells of an ensemble's head."""
    lattice, halo = NEAR.lattice_px, NEAR.halo_px
    picture = draw(896)
    branch = trained(SurroundBranch(NEAR), picture)
    with torch.inference_mode():
        whole = branch(picture)
        assert apart(branch, picture, whole, (432, 496), halo, lattice) < 1e-12
        assert apart(branch, picture, whole, (432, 496), halo - 2 * lattice, lattice) > 1e-9


def apart(
    branch: nn.Module, picture: Tensor, whole: Tensor, box_px: tuple[int, int], halo_px: int, lattice_px: int
) -> float:
    """Largest difference over a square box and two cells beside it (RoIAlign's, and an ensemble's head), between the
    whole picture's map and that of the box and its halo."""
    start = (box_px[0] - halo_px) // lattice_px * lattice_px
    stop = -(-(box_px[1] + halo_px) // lattice_px) * lattice_px
    assert 0 <= start < stop <= picture.shape[-1]
    own = branch(picture[..., start:stop, start:stop])
    cells, inside = (slice((box_px[0] - o) // STRIDE - 2, (box_px[1] - o) // STRIDE + 2) for o in (0, start))
    return float((whole[..., cells, cells] - own[..., inside, inside]).abs().max())


def test_adding_is_also_split_exactly() -> None:
    """6.3: conv1x1(D + RoIAlign(M F')) = W_D D + b + RoIAlign(W_D M F')."""
    surround = replace(NEAR, reach="all", join="add")
    network = SGNet(Architecture("mobilenet_v2", 3, 64, surround)).double().eval()
    assert network.branch is not None
    assert network.context is not None
    local, around = draw(64), draw(128)
    offset = torch.tensor([[13.0, 37.0]], dtype=torch.float64)
    with torch.inference_mode():
        decoded = network.host.decode(network.host.features(local))
        matched = network.context(network.branch(around))  # M F'
        aligned = roi_align(matched, offset, 64, STRIDE, decoded.shape[-1])
        literal = F.conv2d(decoded + aligned, network.host.classifier.weight, network.host.classifier.bias)
        assert (network(local, around, offset) - literal).abs().max() < 1e-12
        assert (network.host.classify(decoded) - literal).abs().max() > 1e-6
