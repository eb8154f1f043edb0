"""The model folder of a study, written whole or not at all, and the manifest in it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from gigamask.errors import BadModel, Conflict, InsufficientStorage, InvalidOption
from gigamask.manifest import MANIFEST_NAME, ModelFile, ModelManifest
from gigamask.plan import REGION_SIDES_PX, plan_regions
from gigamask.pyramid.ngff import software_version
from model.adoption.recognise import Origin
from model.adoption.study import Study
from model.adoption.trial import trial_pictures
from model.predictors import load_predictor

GRAPH, VECTOR = "model.onnx", "test_vector.npz"
FIRST_VERSION = "1"


def manifest_of(study: Study, name: str, origin: Origin, files: dict[str, ModelFile]) -> ModelManifest:
    """Raises InvalidOption for a name or a licence that a manifest does not take."""
    told, scaling = study.description, study.wiring.scaling.over(3)
    if not told.license:
        raise InvalidOption("the licence is not known: --license Apache-2.0, or whatever its owner says")
    try:
        return ModelManifest(
            name=name,
            version=told.version or FIRST_VERSION,
            title=told.title or "",
            tile_px=study.wiring.frame.tile_px,
            alpha=study.wiring.frame.alpha,
            pixel_size=told.pixel_size,
            mean=_three(min(255.0, max(0.0, m)) for m in scaling.mean),  # it is also the colour beyond a small image
            std=_three(scaling.std),
            classes=study.classes,
            files=files,
            license=told.license,
            provenance={**told.provenance, "adoption": adoption_of(study, origin)},
        )
    except ValueError as exc:
        raise InvalidOption(f"model.json would not do: {exc}") from exc


def adoption_of(study: Study, origin: Origin) -> dict[str, Any]:
    """What was adopted, from what, and what was taken to be so."""
    wiring = study.wiring
    frame, map_ = wiring.frame, wiring.map
    return {
        "source": {"name": origin.name, "sha256": origin.sha256, "bytes": origin.bytes},
        "network_px": frame.network_px,
        "halo_px": frame.margin_px,
        "channels": wiring.channels,
        "gain": list(wiring.scaling.gain),
        "shift": list(wiring.scaling.shift),
        "output": map_.name,
        "gives": "labels" if map_.labels else map_.activation,
        "reduction": map_.reduction,
        "crop_px": map_.crop_px,
        "threshold": map_.threshold if map_.foreground else None,
        "batch": "any" if study.any_batch else 1,
        "assumed": list(study.assumptions),
        "label_agreement": round(study.verdict.agreement, 6),
        "score_difference": float(f"{study.verdict.score_difference:.2e}"),
        "software": {"gigamask": software_version(), "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    }


def write_folder(study: Study, name: str, origin: Origin, root: Path, *, overwrite: bool = False) -> Path:
    """`root`/`name`, there by one rename. Raises Conflict where it exists, BadModel where it does not work."""
    target = root / name
    if target.exists() and not overwrite:
        raise Conflict(f"{target} exists already; --overwrite replaces it")
    if target.exists() and not (target / MANIFEST_NAME).is_file():
        raise Conflict(f"{target} is no model folder, so it is not overwritten")
    with _beside(root) as stage:
        fresh = stage / name
        fresh.mkdir()
        fresh.chmod(0o755)
        _fill(study, name, origin, fresh)
        _replace(target, fresh, stage / "replaced")
    return target


def _replace(target: Path, fresh: Path, grave: Path) -> None:
    """Where the new one cannot take its place, the old one stays. Raises Conflict."""
    if target.exists():
        target.rename(grave)
    try:
        fresh.rename(target)
    except OSError as exc:
        if grave.exists() and not target.exists():
            grave.rename(target)
        raise Conflict(f"{target} was put there by somebody else meanwhile, or cannot be: {exc.strerror}") from exc


@contextmanager
def _beside(root: Path) -> Iterator[Path]:
    """A folder on the same file system in which no shelf looks for models: they lie one level deeper than it looks."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".adopting-", dir=root))
    except OSError as exc:
        raise InvalidOption(f"{root}: {exc.strerror}; --to names another folder") from exc
    try:
        yield stage
    except OSError as exc:
        kind = InvalidOption if isinstance(exc, PermissionError) or exc.errno == errno.EROFS else InsufficientStorage
        raise kind(f"{root} cannot be written: {exc.strerror}") from exc
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _fill(study: Study, name: str, origin: Origin, folder: Path) -> None:
    _write(folder / GRAPH, study.model.SerializeToString())
    files = {"onnx": _file(folder / GRAPH)}
    _write_manifest(folder, manifest_of(study, name, origin, files))
    picture = trial_pictures(study.wiring.frame.surround_px)[1]
    with (folder / VECTOR).open("wb") as stream:
        np.savez_compressed(stream, picture=picture, labels=predict_picture(folder, picture))
        _sync(stream.fileno())
    _write_manifest(folder, manifest_of(study, name, origin, {**files, "test_vector": _file(folder / VECTOR)}))


def predict_picture(folder: Path, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, h, w) -> (h, w), by the predictor that workers use. Raises BadModel."""
    predictor = load_predictor(folder, device="cpu")
    shape = (picture.shape[1], picture.shape[2])
    tile_px = predictor.manifest.tile_px
    side = next((side for side in REGION_SIDES_PX if side >= max(*shape, tile_px)), None)
    if side is None:
        raise BadModel(f"a test picture has at most {REGION_SIDES_PX[-1]} px a side, not {max(shape)}")
    region = plan_regions(shape, predictor.manifest, side).region(0)
    return predictor.predict(picture, region)


def _write_manifest(folder: Path, manifest: ModelManifest) -> None:
    _write(folder / MANIFEST_NAME, (json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        _sync(stream.fileno())


def _sync(descriptor: int) -> None:
    os.fsync(descriptor)


def _file(path: Path) -> ModelFile:
    return ModelFile(path=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (round(value, 6) for value in values)
    return red, green, blue
