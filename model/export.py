"""From a finished run to a model folder: weights, graph, test vector, manifest, and proof that both engines agree.

Written beside its place, judged there, and moved there whole; a model card (README.md) that is already there stays.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from gigamask.errors import BadModel
from gigamask.manifest import MANIFEST_NAME, Context, ModelFile, ModelManifest
from gigamask.plan import REGION_SIDES_PX, Region, plan_regions
from model.data.crops import Crop, CropSampler
from model.data.datasets import find_dataset
from model.deployed import (
    CONTEXT_INPUTS,
    CONTEXT_OUTPUTS,
    INPUTS,
    OUTPUTS,
    TILE_INPUTS,
    Deployed,
    DeployedContext,
    DeployedTile,
    context_rule,
)
from model.imagenet import imagenet_checkpoint
from model.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from model.parts.stdc import STRIDE
from model.predictors import tile_predictor
from model.predictors.onnx import OnnxNetwork
from model.predictors.shared import part_cells
from model.predictors.tiles import Bytes
from model.predictors.torch import TorchNetwork, load_network
from model.recipe import Recipe
from model.sgnet import Architecture, SGNet
from model.training import TrainingRun

OPSET = 18
CARD = "README.md"
_FILES = {"safetensors": "model.safetensors", "test_vector": "test_vector.npz"}
_GRAPHS = {"onnx": "model.onnx", "onnx_context": "context.onnx", "onnx_tile": "tile.onnx"}
_PARITY_CROPS = 4
_LEAST_AGREEMENT = 0.999  # of the labels: sums in another order turn the closest calls
_MOST_CELLS = 4096  # of a shared map on an axis: a picture of 65,536 px


@dataclass(frozen=True, slots=True)
class Parity:
    """How far ONNX Runtime is from torch on the same pictures."""

    label_agreement: float
    max_score_difference: float


def export_run(run: TrainingRun, folder: Path) -> Parity:
    """As `export_network`, told on the terminal."""
    console = Console(stderr=True)
    parity = export_network(run.network, run.recipe, run.sampler, folder)
    console.print(f"{folder}: {sum(p.stat().st_size for p in folder.iterdir()) / 1e6:.1f} MB")
    console.print(
        f"parity of ONNX Runtime with torch: labels agree on {parity.label_agreement:.6%},"
        f" scores differ by at most {parity.max_score_difference:.2e}"
    )
    return parity


def export_network(network: SGNet, recipe: Recipe, sampler: CropSampler, folder: Path) -> Parity:
    """Write the folder, for the context mode that the recipe names.

    Raises BadModel, and leaves what is at `folder` as it is, where ONNX Runtime finds other labels than torch.
    """
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    manifest = write_model(network.cpu().eval(), recipe, sampler, partial)
    parity = measure_parity(partial, manifest, sample_pictures(sampler))
    if not parity.label_agreement >= _LEAST_AGREEMENT:
        raise BadModel(
            f"{partial}: ONNX Runtime and torch agree on {parity.label_agreement:.4%} of the labels,"
            f" expected {_LEAST_AGREEMENT:.1%} or more; {folder} is left as it was"
        )
    if (folder / CARD).exists():
        shutil.copy2(folder / CARD, partial / CARD)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return parity


def write_model(network: SGNet, recipe: Recipe, sampler: CropSampler, folder: Path) -> ModelManifest:
    """All but the card into an empty folder. The test vector is the run's crop 0, coarsened."""
    rule = context_rule(recipe.network.context, network.architecture.surround)
    save_file(halve_weights(network), folder / _FILES["safetensors"])
    (folder / _FILES["safetensors"]).chmod(0o644)  # its writer keeps it to the owner, and a service has another user
    write_graphs(network, rule, folder)
    write_test_vector(network, describe(network.architecture, recipe, rule, {}), sampler.crop(0), folder)
    files = {role: name for role, name in (_FILES | _GRAPHS).items() if (folder / name).exists()}
    hashes = {role: ModelFile(path=name, sha256=_sha256(folder / name)) for role, name in files.items()}
    manifest = describe(network.architecture, recipe, rule, hashes)
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n")
    return manifest


def halve_weights(network: SGNet) -> dict[str, torch.Tensor]:
    """Round every kernel and matrix to float16 in place, and return the state that stores them so.

    Half the bytes. Both engines compute in float32 with the rounded values, so they still agree. The heads of training
    are left out.
    """
    state = {k: (v.half() if v.ndim > 1 else v).contiguous() for k, v in network.state_dict().items()}
    network.load_state_dict(state)
    return {name: value for name, value in state.items() if not network.is_for_training(name)}


def write_graphs(network: SGNet, rule: Context, folder: Path) -> None:
    """One graph that sees a tile and its surround; where tiles share their context, one of that and one of a tile."""
    if rule.mode == "tile":
        write_graph(network, folder / _GRAPHS["onnx"])
        return
    write_context_graph(network, rule, folder / _GRAPHS["onnx_context"])
    deployed, t = DeployedTile(network, Normalise(), rule.mode), network.architecture.tile_px
    cells = part_cells(rule, t, network.architecture.alpha)
    part = DeployedContext(network, Normalise(), rule.mode).eval()
    with torch.inference_mode():
        channels = part(torch.zeros(1, 3, rule.lattice_px, rule.lattice_px, dtype=torch.uint8)).shape[1]
    inputs = (
        torch.zeros(2, 3, t, t, dtype=torch.uint8),
        torch.zeros(2, channels, cells, cells),
        torch.zeros(2, 2, dtype=torch.int32),
    )
    _export(deployed, inputs, folder / _GRAPHS["onnx_tile"], TILE_INPUTS, OUTPUTS, _batches(TILE_INPUTS))


def write_graph(network: SGNet, path: Path) -> None:
    """One file, dynamic batch, all other sizes fixed."""
    inputs = example_inputs(network.architecture)
    names = INPUTS[: len(inputs)]
    _export(Deployed(network, Normalise()), inputs, path, names, OUTPUTS, _batches(names))


def write_context_graph(network: SGNet, rule: Context, path: Path) -> None:
    """One picture of any size in whole cells of the lattice."""
    cells = _MOST_CELLS * STRIDE // rule.lattice_px
    rows, columns = (torch.export.Dim(name, min=1, max=cells) for name in ("rows", "columns"))
    side = 4 * rule.lattice_px  # no size that a constant of the network could be taken for
    picture = torch.zeros(1, 3, side + rule.lattice_px, side + 3 * rule.lattice_px, dtype=torch.uint8)
    dynamic = {"picture": {2: rule.lattice_px * rows, 3: rule.lattice_px * columns}}
    deployed = DeployedContext(network, Normalise(), rule.mode)
    _export(deployed, (picture,), path, CONTEXT_INPUTS, CONTEXT_OUTPUTS, dynamic)


def _batches(names: Sequence[str]) -> dict[str, Any]:
    batch = torch.export.Dim("batch", min=1, max=1024)
    return {name: {0: batch} for name in names}


def _export(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    path: Path,
    names: Sequence[str],
    outputs: Sequence[str],
    dynamic: dict[str, Any],
) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names operators of packages that are not here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notices about its own internals
        torch.onnx.export(
            module.eval(),
            inputs,
            path,
            input_names=list(names),
            output_names=list(outputs),
            dynamic_shapes=dynamic,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    forget_sources(path)


def forget_sources(path: Path) -> None:
    """Strip the exporter's notes: for each operator the source lines, with this machine's paths, that it came from."""
    graph = onnx.load(path)
    for part in (
        graph,
        graph.graph,
        *graph.graph.node,
        *graph.graph.value_info,
        *graph.graph.input,
        *graph.graph.output,
    ):
        del part.metadata_props[:]
    for function in graph.functions:
        for part in (function, *function.node, *function.value_info):
            del part.metadata_props[:]
    onnx.save(graph, path)


def example_inputs(architecture: Architecture) -> tuple[torch.Tensor, ...]:
    t, size = architecture.tile_px, architecture.surround_px
    local = torch.zeros(2, 3, t, t, dtype=torch.uint8)
    if architecture.alpha == 1:  # its own surround, or none
        return (local,)
    return local, torch.zeros(2, 3, size, size, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.int32)


def write_test_vector(network: SGNet, manifest: ModelManifest, crop: Crop, folder: Path) -> None:
    """One picture, as large as a surround, and the labels that torch gives for it."""
    picture = _channels_first(coarsen(crop).image)
    region = one_region(picture, manifest)
    labels = tile_predictor(manifest, TorchNetwork(network, manifest, device="cpu")).predict(picture, region)
    np.savez_compressed(folder / _FILES["test_vector"], picture=picture, labels=labels)


def one_region(picture: Bytes, manifest: ModelManifest) -> Region:
    """The plan of a picture that one region covers."""
    shape = (picture.shape[1], picture.shape[2])
    side = next(side for side in REGION_SIDES_PX if side >= max(shape))
    return plan_regions(shape, manifest, side).region(0)


def describe(architecture: Architecture, recipe: Recipe, rule: Context, files: dict[str, ModelFile]) -> ModelManifest:
    dataset = find_dataset(recipe.dataset)
    return ModelManifest(
        name=recipe.name,
        version=recipe.version,
        title=dataset.title,
        tile_px=architecture.tile_px,
        alpha=architecture.alpha,
        context=rule,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        classes=dataset.classes,
        architecture=asdict(architecture),
        files=files,
        license=dataset.license,
        provenance=dataset.provenance | backbone_of(recipe) | {"recipe": _plain(asdict(recipe))},
    )


def backbone_of(recipe: Recipe) -> dict[str, str]:
    """Where the host's backbone began, for the manifest."""
    network = recipe.network
    if not network.imagenet:
        return {}
    file = Path(network.imagenet_file) if network.imagenet_file else imagenet_checkpoint(network.host)
    return {"backbone": f"{network.host}, ImageNet, {file.name}"}


def measure_parity(folder: Path, manifest: ModelManifest, pictures: Sequence[Bytes]) -> Parity:
    """pictures: (3, H, W) each; every tile of each is compared."""
    onnx, torch_ = OnnxNetwork(folder, manifest), TorchNetwork(load_network(folder, manifest), manifest, device="cpu")
    same, apart = [], 0.0
    for picture in pictures:
        region = one_region(picture, manifest)
        batches = [tile_predictor(manifest, engine).look(picture, region)(region.tiles) for engine in (onnx, torch_)]
        same.append(float((onnx.labels(batches[0]) == torch_.labels(batches[1])).mean()))
        apart = max(apart, float(np.abs(onnx.scores(batches[0]) - torch_.scores(batches[1])).max()))
    return Parity(float(np.mean(same)), apart)


def sample_pictures(sampler: CropSampler) -> list[Bytes]:
    return [_channels_first(sampler.crop(i).image) for i in range(_PARITY_CROPS)]


def coarsen(crop: Crop, step: int = 4) -> Crop:
    """Blocks of step x step px: a tenth of the bytes once compressed."""
    image = crop.image[::step, ::step].repeat(step, axis=0).repeat(step, axis=1)
    return Crop(image, crop.labels, crop.offset, crop.tile_px)


def _channels_first(image: Bytes) -> Bytes:
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
