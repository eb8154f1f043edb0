"""The last step: upper levels, metadata, the image beside its mask, and one rename that makes the result."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from gigamask.job import JobOptions
from gigamask.manifest import ModelManifest
from gigamask.plan import Plan
from gigamask.pyramid import ngff
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskWriter, mask_folder
from gigamask.store import LOCK_SUFFIX, partial, publish


def assemble(
    image_zarr: Path,
    mask_zarr: Path,
    plan: Plan,
    manifest: ModelManifest,
    areas_px: dict[int, int],
    options: JobOptions,
    progress: Callable[[float], None] = lambda fraction: None,
) -> None:
    """Turn `partial(mask_zarr)`, whose regions are done, into `mask_zarr`. Killed at any point, it may be run again."""
    root = partial(mask_zarr)
    if mask_zarr.exists() and not root.exists():
        return
    complete(image_zarr, root, plan, manifest, areas_px, options, progress)
    publish(mask_zarr)


def complete(
    image_zarr: Path,
    root: Path,
    plan: Plan,
    manifest: ModelManifest,
    areas_px: dict[int, int],
    options: JobOptions,
    progress: Callable[[float], None] = lambda fraction: None,
) -> None:
    """Make `root`, whose regions are done, whole: all but its publication.

    image_zarr: the finished image; its shards become hard links, unless it is `root` itself.
    areas_px: label -> pixels of level 0 (255 = no data).
    """
    image = ImagePyramid(image_zarr)
    mask = MaskWriter(mask_folder(root, manifest.name), plan)
    mask.create()
    mask.build_upper_levels(progress)
    if image_zarr != root:
        _link_levels(image, root)
    _write_metadata(image, mask, manifest, areas_px, options, root)
    _remove_locks(root)


def _write_metadata(
    image: ImagePyramid,
    mask: MaskWriter,
    manifest: ModelManifest,
    areas_px: dict[int, int],
    options: JobOptions,
    root: Path,
) -> None:
    """The root's last: it is what makes the tree an image."""
    used = options.model_copy(update={"region_px": mask.plan.region_px}).model_dump(mode="json")
    made_by = ngff.provenance(manifest, used)
    levels = mask.plan.levels
    ngff.write_group(mask.root, ngff.label_attributes(image.info, levels, manifest, areas_px, made_by))
    ngff.write_group(root / "labels", ngff.labels_attributes([manifest.name]))
    ngff.write_group(root, ngff.image_attributes(image.info, levels, "image", made_by))


def _link_levels(image: ImagePyramid, root: Path) -> None:
    for level in range(image.levels):
        folder = image.root / str(level)
        for source in folder.rglob("*"):
            if source.is_file() and not source.name.endswith(LOCK_SUFFIX):
                _link(source, root / source.relative_to(image.root))


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        fresh = target.with_name(target.name + LOCK_SUFFIX)
        shutil.copyfile(source, fresh)
        fresh.replace(target)


def _remove_locks(root: Path) -> None:
    """Temporary files of writers that were killed."""
    for path in root.rglob(f"*{LOCK_SUFFIX}"):
        path.unlink(missing_ok=True)
