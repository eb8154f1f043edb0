"""From a finished run to a model folder: weights, graph, test vector, manifest, and proof that both engines agree.

Written beside its place and moved there whole; a model card (README.md) that is already there stays.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import save_file

from gigamask.manifest import MANIFEST_NAME, ModelFile, ModelManifest
from model.data.crops import Crop, CropSampler
from model.data.datasets import find_dataset
from model.deployed import INPUTS, OUTPUTS, Deployed
from model.normalise import IMAGENET_MEAN, IMAGENET_STD, Normalise
from model.predictors.onnx import OnnxNetwork
from model.predictors.tiles import TileBatch
from model.predictors.torch import TorchNetwork, load_network
from model.recipe import Recipe
from model.sgnet import Architecture, SGNet
from model.training import TrainingRun

OPSET = 18
CARD = "README.md"
_FILES = {"onnx": "model.onnx", "safetensors": "model.safetensors", "test_vector": "test_vector.npz"}
_PARITY_CROPS = 4


@dataclass(frozen=True, slots=True)
class Parity:
    """How far ONNX Runtime is from torch on the same tiles."""

    label_agreement: float
    max_score_difference: float


def export_run(run: TrainingRun, folder: Path) -> Parity:
    console = Console(stderr=True)
    manifest = export_network(run.network, run.recipe, run.sampler, folder)
    parity = measure_parity(folder, manifest, sample_tiles(run.sampler, manifest.alpha))
    console.print(f"{folder}: {sum(p.stat().st_size for p in folder.iterdir()) / 1e6:.1f} MB")
    console.print(
        f"parity of ONNX Runtime with torch: labels agree on {parity.label_agreement:.6%},"
        f" scores differ by at most {parity.max_score_difference:.2e}"
    )
    return parity


def export_network(network: SGNet, recipe: Recipe, sampler: CropSampler, folder: Path) -> ModelManifest:
    """Write the folder. The test vector is the run's crop 0, coarsened so that it is small."""
    network = network.cpu().eval()
    state = halve_weights(network)
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(state, partial / _FILES["safetensors"])
    (partial / _FILES["safetensors"]).chmod(0o644)  # its writer keeps it to the owner, and a service has another user
    write_graph(network, partial / _FILES["onnx"])
    write_test_vector(network, coarsen(sampler.crop(0)), partial / _FILES["test_vector"])
    manifest = describe(network.architecture, recipe, partial)
    (partial / MANIFEST_NAME).write_text(json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n")
    if (folder / CARD).exists():
        shutil.copy2(folder / CARD, partial / CARD)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return manifest


def halve_weights(network: SGNet) -> dict[str, torch.Tensor]:
    """Round every kernel and matrix to float16 in place, and return the state that stores them so.

    Half the bytes. Both engines compute in float32 with the rounded values, so they still agree.
    """
    state = {k: (v.half() if v.ndim > 1 else v).contiguous() for k, v in network.state_dict().items()}
    network.load_state_dict(state)
    return state


def write_graph(network: SGNet, path: Path) -> None:
    """One file, dynamic batch, all other sizes fixed."""
    architecture = network.architecture
    inputs = example_inputs(architecture)
    names = INPUTS[: len(inputs)]
    batch = torch.export.Dim("batch", min=1, max=1024)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names operators of packages that are not here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notices about its own internals
        torch.onnx.export(
            Deployed(network, Normalise()).eval(),
            inputs,
            path,
            input_names=list(names),
            output_names=list(OUTPUTS),
            dynamic_shapes={name: {0: batch} for name in names},
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
    if architecture.surround is None:
        return (local,)
    return local, torch.zeros(2, 3, size, size, dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.int32)


def write_test_vector(network: SGNet, crop: Crop, path: Path) -> None:
    """Inputs of one tile under the graph's names, and the labels that torch gives for them."""
    batch = tile_batch([crop], network.architecture.alpha)
    inputs = {name: part for name, part in batch._asdict().items() if part is not None}
    with torch.inference_mode():
        labels, _ = Deployed(network, Normalise()).eval()(*(torch.from_numpy(part) for part in inputs.values()))
    np.savez_compressed(path, labels=labels.numpy(), **inputs)


def describe(architecture: Architecture, recipe: Recipe, folder: Path) -> ModelManifest:
    dataset = find_dataset(recipe.dataset)
    return ModelManifest(
        name=recipe.name,
        version=recipe.version,
        title=dataset.title,
        tile_px=architecture.tile_px,
        alpha=architecture.alpha,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        classes=dataset.classes,
        architecture=asdict(architecture),
        files={role: ModelFile(path=name, sha256=_sha256(folder / name)) for role, name in _FILES.items()},
        license=dataset.license,
        provenance=dataset.provenance | {"recipe": _plain(asdict(recipe))},
    )


def measure_parity(folder: Path, manifest: ModelManifest, batch: TileBatch) -> Parity:
    onnx, torch_ = OnnxNetwork(folder, manifest), TorchNetwork(load_network(folder, manifest), manifest, device="cpu")
    same = float((onnx.labels(batch) == torch_.labels(batch)).mean())
    return Parity(same, float(np.abs(onnx.scores(batch) - torch_.scores(batch)).max()))


def sample_tiles(sampler: CropSampler, alpha: int) -> TileBatch:
    return tile_batch([sampler.crop(i) for i in range(_PARITY_CROPS)], alpha)


def tile_batch(crops: list[Crop], alpha: int) -> TileBatch:
    surround = np.stack([_channels_first(crop.image) for crop in crops])
    local = np.stack([_channels_first(crop.image[crop.local]) for crop in crops])
    if alpha == 1:
        return TileBatch(local, None, None)
    return TileBatch(local, surround, np.array([crop.offset for crop in crops], np.int32))


def coarsen(crop: Crop, step: int = 4) -> Crop:
    """Blocks of step x step px: a tenth of the bytes once compressed."""
    image = crop.image[::step, ::step].repeat(step, axis=0).repeat(step, axis=1)
    return Crop(image, crop.labels, crop.offset, crop.tile_px)


def _channels_first(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
