"""The jobs: submitted, followed through their stages, cancelled, counted; in Redis, and as job.json beside the data.

queued -> running (ingest -> segment -> assemble) -> succeeded | failed | cancelled

Every change of state is one Lua script that looks at the state before: a final state stays, whoever comes late. After
it the record is written beside the data, so that losing Redis loses no finished job (`restore` brings them back).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from gigamask.errors import Conflict, UnknownJob
from gigamask.image_info import ImageInfo
from gigamask.job import Job, JobOptions, Problem, RegionOutcomes, SelectionSummary, Stage, State
from gigamask.plan import region_grid
from gigamask.pyramid.ngff import read_attributes
from gigamask.queue import keys, scripts
from gigamask.queue.connection import Connection, Word
from gigamask.queue.record import ROI, read_hash, read_record, to_hash, write_record
from gigamask.settings import Settings
from gigamask.store import Store, new_id


class JobStore:
    """Every method raises QueueUnavailable where Redis does not answer."""

    def __init__(self, connection: Connection, store: Store, settings: Settings) -> None:
        self._connection = connection
        self._store = store
        self._window = settings.inflight_regions

    # -- what clients ask

    def submit(self, image_id: str, file_name: str, model: str, options: JobOptions) -> Job:
        job = Job(
            id=new_id(), image_id=image_id, file_name=file_name, model=model, options=options, created_at=_now()
        )  # fmt: skip
        self._create(job)
        self._keep(job.id)
        return job

    def get(self, job_id: str) -> Job:
        """Raises UnknownJob. Where Redis lost the job: as it was at its last change of state."""
        record = self._store.job_record(job_id)  # what is no id makes no key
        job = read_hash(self._connection.call("HGETALL", keys.job(job_id))) or read_record(record)
        if job is None:
            raise UnknownJob(f"no job {job_id!r}")
        return job

    def list(self, limit: int = 100, offset: int = 0) -> Sequence[Job]:
        """The newest first, without the first `offset`; a job that cannot be read is left out.

        Of a large region of interest they have the rectangle around it (gigamask.roi.abridged).
        """
        words: list[Word] = [offset, offset + limit - 1, keys.JOB_PREFIX, ROI]
        hashes = self._connection.run(scripts.LIST, [keys.JOBS], words)
        found = [read_hash(dict(zip(flat[::2], flat[1::2], strict=True))) for flat in hashes]
        return [job for job in found if job is not None]

    def count(self) -> int:
        """All jobs, those that cannot be read included."""
        return int(self._connection.call("ZCARD", keys.JOBS))

    def cancel(self, job_id: str) -> Job:
        """Cancelled at once; workers drop its messages. Raises UnknownJob, or Conflict where it is final."""
        job = self.get(job_id)
        self._create(job)  # does nothing unless Redis lost it
        if not self._finish(job_id, State.CANCELLED):
            raise Conflict(f"job {job_id} is {self.get(job_id).state} already")
        return self.get(job_id)

    def outcomes(self, job_id: str) -> RegionOutcomes:
        """What became of each region. Raises UnknownJob, or Conflict before the image has been read.

        Of a job that succeeded the published mask tells; of one that failed, no more is known than what failed.
        """
        job = self.get(job_id)
        if job.image is None or job.region_px is None:
            raise Conflict(f"job {job_id} has no regions before its image has been read")
        marked, skipped = self._marked(job)
        failed = {job.error.region} if job.error and job.error.region is not None else set()
        grid = region_grid(job.image.shape, job.region_px)
        return RegionOutcomes(job.region_px, grid, marked - skipped, skipped, frozenset(failed))

    def _marked(self, job: Job) -> tuple[frozenset[int], frozenset[int]]:
        """The regions that were told, and those of them that were skipped."""
        if job.state is State.SUCCEEDED:
            from gigamask.pyramid.mask import mask_folder

            own = read_attributes(mask_folder(self._store.mask_zarr(job.id), job.model))["gigamask"]
            return frozenset(range(job.regions_total)), frozenset(own.get("skipped_regions", ()))
        told, skipped = self._connection.run(scripts.SET_BITS, [keys.regions(job.id), keys.skipped(job.id)])
        return frozenset(told), frozenset(skipped)

    def ping(self) -> None:
        self._connection.call("PING")

    # -- what workers tell

    def state(self, job_id: str) -> tuple[State, Stage] | None:
        """None where Redis does not know the job, or nothing that can be read."""
        state, stage = self._connection.call("HMGET", keys.job(job_id), "state", "stage")
        return (State(state), Stage(stage)) if state in set(State) and stage in set(Stage) else None

    def start(self, job_id: str) -> bool:
        """queued -> running. False when it was not queued."""
        started = self._connection.run(scripts.START, [keys.job(job_id)], [_now().isoformat()])
        return self._kept(job_id, started)

    def note_ingest(self, job_id: str, fraction: float) -> None:
        """fraction: of the image's rows, in [0, 1]."""
        self._connection.run(scripts.NOTE_INGEST, [keys.job(job_id)], ["ingest_fraction", min(1.0, max(0.0, fraction))])

    def start_segment(
        self,
        job_id: str,
        info: ImageInfo,
        region_px: int,
        total: int,
        scale: float = 1.0,
        selection: SelectionSummary | None = None,
    ) -> bool:
        """Ingest is done: queue the first window of `total` regions. False when it did so before, or is final."""
        fields: dict[str, Word] = {
            "image": info.model_dump_json(), "region_px": region_px, "scale": scale, "ingest_fraction": 1.0,
            "segment_started_at": _now().isoformat(),
        }  # fmt: skip
        if selection is not None:
            fields["selection"] = selection.model_dump_json()
        words = [job_id, total, self._window, *_flat(fields)]
        started = self._connection.run(
            scripts.START_SEGMENT, [keys.job(job_id), keys.work(Stage.SEGMENT)], words
        )  # fmt: skip
        return self._kept(job_id, started)

    def region_done(self, job_id: str, index: int) -> bool:
        return bool(self._connection.call("GETBIT", keys.regions(job_id), index))

    def complete_region(self, job_id: str, index: int, counts: Mapping[int, int], *, skipped: bool = False) -> bool:
        """The region's shards are written. counts: label -> pixels.

        Counted once however often it is told; feeds the job's next region, and hands over to assemble after the last.
        False when the job is no longer in this stage: what was written may be in the way.
        """
        stages = [keys.work(Stage.SEGMENT), keys.work(Stage.ASSEMBLE)]
        words = [job_id, index, "skipped" if skipped else "done", *_flat(counts)]
        told = self._connection.run(
            scripts.COMPLETE_REGION, [keys.job(job_id), keys.regions(job_id), keys.skipped(job_id), *stages], words
        )  # fmt: skip
        if told == 1:
            self._keep_if_assembling(job_id)
        return bool(told >= 0)

    def succeed(self, job_id: str, areas_px: Mapping[int, int] | None = None) -> bool:
        """The mask is published. areas_px: of all labels, where they are not what the regions counted.

        False when the job is final already, or was not in assemble.
        """
        return self._finish(job_id, State.SUCCEEDED, areas_px=areas_px)

    def fail(self, job_id: str, problem: Problem) -> bool:
        """False when the job is final already."""
        return self._finish(job_id, State.FAILED, problem)

    # -- one ingest for an image, however many jobs want it

    def take_image(self, job_id: str, image_id: str) -> bool:
        """True: this job ingests the image (again). False: another job does; this one is queued again afterwards."""
        names = [keys.ingest_owner(image_id), keys.ingest_waiting(image_id)]
        return bool(self._connection.run(scripts.TAKE_IMAGE, names, [job_id]))

    def release_image(self, job_id: str, image_id: str) -> None:
        """Ingest by this job is over, well or badly: the jobs that wait are queued again. Nothing, if it has it not."""
        names = [keys.ingest_owner(image_id), keys.ingest_waiting(image_id), keys.work(Stage.INGEST)]
        self._connection.run(scripts.RELEASE_IMAGE, names, [job_id])

    # -- after a loss of Redis

    def restore(self) -> Sequence[str]:
        """Bring back what Redis lacks from the records beside the data; unfinished jobs start again at ingest.

        Ingest goes straight on where the image's pyramid stands, and regions rewrite the same bytes.
        """
        paths = sorted(self._store.root.glob("jobs/*/job.json"))
        missing = [path for path in paths if not self._connection.call("EXISTS", keys.job(path.parent.name))]
        records = [read_record(path) for path in missing]
        return [job.id for job in records if job is not None and self._create(job)]

    def _create(self, job: Job) -> bool:
        """Put into Redis what is not there; False when it is."""
        fresh = job if job.state.final else _from_the_start(job)
        names = [keys.job(job.id), keys.JOBS, keys.work(Stage.INGEST)]
        words = [job.id, job.created_at.timestamp(), int(not job.state.final), *_flat(to_hash(fresh))]
        return bool(self._connection.run(scripts.CREATE, names, words))

    def _finish(
        self, job_id: str, state: State, problem: Problem | None = None, areas_px: Mapping[int, int] | None = None
    ) -> bool:
        names = [keys.job(job_id), keys.regions(job_id), keys.skipped(job_id), keys.work(Stage.ASSEMBLE)]
        words = [
            job_id,
            state,
            _now().isoformat(),
            problem.model_dump_json() if problem else "",
            *_flat(areas_px or {}),
        ]
        told = self._connection.run(scripts.FINISH, names, words)
        return self._kept(job_id, max(0, told))

    def _kept(self, job_id: str, changed: int) -> bool:
        if changed:
            self._keep(job_id)
        return bool(changed)

    def _keep_if_assembling(self, job_id: str) -> None:
        if self.state(job_id) == (State.RUNNING, Stage.ASSEMBLE):
            self._keep(job_id)

    def _keep(self, job_id: str) -> None:
        """Write job.json, again if the job changed meanwhile: the last writer leaves the last state."""
        fields = self._connection.call("HGETALL", keys.job(job_id))
        while (job := read_hash(fields)) is not None:
            write_record(self._store.job_record(job_id), job)
            version = fields["version"]
            if self._connection.call("HGET", keys.job(job_id), "version") == version:
                return
            fields = self._connection.call("HGETALL", keys.job(job_id))


def open_jobs(settings: Settings) -> JobStore:
    return JobStore(Connection(settings.redis_url), Store(settings.store), settings)


def _from_the_start(job: Job) -> Job:
    return Job(**job.model_dump(include={"id", "image_id", "file_name", "model", "options", "created_at"}))


def _flat(pairs: Mapping[str, Word] | Mapping[int, int] | Mapping[str, str | int]) -> Sequence[Word]:
    return [word for pair in pairs.items() for word in pair]


def _now() -> datetime:
    return datetime.now(UTC)
