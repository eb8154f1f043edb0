"""The last step: small objects, upper levels, metadata, the image beside its mask, and one rename that publishes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from gigamask.job import JobOptions, SelectionSummary
from gigamask.manifest import ModelManifest
from gigamask.plan import Plan
from gigamask.pyramid import ngff
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskWriter, mask_folder, region_folder
from gigamask.pyramid.probabilities import ProbabilityWriter, probability_folder
from gigamask.store import LOCK_SUFFIX, partial, publish
from workers.sieving import remove_raw, sieve_mask

Progress = Callable[[float], None]


def assemble(
    image_zarr: Path,
    mask_zarr: Path,
    plan: Plan,
    manifest: ModelManifest,
    areas_px: dict[int, int],
    options: JobOptions,
    progress: Progress = lambda fraction: None,
    *,
    skipped: Collection[int] = (),
    selection: SelectionSummary | None = None,
) -> None:
    """Turn `partial(mask_zarr)`, whose regions are done, into `mask_zarr`. Killed at any point, it may be run again."""
    root = partial(mask_zarr)
    if mask_zarr.exists() and not root.exists():
        return
    complete(
        image_zarr, root, plan, manifest, areas_px, options, progress, skipped=skipped, selection=selection
    )  # fmt: skip
    publish(mask_zarr)


def complete(
    image_zarr: Path,
    root: Path,
    plan: Plan,
    manifest: ModelManifest,
    areas_px: dict[int, int],
    options: JobOptions,
    progress: Progress = lambda fraction: None,
    *,
    skipped: Collection[int] = (),
    selection: SelectionSummary | None = None,
) -> dict[int, int]:
    """Make `root`, whose regions are done, whole: all but its publication. -> label -> pixels of what is in it.

    image_zarr: the finished image; its shards become hard links, unless it is `root` itself.
    areas_px: label -> pixels of level 0 (255 = no data), as regions counted them. skipped: indices of regions.
    """
    image, tell = ImagePyramid(image_zarr), _Tell(progress, options)
    mask, raw = MaskWriter(mask_folder(root, manifest.name), plan), region_folder(root, manifest.name, options)
    # killed when all was done but the renaming; a late region may have left a shard there since
    if options.min_object_px and not (raw / "0" / "zarr.json").is_file():
        remove_raw(root)
        return ngff.areas_px(ngff.read_attributes(mask.root))
    mask.create()
    if options.min_object_px:
        areas_px = sieve_mask(raw, mask, options.min_object_px, tell.next())
    mask.build_upper_levels(tell.next())
    if image_zarr != root:
        _link_levels(image, root)
    used = options.model_copy(update={"region_px": plan.region_px}).model_dump(mode="json")
    made_by = ngff.provenance(manifest, used)
    if options.probabilities:
        _finish_probabilities(image, root, plan, manifest, made_by, tell.next())
    run = ngff.run_attributes(plan.region_px, plan.scale, selection, skipped)
    _write_metadata(image, mask, manifest, areas_px, made_by, run, root)
    _remove_locks(root)
    remove_raw(root)
    return areas_px


@dataclass(slots=True)
class _Tell:
    """Progress of one step after another, each an equal share of the whole."""

    progress: Progress
    options: JobOptions
    begun: int = 0

    def next(self) -> Progress:
        steps = 1 + bool(self.options.min_object_px) + self.options.probabilities
        before, self.begun = self.begun, self.begun + 1
        return lambda fraction: self.progress((before + fraction) / steps)


def _finish_probabilities(
    image: ImagePyramid,
    root: Path,
    plan: Plan,
    manifest: ModelManifest,
    made_by: ngff.Attributes,
    progress: Progress,
) -> None:
    writer = ProbabilityWriter(probability_folder(root), plan, manifest.classes)
    writer.create()
    writer.build_upper_levels(progress)
    ngff.write_group(writer.root, writer.attributes(image.info, made_by))


def _write_metadata(
    image: ImagePyramid,
    mask: MaskWriter,
    manifest: ModelManifest,
    areas_px: dict[int, int],
    made_by: ngff.Attributes,
    run: ngff.Attributes,
    root: Path,
) -> None:
    """The root's last: it is what makes the tree an image."""
    levels = mask.plan.levels
    ngff.write_group(mask.root, ngff.label_attributes(image.info, levels, manifest, areas_px, made_by, run))
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
