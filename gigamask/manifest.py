"""A model is a folder: `model.json` (this module) beside its weights, each file held to its sha256.

Any process may read manifests: nothing here needs torch or ONNX Runtime. Class id = index = label in the mask;
`NO_DATA` (255) is the mask's fill value, meaning that the image has no pixel there or that nothing was predicted.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gigamask.errors import BadModel, UnknownModel

NO_DATA = 255
MANIFEST_NAME = "model.json"

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelClass(_Part):
    """id: the label in the mask. color: `#rrggbb`."""

    id: Annotated[int, Field(ge=0, lt=NO_DATA)]
    name: Annotated[str, Field(min_length=1, max_length=80)]
    color: Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]

    @property
    def rgba(self) -> tuple[int, int, int, int]:
        red, green, blue = bytes.fromhex(self.color[1:])
        return red, green, blue, 255


class PixelSize(_Part):
    """Side of one pixel that the model was trained at."""

    value: Annotated[float, Field(gt=0)]
    unit: Literal["micrometer", "meter"]


class ModelFile(_Part):
    path: str
    sha256: Hash

    @model_validator(mode="after")
    def _inside_the_folder(self) -> ModelFile:
        parts = PurePosixPath(self.path).parts
        if len(parts) != 1 or parts[0] in (".", ".."):
            raise ValueError(f"a model's file lies in its own folder, not at {self.path!r}")
        return self


class Context(_Part):
    """How a tile comes by its surroundings (docs/sgnet.md).

    tile: from its own surround, as in the paper. trunk_shared: the branch's trunk runs once over a region's window and
    each tile mixes its own part. neighbourhood: the whole branch runs once. halo_px: how far a window reaches beyond
    what its tiles look at, so that no cell they use depends on where it ends. lattice_px: windows begin and end on
    multiples of this from the image's origin.
    """

    mode: Literal["tile", "trunk_shared", "neighbourhood"] = "tile"
    lattice_px: Annotated[int, Field(ge=1, le=4096)] = 1
    halo_px: Annotated[int, Field(ge=0, le=16384)] = 0


TILE_CONTEXT = Context()


class ModelManifest(_Part):
    """`model.json`.

    tile_px: side t of the local window. alpha: the surround is alpha * t wide; 1 = the model takes no surround.
    mean, std: per channel, in 0..255; normalisation is inside the exported graph, `pad_color` = rounded mean.
    architecture: what model/ needs to rebuild the torch module. files: `onnx`, `safetensors`, `test_vector`, by role.
    """

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    version: str
    title: str = ""
    description: str = ""
    tile_px: Annotated[int, Field(ge=32, le=4096)]
    alpha: Annotated[int, Field(ge=1, le=4)]
    context: Context = TILE_CONTEXT
    pixel_size: PixelSize | None = None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: Annotated[tuple[LabelClass, ...], Field(min_length=1, max_length=NO_DATA)]
    architecture: dict[str, Any] = {}
    files: dict[str, ModelFile]
    license: str
    provenance: dict[str, Any] = {}

    @model_validator(mode="after")
    def _ids_are_indices(self) -> ModelManifest:
        ids = [c.id for c in self.classes]
        if ids != list(range(len(ids))):
            raise ValueError(f"class ids are 0..{len(ids) - 1} in order, not {ids}")
        return self

    @property
    def pad_color(self) -> tuple[int, int, int]:
        red, green, blue = (round(m) for m in self.mean)
        return red, green, blue


def read_manifest(folder: Path) -> ModelManifest:
    """Raises BadModel where `model.json` is absent or wrong."""
    path = folder / MANIFEST_NAME
    try:
        return ModelManifest.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError as exc:
        raise BadModel(f"{folder.name}: no {MANIFEST_NAME} in the folder") from exc
    except (ValidationError, ValueError) as exc:
        raise BadModel(f"{folder.name}/{MANIFEST_NAME}: {exc}") from exc


def checked_file(folder: Path, manifest: ModelManifest, role: str) -> Path:
    """The file of that role, its sha256 verified. Raises BadModel."""
    try:
        entry = manifest.files[role]
    except KeyError as exc:
        raise BadModel(f"{manifest.name}: has no {role} file, only {sorted(manifest.files)}") from exc
    path = folder / entry.path
    if not path.is_file():
        raise BadModel(f"{manifest.name}: {entry.path} is missing")
    got = _sha256(path, path.stat().st_mtime_ns)
    if got != entry.sha256:
        raise BadModel(f"{manifest.name}: {entry.path} has sha256 {got}, expected {entry.sha256}")
    return path


@lru_cache(maxsize=64)
def _sha256(path: Path, _mtime_ns: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class ModelShelf:
    """The model folders under some roots; a folder dropped in is seen at the next call."""

    def __init__(self, roots: tuple[Path, ...]) -> None:
        self._roots = roots

    def folders(self) -> dict[str, Path]:
        """name -> folder; the first root wins."""
        found: dict[str, Path] = {}
        for root in self._roots:
            for path in sorted(root.glob(f"*/{MANIFEST_NAME}")):
                found.setdefault(path.parent.name, path.parent)
        return found

    def folder(self, name: str) -> Path:
        """Raises UnknownModel, naming what there is."""
        folders = self.folders()
        if name not in folders:
            raise UnknownModel(f"no model {name!r}; there are: {', '.join(folders) or 'none'}")
        return folders[name]

    def manifest(self, name: str) -> ModelManifest:
        """Raises UnknownModel; BadModel also where the folder is not called what its manifest says."""
        found = read_manifest(self.folder(name))
        if found.name != name:
            raise BadModel(f"the folder {name!r} holds the model {found.name!r}: rename one of them")
        return found

    def manifests(self) -> list[ModelManifest]:
        return [self.manifest(name) for name in self.folders()]
