"""Public ImageNet checkpoints onto our backbones: every tensor has its place, and wrong files are named."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from model.hosts import build_host, load_backbone
from model.hosts.stdc import load_trunk
from model.imagenet import imagenet_checkpoint
from model.normalise import Normalise
from model.parts.stdc import StdcTrunk
from tests.model.hosts import layouts

CLASSIFIER = {"fc.weight": torch.zeros(1000, 4), "classifier.weight": torch.zeros(1000, 4)}
LAYOUTS = {
    "fcn_r50": lambda: layouts.resnet50(layouts.OPENMMLAB_STEM),
    "deeplabv3plus_r50": lambda: layouts.resnet50(layouts.TIMM_STEM),
    "hrnet_w18": layouts.hrnet_w18,
    "segformer_b0": layouts.mit_b0,
    "stdc1": lambda: layouts.stdc((2, 2, 2)),
    "stdc2": lambda: layouts.stdc((4, 5, 3)),
}


def tensors(module: nn.Module) -> list[torch.Tensor]:
    return [value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")]


def fingerprints(values: list[torch.Tensor]) -> list[tuple[tuple[int, ...], int]]:
    return sorted((tuple(value.shape), crc32(value.numpy().tobytes())) for value in values)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_tensor_of_the_public_file_is_taken_over_and_none_is_left_random(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = LAYOUTS[name]()
    torch.save({"epoch": 3, "state_dict": state | CLASSIFIER}, tmp_path / "public.pth")
    host = build_host(name, 3)
    load_backbone(host, name, tmp_path / "public.pth")
    assert fingerprints(tensors(host.backbone)) == fingerprints(list(state.values()))


def test_tensors_of_one_shape_come_to_their_own_places(tmp_path: Path) -> None:
    def loaded(name: str) -> tuple[layouts.State, layouts.State]:
        state = LAYOUTS[name]()
        torch.save({f"module.{key}": value for key, value in state.items()}, tmp_path / "parallel.pth")
        host = build_host(name, 3)
        load_backbone(host, name, tmp_path / "parallel.pth")
        return host.backbone.state_dict(), state

    ours, public = loaded("stdc2")
    for key, theirs in {
        "layers.1.1.weight": "features.1.bn.weight",
        "layers.3.first.0.weight": "features.3.conv_list.0.conv.weight",
        "layers.6.shrink.1.running_mean": "features.6.avd_layer.1.running_mean",
        "layers.13.rest.1.1.bias": "features.13.conv_list.2.bn.bias",
        "layers.13.rest.2.1.bias": "features.13.conv_list.3.bn.bias",
    }.items():
        assert torch.equal(ours[key], public[theirs])
    ours, public = loaded("segformer_b0")
    for key, theirs in {
        "stages.1.embed_norm.bias": "patch_embed2.norm.bias",
        "stages.1.norm.bias": "norm2.bias",
        "stages.3.blocks.1.attn.q.weight": "block4.1.attn.q.weight",
        "stages.3.blocks.1.attn.proj.weight": "block4.1.attn.proj.weight",
        "stages.0.blocks.0.norm1.weight": "block1.0.norm1.weight",
    }.items():
        assert torch.equal(ours[key], public[theirs])
    ours, public = loaded("deeplabv3plus_r50")
    assert torch.equal(ours["stem.4.bias"], public["conv1.4.bias"])
    assert torch.equal(ours["stem.7.bias"], public["bn1.bias"])


def test_a_mix_transformer_of_transformers_gives_the_same_features_here(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.SegformerForImageClassification(transformers.SegformerConfig()).eval()
    with torch.no_grad():
        for p in theirs.parameters():  # their norms and biases start as ones and zeros, which any place would take
            p.add_(0.05 * torch.randn_like(p))
    theirs.save_pretrained(tmp_path)
    host = build_host("segformer_b0", 3).eval()
    load_backbone(host, "segformer_b0", tmp_path / "model.safetensors")
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        expected = theirs.segformer(x, output_hidden_states=True).hidden_states
        for ours, wanted in zip(host.features(x), expected, strict=True):
            assert (ours - wanted).abs().max() < 1e-3 * wanted.abs().max()


def test_the_surrounding_branchs_trunk_computes_what_the_stdc1_host_does_from_the_same_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save({"state_dict": LAYOUTS["stdc1"]()}, tmp_path / "STDCNet813M_73.91.tar")
    trunk, host = StdcTrunk().eval(), build_host("stdc1", 3).eval()
    load_trunk(trunk, tmp_path / "STDCNet813M_73.91.tar")
    load_backbone(host, "stdc1", tmp_path / "STDCNet813M_73.91.tar")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(trunk(x), host.backbone(x)[1])
    with pytest.raises(
        ValueError, match=r"813M_73.91.tar is not an ImageNet STDC1 .*'features.0.conv.weight' is \(32, 3"
    ):
        load_trunk(StdcTrunk(0.5), tmp_path / "STDCNet813M_73.91.tar")


def published_classifier(checkpoint: Path, names: tuple[str, str, str], eps: float):  # type: ignore[no-untyped-def]
    """What the file's own last layers make of the backbone's last map."""
    state = torch.load(checkpoint, weights_only=True)
    conv, norm, linear = names

    def classify(x: torch.Tensor) -> torch.Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"])
        mean, var, weight, bias = (state[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        x = F.relu6(F.batch_norm(x, mean, var, weight, bias, eps=eps)).mean((2, 3))
        return F.linear(x, state[f"{linear}.weight"], state[f"{linear}.bias"]).softmax(1)

    return classify


PUBLISHED = {
    "efficientnet_lite0_lraspp": (("_conv_head", "_bn1", "_fc"), 1e-3),
    "mobilenet_v2": (("features.18.0", "features.18.1", "classifier.1"), 1e-5),
    "mobilenet_v2_deeplabv3plus": (("features.18.0", "features.18.1", "classifier.1"), 1e-5),
}
CATS = (281, 282, 283, 284, 285, 287)  # tabby, tiger cat, Persian, Siamese, Egyptian, lynx


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_weights_from_the_registry_see_a_cat_where_there_is_one(name: str) -> None:
    skimage = pytest.importorskip("skimage")
    try:
        checkpoint = imagenet_checkpoint(name)
    except FileNotFoundError as exc:
        pytest.skip(str(exc))
    host = build_host(name, 3).eval()
    load_backbone(host, name, checkpoint)
    cat = Image.open(Path(skimage.__file__).parent / "data" / "chelsea.png").convert("RGB")
    pixels = torch.from_numpy(np.array(cat.crop((75, 0, 375, 300)).resize((224, 224)))).permute(2, 0, 1)[None]
    with torch.inference_mode():
        scores = published_classifier(checkpoint, *PUBLISHED[name])(host.features(Normalise()(pixels))[-1])
    assert scores[0, list(CATS)].sum() > 0.8


def test_every_key_but_the_classifiers_of_the_efficientnet_file_is_consumed() -> None:
    try:
        checkpoint = imagenet_checkpoint("efficientnet_lite0_deeplabv3plus")
    except FileNotFoundError as exc:
        pytest.skip(str(exc))
    host = build_host("efficientnet_lite0_deeplabv3plus", 3)
    load_backbone(host, "efficientnet_lite0_deeplabv3plus", checkpoint)
    head = ("_conv_head.", "_bn1.", "_fc.")
    public = {k: v for k, v in torch.load(checkpoint, weights_only=True).items() if not k.startswith(head)}
    counters = [k for k in public if k.endswith("num_batches_tracked")]
    assert fingerprints(tensors(host.backbone)) == fingerprints([v for k, v in public.items() if k not in counters])


@pytest.mark.parametrize("name", [*LAYOUTS, *PUBLISHED])
def test_a_checkpoint_of_another_network_is_refused_with_file_and_first_missing_key(name: str, tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(1)}, tmp_path / "vgg.pth")
    with torch.device("meta"):
        host = build_host(name, 3)
    with pytest.raises(ValueError, match=r"vgg\.pth is not an? .*: it lacks '.+' and \d+ more"):
        load_backbone(host, name, tmp_path / "vgg.pth")


def test_a_checkpoint_of_another_size_is_refused_with_both_shapes(tmp_path: Path) -> None:
    state = LAYOUTS["stdc1"]()
    state["features.4.conv_list.0.bn.weight"] = torch.zeros(7)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=r"odd.pth .*'features.4.conv_list.0.bn.weight' is \(7,\), expected \(256,\)"):
        load_backbone(build_host("stdc1", 3), "stdc1", tmp_path / "odd.pth")


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    host = build_host("stdc1", 3)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*absent\.pth"):
        load_backbone(host, "stdc1", tmp_path / "absent.pth")
    for name in ("page.pth", "page.safetensors"):
        (tmp_path / name).write_text("<html>not found</html>")
        with pytest.raises(ValueError, match=rf"{name} is not a checkpoint of tensors"):
            load_backbone(host, "stdc1", tmp_path / name)
    (tmp_path / "empty.pth").touch()
    with pytest.raises(ValueError, match=r"empty\.pth is not a checkpoint of tensors"):
        load_backbone(host, "stdc1", tmp_path / "empty.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth: expected a dict of tensors, got list"):
        load_backbone(host, "stdc1", tmp_path / "list.pth")


def test_a_host_without_a_package_says_which_public_file_it_wants() -> None:
    for name in LAYOUTS:
        with pytest.raises(FileNotFoundError, match=rf"{name} .* give the path of the public .* in the recipe"):
            imagenet_checkpoint(name)
    with pytest.raises(ValueError, match="unknown host 'vgg'"):
        imagenet_checkpoint("vgg")
