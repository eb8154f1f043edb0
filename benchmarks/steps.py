"""One step of the job as a process of its own, for `benchmarks.memory` to watch.

python -m benchmarks.steps ingest PICTURE ZARR
python -m benchmarks.steps segment ZARR MODEL REGIONS
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

from gigamask.image_info import ReadOptions
from gigamask.manifest import ModelShelf
from gigamask.plan import plan_regions
from gigamask.processes import give_back_freed_memory
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskWriter, mask_folder
from gigamask.settings import Settings


def ingest(picture: str, zarr_root: str) -> None:
    from workers.ingest import ingest as step

    step(Path(picture), Path(zarr_root), ReadOptions(), Settings(), lambda fraction: None)


def segment(zarr_root: str, model: str, regions: str) -> None:
    from model.predictors import load_predictor
    from workers.segment import Outcome, RegionWork
    from workers.segment import segment as step

    give_back_freed_memory()  # as `gigamask worker` does
    settings = Settings()
    image = ImagePyramid(Path(zarr_root))
    predictor = load_predictor(ModelShelf(settings.models).folder(model), "onnx", settings.batch_tiles)
    plan = plan_regions(image.info.shape, predictor.manifest, None)
    mask = MaskWriter(mask_folder(Path(zarr_root), model), plan)
    mask.create()

    def done(work: RegionWork, outcome: Outcome) -> None:
        print(work.region.index, file=sys.stderr)

    def failed(work: RegionWork, exc: Exception) -> None:
        raise exc

    step((RegionWork(r, image, mask, predictor) for r in islice(plan.regions(), int(regions))), done, failed)


if __name__ == "__main__":
    if sys.argv[1] == "ingest":
        ingest(*sys.argv[2:])
    else:
        segment(*sys.argv[2:])
