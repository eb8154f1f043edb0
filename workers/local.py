"""The main job in one process, without a queue: the same steps, resumable.

The tree grows in `partial(out)`: first the image (there as a whole or not at all), then the labels, then the rest; one
rename makes it `out`. A journal beside it says what the work is a function of and which regions are done.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gigamask.errors import BadImage, Conflict, GigamaskError, RegionFailed
from gigamask.image_info import ImageInfo
from gigamask.job import JobOptions, Stage
from gigamask.manifest import NO_DATA, ModelManifest
from gigamask.plan import Plan, plan_job, plan_regions
from gigamask.pyramid import ngff
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import RAW, region_writer
from gigamask.pyramid.probabilities import FOLDER, ProbabilityWriter, probability_folder
from gigamask.selection import Selection, select
from gigamask.settings import Settings
from gigamask.store import partial, publish
from model.predictors import RegionPredictor, load_predictor
from workers.assemble import complete
from workers.journal import Journal, Key, RegionRecord
from workers.report import Progress, SegmentReport
from workers.segment import SKIPPED, Outcome, RegionWork, StageSeconds, areas_of, segment


def segment_image(
    source: Path,
    model_folder: Path,
    out: Path,
    options: JobOptions,
    settings: Settings,
    progress: Callable[[Progress], None] = lambda progress: None,
    *,
    overwrite: bool = False,
) -> SegmentReport:
    """Segment `source` into the OME-Zarr `out`. Killed and called again with the same arguments, it goes on.

    progress: called from several threads, one at a time. overwrite: replace an OME-Zarr at `out`, once the new one is
    whole. Raises Conflict where `out` exists, or is being written; BadImage, BadModel and their kin.
    """
    _require_place(out, overwrite)
    predictor = load_predictor(
        model_folder, settings.engine, settings.batch_tiles, settings.threads or None, settings.device
    )
    with _journal_of(out) as journal:
        run = _Run(source, out, options, settings, predictor, journal, progress)
        return run.report(*run.do())


@contextmanager
def _journal_of(out: Path) -> Iterator[Journal]:
    """Kept only while there is something to go on with."""
    with Journal(out.with_name(out.name + ".journal")) as journal:
        try:
            yield journal
        finally:
            if not partial(out).exists():
                journal.remove()


def _require_place(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise Conflict(f"{out} exists already")
    if not (out / "zarr.json").is_file():
        raise Conflict(f"{out} is no Zarr, so it is not overwritten")


class _Run:
    def __init__(
        self,
        source: Path,
        out: Path,
        options: JobOptions,
        settings: Settings,
        predictor: RegionPredictor,
        journal: Journal,
        progress: Callable[[Progress], None],
    ) -> None:
        self._source, self._out, self._options, self._settings = source, out, options, settings
        self._predictor, self._journal, self._progress = predictor, journal, progress
        self._root = partial(out)
        self._selection: Selection | None = None
        self._areas: dict[int, int] = {}
        self._seconds: dict[str, float] = {}
        self._segmented_px = 0
        self._started = time.perf_counter()

    @property
    def _manifest(self) -> ModelManifest:
        return self._predictor.manifest

    def do(self) -> tuple[ImageInfo, Plan]:
        plan_regions((1, 1), self._manifest, self._options.region_px)  # a wrong side is told before hours of ingest
        self._resume()
        with self._timed(Stage.INGEST):
            image = self._ingest()
        plan = plan_job(image.info, self._manifest, self._options)
        self._selection = select(image, plan, self._options)
        with self._timed(Stage.SEGMENT):
            self._segment(image, plan)
        with self._timed(Stage.ASSEMBLE):
            self._assemble(image, plan)
        return image.info, plan

    @contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[stage.value] = time.perf_counter() - started

    def _resume(self) -> None:
        """Keep of the last run what this run would make again, and nothing else."""
        image, mask = self._image_key(), self._mask_key()
        finished = (self._root / "zarr.json").is_file()
        if self._journal.image != image or not finished:
            self._journal.begin(None, None)
            shutil.rmtree(self._root, ignore_errors=True)
            self._journal.begin(image, mask)
        elif self._journal.mask != mask:
            self._journal.begin(image, None)
            for begun in ("labels", RAW, FOLDER):
                shutil.rmtree(self._root / begun, ignore_errors=True)
            self._journal.begin(image, mask)

    def _image_key(self) -> Key:
        """Raises BadImage where there is no such file."""
        try:
            stat = self._source.stat()
        except OSError as exc:
            raise BadImage(f"{self._source}: {exc.strerror}") from exc
        file = {"path": str(self._source.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        return file | {"read": self._options.read.model_dump(mode="json"), "software": ngff.software_version()}

    def _mask_key(self) -> Key:
        return {
            "model": self._manifest.model_dump(mode="json"),
            "options": self._options.model_dump(mode="json", exclude={"read"}),
            "engine": self._settings.engine,
            "device": self._settings.device,
            "software": ngff.software_version(),
        }

    def _ingest(self) -> ImagePyramid:
        """The image lands in `partial(out)` by a rename of its own."""
        if not (self._root / "zarr.json").is_file():
            from workers.ingest import check_choices, ingest

            check_choices(self._source, self._manifest, self._options, self._settings)
            tell = self._tell(Stage.INGEST)
            ingest(self._source, self._root, self._options.read, self._settings, tell)
            tell(1.0)
        return ImagePyramid(self._root)

    def _segment(self, image: ImagePyramid, plan: Plan) -> None:
        mask = region_writer(self._root, self._manifest.name, plan, self._options)
        probabilities = self._probabilities(plan)
        tell = self._tell(Stage.SEGMENT, image.info)

        finished = set(self._journal.records)
        if len(finished) < plan.region_count:
            mask.create()
            if probabilities:
                probabilities.create()
        done_px, all_px = sum(self._areas_px().values()), plan.shape[0] * plan.shape[1]
        tell(done_px / all_px)

        def done(work: RegionWork, outcome: Outcome) -> None:
            nonlocal done_px
            self._journal.record(_record(work, outcome))
            area = work.region.box.height * work.region.box.width
            done_px, self._segmented_px = done_px + area, self._segmented_px + area
            tell(done_px / all_px)

        todo = (
            RegionWork(region, image, mask, self._predictor, None, self._selection, probabilities)
            for region in plan.regions()
            if region.index not in finished
        )
        spent: StageSeconds = segment(todo, done, _give_up)
        self._seconds |= {"read": spent.read, "predict": spent.predict, "write": spent.write}

    def _probabilities(self, plan: Plan) -> ProbabilityWriter | None:
        if not self._options.probabilities:
            return None
        return ProbabilityWriter(probability_folder(self._root), plan, self._manifest.classes)

    def _assemble(self, image: ImagePyramid, plan: Plan) -> None:
        tell = self._tell(Stage.ASSEMBLE, image.info)
        skipped = [record.region for record in self._journal.records.values() if record.skipped]
        selection = self._selection.summary if self._selection else None
        self._areas = complete(
            self._root,
            self._root,
            plan,
            self._manifest,
            self._areas_px(),
            self._options,
            tell,
            skipped=skipped,
            selection=selection,
        )
        self._replace()
        tell(1.0)

    def _replace(self) -> None:
        """What was at `out` is moved aside only now, put back where the result cannot be moved in, and removed last."""
        replaced = self._out.with_name(self._out.name + ".replaced")
        if not self._out.exists():
            publish(self._out)
            return
        shutil.rmtree(replaced, ignore_errors=True)
        self._out.rename(replaced)
        try:
            publish(self._out)
        except OSError:
            replaced.rename(self._out)
            raise
        shutil.rmtree(replaced, ignore_errors=True)

    def _areas_px(self) -> dict[int, int]:
        total: Counter[int] = Counter()
        for record in self._journal.records.values():
            total.update(record.areas_px)
        return dict(total)

    def _tell(self, stage: Stage, info: ImageInfo | None = None) -> Callable[[float], None]:
        megapixels = info.megapixels if info else 0.0
        return lambda fraction: self._progress(Progress(stage, fraction, megapixels))

    def report(self, info: ImageInfo, plan: Plan) -> SegmentReport:
        areas = self._areas
        named = {c.name: areas.get(c.id, 0) for c in self._manifest.classes}
        area = info.pixel_area
        return SegmentReport(
            width=info.width,
            height=info.height,
            segmented_px=self._segmented_px,
            seconds=time.perf_counter() - self._started,
            stage_seconds=self._seconds,
            areas_px=named,
            areas={name: count * area for name, count in named.items()} if area else None,
            unit=info.unit if area else None,
            no_data_px=areas.get(NO_DATA, 0),
            regions_total=plan.region_count,
            regions_skipped=sum(record.skipped for record in self._journal.records.values()),
            out=self._out,
            scale=plan.scale,
            selection=self._selection.summary if self._selection else None,
        )


def _record(work: RegionWork, outcome: Outcome) -> RegionRecord:
    return RegionRecord(work.region.index, outcome is SKIPPED, areas_of(work.region, outcome))


def _give_up(work: RegionWork, exc: Exception) -> None:
    if isinstance(exc, GigamaskError):
        raise exc
    raise RegionFailed(f"region {work.region.index}: {exc}") from exc
