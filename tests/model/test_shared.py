"""Context modes: what is computed once for a region is what its tiles would have computed, or what any region would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gigamask.job import Overlap, SelectionSummary
from gigamask.manifest import LabelClass, ModelManifest
from gigamask.plan import plan_regions
from gigamask.selection import Selection
from model import deployed
from model.deployed import context_rule
from model.normalise import IMAGENET_MEAN, IMAGENET_STD
from model.predictors import ContextMode, tile_predictor
from model.predictors.torch import TorchNetwork
from model.sgnet import Architecture, SGNet, Surround

T = 64
NEAR = Surround(width=0.25, blocks=2, window=2, reach="neighbourhood", span=1)  # lattice 32 px, halo 256 px
Bytes = NDArray[np.uint8]


def network(surround: Surround, tile_px: int = T, ensemble: bool = False) -> SGNet:
    torch.manual_seed(0)
    found = SGNet(Architecture("mobilenet_v2", 4, tile_px, surround, ensemble=ensemble)).eval()
    if found.context is not None:
        found.context.weight.data *= 30  # what the context says must show in the labels
    return found


def manifest(found: SGNet, mode: ContextMode) -> ModelManifest:
    a = found.architecture
    classes = tuple(LabelClass(id=i, name=f"c{i}", color="#000000") for i in range(a.classes))
    return ModelManifest(
        name="known", version="1", tile_px=a.tile_px, alpha=a.alpha, context=context_rule(mode, a.surround),
        mean=IMAGENET_MEAN, std=IMAGENET_STD, classes=classes, files={}, license="-",
    )  # fmt: skip


def picture(height: int, width: int) -> Bytes:
    """(3, h, w): smooth, so that labels come in areas"""
    coarse = np.random.default_rng(1).integers(0, 256, (1, 3, height // 16 + 2, width // 16 + 2)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=(height, width), mode="bilinear")[0]
    return smooth.numpy().astype(np.uint8)


def segment(image: Bytes, found: SGNet, mode: ContextMode, region_px: int = 512, overlap: Overlap = "none") -> Bytes:
    told = manifest(found, mode)
    predictor = tile_predictor(told, TorchNetwork(found, told, device="cpu"), 4)
    labels = np.full(image.shape[1:], 255, np.uint8)
    for region in plan_regions((image.shape[1], image.shape[2]), told, region_px, overlap).regions():
        window = np.ascontiguousarray(image[:, *region.window.slices])
        labels[region.box.slices] = predictor.predict(window, region)
    return labels


@pytest.mark.parametrize("mode", ["trunk_shared", "neighbourhood"])
@pytest.mark.parametrize("shape", [(600, 1100), (530, 700), (40, 90)])
def test_no_label_depends_on_how_the_picture_is_cut_into_regions(shape: tuple[int, int], mode: ContextMode) -> None:
    image, found = picture(*shape), network(NEAR)
    small = segment(image, found, mode, 512)
    large = segment(image, found, mode, 2048)
    assert len(np.unique(small)) > 1
    assert (small == large).mean() > 0.9999  # sums in another order may turn a tie


@pytest.mark.parametrize("mode", ["trunk_shared", "neighbourhood"])
def test_a_halo_that_is_too_small_shows(mode: ContextMode, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail."""
    image, found = picture(600, 1100), network(NEAR)
    large = segment(image, found, mode, 2048)
    monkeypatch.setattr(Surround, "halo_px", 32)
    monkeypatch.setattr(deployed, "TRUNK_FIELD_PX", -16)
    assert (segment(image, found, mode, 512) == large).mean() < 0.9999


def test_without_mixing_a_shared_trunk_gives_the_labels_of_tiles_with_their_own() -> None:
    """Spec 6.2 A. The trunk sees 160 px, and a surround with a margin of 192 hides its own edge from the tile."""
    found = network(Surround(alpha=4, width=0.25, mixing="none"), tile_px=128)
    image = picture(1024, 1024)
    own, shared = segment(image, found, "tile"), segment(image, found, "trunk_shared")
    assert len(np.unique(own)) > 1
    assert (own == shared).mean() > 0.9999


def test_with_mixing_a_shared_trunk_differs_by_the_ring_at_the_surrounds_edge_alone() -> None:
    found = network(Surround(alpha=4, width=0.25, blocks=1, window=4))
    image = picture(512, 1024)
    assert (segment(image, found, "tile") == segment(image, found, "trunk_shared")).mean() > 0.8


def test_where_the_picture_is_one_surround_sharing_the_trunk_changes_nothing() -> None:
    image, found = picture(2 * T, 2 * T), network(Surround(width=0.25, blocks=1, window=4))
    assert (segment(image, found, "trunk_shared") == segment(image, found, "tile")).mean() > 0.9999


def test_an_ensemble_also_works_on_shared_maps() -> None:
    found = network(NEAR, ensemble=True)
    image = picture(300, 600)
    small, large = (segment(image, found, "neighbourhood", side) for side in (512, 2048))
    assert (small == large).mean() > 0.9999


def test_half_overlap_averages_the_scores_of_four_tiles() -> None:
    found = network(Surround(width=0.25, blocks=1, window=4))
    image = picture(T, 2 * T)
    labels = segment(image, found, "tile", overlap="half")
    told = manifest(found, "tile")
    engine = TorchNetwork(found, told, device="cpu")
    region = plan_regions((T, 2 * T), told, 512, "half").region(0)
    assert [tile.local.x0 for tile in region.tiles] == [0, T // 2, T]
    from model.predictors.tiles import cut_tiles

    scores = engine.scores(cut_tiles(image, region.window, region.tiles, told))
    total = np.zeros((4, T, 2 * T), np.float32)
    for tile, found_ in zip(region.tiles, scores, strict=True):
        total[:, :, tile.local.x0 : tile.local.x1] += found_
    assert (labels == total.argmax(axis=0)).mean() > 0.9999


@pytest.mark.parametrize("mode", ["tile", "neighbourhood"])
def test_half_overlap_does_not_depend_on_regions(mode: ContextMode) -> None:
    image, found = picture(560, 700), network(NEAR)
    small, large = (segment(image, found, mode, side, overlap="half") for side in (512, 2048))
    assert (small == large).mean() > 0.9999


@pytest.mark.parametrize(
    ("mode", "surround", "message"),
    [
        ("neighbourhood", Surround(), r"mixing 'sci' with reach 'all' sees the whole surround"),
        ("neighbourhood", Surround(mixing="none", align=False), "align = true"),
        ("trunk_shared", None, "needs a network with a surround"),
        ("sideways", Surround(), "context is 'tile', 'trunk_shared' or 'neighbourhood', not 'sideways'"),
    ],
)
def test_a_mode_that_a_network_cannot_do_is_refused_with_the_reason(
    mode: str, surround: Surround | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        context_rule(mode, surround)


def test_a_plan_without_the_models_context_is_refused() -> None:
    found = network(Surround(width=0.25, blocks=1, window=4, reach="neighbourhood", span=1))
    told = manifest(found, "neighbourhood")
    predictor = tile_predictor(told, TorchNetwork(found, told, device="cpu"), 4)
    wrong = told.model_copy(update={"context": context_rule("tile", None)})
    region = plan_regions((1040, 1040), wrong, 512).region(3)
    with pytest.raises(ValueError, match=r"expected multiples of 64 px; plan regions with this model's manifest"):
        predictor.predict(np.zeros((3, *region.window.shape), np.uint8), region)


@pytest.mark.parametrize(("mode", "scale"), [("trunk_shared", 1.5), ("neighbourhood", 1.5), ("neighbourhood", 0.5)])
def test_no_label_depends_on_regions_at_another_resolution(mode: ContextMode, scale: float) -> None:
    image, found = picture(400, 600), network(NEAR)
    told = manifest(found, mode)
    predictor = tile_predictor(told, TorchNetwork(found, told, device="cpu"), 4)
    sides = []
    for region_px in (512, 1024):
        labels = np.full(image.shape[1:], 255, np.uint8)
        plan = plan_regions((int(400 * scale), int(600 * scale)), told, region_px, scale=scale)
        for region in plan.regions():
            window = np.ascontiguousarray(image[:, *region.window.slices])
            labels[region.work.slices] = predictor.predict(window, region)
        sides.append(labels)
    both = (sides[0] != 255) & (sides[1] != 255)  # enlarged, some working pixels are nobody's nearest
    assert both.mean() > 0.99
    assert (sides[0] == sides[1])[both].mean() > 0.9999


@pytest.mark.parametrize(
    ("mode", "overlap"), [("tile", "none"), ("trunk_shared", "none"), ("neighbourhood", "gaussian")]
)
def test_a_label_does_not_depend_on_which_other_tiles_are_run(mode: ContextMode, overlap: Overlap) -> None:
    image, found = picture(320, 576), network(NEAR)
    told = manifest(found, mode)
    predictor = tile_predictor(told, TorchNetwork(found, told, device="cpu"), 4)
    plan = plan_regions((320, 576), told, 512, overlap)
    cells = np.random.default_rng(0).random((5, 9)) < 0.2
    cells[0, 8] = True
    selection = Selection(plan, cells, None, SelectionSummary(tiles_total=45, tiles_selected=int(cells.sum())))
    for region in plan.regions():
        narrowed, kept = selection.narrow(region), selection.kept(region)
        assert 0 < len(narrowed.tiles) < len(region.tiles)
        few, all_of_them = (
            predictor.predict(np.ascontiguousarray(image[:, *part.window.slices]), part) for part in (narrowed, region)
        )
        assert (few == all_of_them)[kept].mean() > 0.9999
