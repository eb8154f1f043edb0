"""A job's states follow one another, each region counts once, and a final state stays."""

from __future__ import annotations

import json
import math
import threading

import pytest
from pydantic import ValidationError

from gigamask.errors import Conflict, UnknownJob
from gigamask.image_info import ImageInfo, ReadOptions
from gigamask.job import Job, JobOptions, Problem, RegionOutcomes, SelectionSummary, Stage, State
from gigamask.queue import keys
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.queue.record import from_hash, read_record, to_hash
from gigamask.roi import parse_roi
from gigamask.settings import Settings
from gigamask.store import Store, new_id
from service.schemas import view_job

INFO = ImageInfo(height=5000, width=3000, channels=3, format="png", pixel_size=(0.5, 0.5), unit="micrometer")


def submitted(jobs: JobStore, image_id: str | None = None) -> Job:
    return jobs.submit(image_id or new_id(), "slide.svs", "earth", JobOptions())


def segmenting(jobs: JobStore, total: int) -> Job:
    job = submitted(jobs)
    jobs.start(job.id)
    jobs.start_segment(job.id, INFO, 1024, total)
    return jobs.get(job.id)


def assembling(jobs: JobStore) -> Job:
    job = segmenting(jobs, 1)
    jobs.complete_region(job.id, 0, {0: 5})
    return jobs.get(job.id)


def messages(connection: Connection, stage: Stage) -> list[dict[str, str]]:
    return [fields for _id, fields in connection.call("XRANGE", keys.work(stage), "-", "+")]


def test_a_submitted_job_is_queued_and_has_one_ingest_message(jobs: JobStore, connection: Connection) -> None:
    job = jobs.submit(new_id(), "slide.svs", "earth", JobOptions(read=ReadOptions(pixel_size_um=0.25)))
    assert jobs.get(job.id) == job
    assert (job.state, job.stage) == (State.QUEUED, Stage.INGEST)
    assert messages(connection, Stage.INGEST) == [{"job": job.id, "act": "ingest"}]


def test_jobs_are_listed_newest_first(jobs: JobStore) -> None:
    ids = [submitted(jobs).id for _ in range(5)]
    assert [job.id for job in jobs.list()] == ids[::-1]
    assert [job.id for job in jobs.list(limit=2)] == ids[:2:-1]
    assert [job.id for job in jobs.list(limit=2, offset=2)] == [ids[2], ids[1]]
    assert (jobs.list(limit=2, offset=5), jobs.count()) == ([], 5)


@pytest.mark.parametrize("broken", [{"fixed": "{"}, {"fixed": "{}"}, {"state": "lost"}, {"total": "many"}])
def test_a_hash_that_cannot_be_read_counts_as_absent(
    jobs: JobStore, connection: Connection, settings: Settings, broken: dict[str, str]
) -> None:
    job, other = submitted(jobs), submitted(jobs)
    for name, value in broken.items():
        connection.call("HSET", keys.job(job.id), name, value)
    assert [found.id for found in jobs.list()] == [other.id]
    assert jobs.get(job.id) == job, "as the record beside the data has it"
    Store(settings.store).job_record(job.id).unlink()
    with pytest.raises(UnknownJob):
        jobs.get(job.id)
    assert (jobs.state(job.id) is None) == ("state" in broken)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_that_json_cannot_hold_is_no_option(value: float) -> None:
    with pytest.raises(ValidationError):
        ReadOptions(sample_range=(0, value))
    with pytest.raises(ValidationError):
        ReadOptions(pixel_size_um=value)


def test_a_job_is_not_asked_for_by_another_key(jobs: JobStore) -> None:
    job = segmenting(jobs, 2)
    jobs.complete_region(job.id, 0, {})
    for ask in (jobs.get, jobs.cancel):
        with pytest.raises(UnknownJob):
            ask(f"{job.id}:regions")


@pytest.mark.parametrize("job_id", ["0" * 32, "../../etc/passwd", ""])
def test_a_job_that_is_not_there_is_unknown(jobs: JobStore, job_id: str) -> None:
    with pytest.raises(UnknownJob):
        jobs.get(job_id)
    with pytest.raises(UnknownJob):
        jobs.cancel(job_id)


def test_a_job_walks_through_its_stages(jobs: JobStore) -> None:
    job = submitted(jobs)
    assert jobs.start(job.id)
    jobs.note_ingest(job.id, 0.5)
    assert jobs.get(job.id).ingest_fraction == 0.5
    assert jobs.start_segment(job.id, INFO, 1024, 2)
    assert jobs.complete_region(job.id, 0, {0: 10, 255: 1})
    assert jobs.complete_region(job.id, 1, {255: 7}, skipped=True)
    assert jobs.succeed(job.id)
    done = jobs.get(job.id)
    assert (done.state, done.stage, done.image, done.region_px) == (State.SUCCEEDED, Stage.ASSEMBLE, INFO, 1024)
    assert (done.regions_total, done.regions_done, done.regions_skipped) == (2, 1, 1)
    assert done.areas_px == {0: 10, 255: 8}
    times = [done.created_at, done.started_at, done.segment_started_at, done.finished_at]
    assert None not in times and times == sorted(times)  # type: ignore[type-var]


def test_a_region_told_twice_counts_once(jobs: JobStore, connection: Connection) -> None:
    job = segmenting(jobs, 9)
    before = len(messages(connection, Stage.SEGMENT))
    for _ in range(3):
        assert jobs.complete_region(job.id, 2, {1: 100})
    now = jobs.get(job.id)
    assert (now.regions_done, now.areas_px) == (1, {1: 100})
    assert len(messages(connection, Stage.SEGMENT)) == before + 1


def test_only_a_window_of_a_job_is_in_the_queue(jobs: JobStore, connection: Connection, settings: Settings) -> None:
    total = 11
    job = segmenting(jobs, total)
    window = settings.inflight_regions
    assert [int(m["region"]) for m in messages(connection, Stage.SEGMENT)] == list(range(window))
    for index in range(total):
        fed = [int(m["region"]) for m in messages(connection, Stage.SEGMENT)]
        assert fed == list(range(min(total, window + index)))
        jobs.complete_region(job.id, index, {})


def test_the_last_region_hands_over_to_assemble_exactly_once(jobs: JobStore, connection: Connection) -> None:
    job = segmenting(jobs, 20)

    def complete_all() -> None:
        for index in range(20):
            jobs.complete_region(job.id, index, {0: 1})

    threads = [threading.Thread(target=complete_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert messages(connection, Stage.ASSEMBLE) == [{"job": job.id, "act": "assemble"}]
    assert jobs.get(job.id).areas_px == {0: 20}
    assert sorted(int(m["region"]) for m in messages(connection, Stage.SEGMENT)) == list(range(20))


def test_an_ingest_told_twice_resets_nothing(jobs: JobStore, connection: Connection) -> None:
    job = segmenting(jobs, 9)
    jobs.complete_region(job.id, 0, {0: 3})
    before, queued = jobs.get(job.id), messages(connection, Stage.SEGMENT)
    assert not jobs.start(job.id)
    assert not jobs.start_segment(job.id, INFO, 512, 77)
    jobs.note_ingest(job.id, 0.1)
    assert jobs.get(job.id) == before
    assert messages(connection, Stage.SEGMENT) == queued


@pytest.mark.parametrize("begin", [submitted, lambda jobs: segmenting(jobs, 3), assembling])
def test_a_job_is_cancelled_at_every_stage_and_stays_so(jobs: JobStore, connection: Connection, begin) -> None:  # type: ignore[no-untyped-def]
    job = begin(jobs)
    cancelled = jobs.cancel(job.id)
    assert cancelled.state == State.CANCELLED and cancelled.finished_at is not None
    assert not jobs.start(job.id)
    assert not jobs.start_segment(job.id, INFO, 512, 5)
    assert not jobs.complete_region(job.id, 1, {0: 1})
    assert not jobs.succeed(job.id)
    assert not jobs.fail(job.id, Problem(code="internal", detail="late"))
    assert jobs.get(job.id) == cancelled
    assert messages(connection, Stage.ASSEMBLE)[-1] == {"job": job.id, "act": "discard"}


def test_a_finished_job_cannot_be_cancelled(jobs: JobStore) -> None:
    job = assembling(jobs)
    jobs.succeed(job.id)
    with pytest.raises(Conflict, match="succeeded already"):
        jobs.cancel(job.id)
    assert jobs.get(job.id).state == State.SUCCEEDED


def test_a_job_succeeds_only_after_its_last_region(jobs: JobStore) -> None:
    job = segmenting(jobs, 2)
    assert not jobs.succeed(job.id)
    assert jobs.get(job.id).state == State.RUNNING


def test_a_failed_job_says_why_and_its_remains_are_discarded(jobs: JobStore, connection: Connection) -> None:
    job = segmenting(jobs, 2)
    problem = Problem(code="region_failed", detail="region 1 used up its 3 attempts", region=1)
    assert jobs.fail(job.id, problem)
    assert jobs.get(job.id).error == problem
    assert messages(connection, Stage.ASSEMBLE) == [{"job": job.id, "act": "discard"}]


def test_the_record_beside_the_data_follows_every_change_of_state(jobs: JobStore, settings: Settings) -> None:
    job = submitted(jobs)
    path = Store(settings.store).job_record(job.id)

    def told() -> tuple[State, Stage]:
        record = read_record(path)
        assert record is not None
        return record.state, record.stage

    seen = [told()]
    for step in (
        lambda: jobs.start(job.id),
        lambda: jobs.start_segment(job.id, INFO, 512, 1),
        lambda: jobs.complete_region(job.id, 0, {}),
        lambda: jobs.succeed(job.id),
    ):
        step()
        seen.append(told())
    running = State.RUNNING
    assert seen == [
        (State.QUEUED, Stage.INGEST), (running, Stage.INGEST), (running, Stage.SEGMENT), (running, Stage.ASSEMBLE),
        (State.SUCCEEDED, Stage.ASSEMBLE),
    ]  # fmt: skip
    assert [p.name for p in path.parent.iterdir()] == ["job.json"]


def test_losing_redis_loses_no_job(jobs: JobStore, connection: Connection) -> None:
    done, lost = assembling(jobs), segmenting(jobs, 9)
    jobs.succeed(done.id)
    finished = jobs.get(done.id)
    connection.call("FLUSHALL")
    assert jobs.get(done.id) == finished
    assert sorted(jobs.restore()) == sorted([done.id, lost.id])
    assert jobs.restore() == []
    assert jobs.get(done.id) == finished
    again = jobs.get(lost.id)
    assert (again.state, again.stage, again.regions_total) == (State.QUEUED, Stage.INGEST, 0)
    assert messages(connection, Stage.INGEST) == [{"job": lost.id, "act": "ingest"}]
    assert {job.id for job in jobs.list()} == {done.id, lost.id}


def test_one_job_ingests_an_image_and_the_others_are_queued_again_after_it(
    jobs: JobStore, connection: Connection
) -> None:
    image = new_id()
    first, second, third = (submitted(jobs, image).id for _ in range(3))
    assert jobs.take_image(first, image)
    assert not jobs.take_image(second, image)
    assert not jobs.take_image(third, image)
    assert jobs.take_image(first, image), "a redelivered ingest keeps its image"
    connection.call("DEL", keys.work(Stage.INGEST))
    jobs.release_image(second, image)
    assert messages(connection, Stage.INGEST) == [], "only the one that has it can let it go"
    jobs.release_image(first, image)
    jobs.release_image(first, image)
    assert {m["job"] for m in messages(connection, Stage.INGEST)} == {second, third}
    assert len(messages(connection, Stage.INGEST)) == 2
    assert jobs.take_image(second, image)


def test_a_record_survives_the_hash() -> None:
    from datetime import UTC, datetime

    job = Job(
        id=new_id(), image_id=new_id(), file_name="ü.tif", model="m", state=State.FAILED, stage=Stage.SEGMENT,
        created_at=datetime.now(UTC), started_at=datetime.now(UTC), image=INFO, region_px=512, regions_total=9,
        regions_done=3, regions_skipped=1, ingest_fraction=1.0, areas_px={0: 2**50, 255: 1},
        error=Problem(code="region_failed", detail="…", region=4), options=JobOptions(region_px=512),
    )  # fmt: skip
    assert from_hash({name: str(value) for name, value in to_hash(job).items()}) == job


def test_regions_are_told_apart_as_done_and_skipped_until_the_mask_tells_it(jobs: JobStore, settings: Settings) -> None:
    job = jobs.submit("a" * 32, "a.png", "m", JobOptions())
    with pytest.raises(Conflict, match="before its image has been read"):
        jobs.outcomes(job.id)
    jobs.start(job.id)
    selection = SelectionSummary(method="otsu", threshold=9, tissue_share=0.5, tiles_total=80, tiles_selected=7)
    jobs.start_segment(job.id, INFO, 512, 20, 1.5, selection)
    for index in (0, 7, 8, 19):
        jobs.complete_region(job.id, index, {1: 5}, skipped=index in (7, 19))
    rows, cols = -(-INFO.height // 512), -(-INFO.width // 512)
    expected = RegionOutcomes(512, (rows, cols), frozenset({0, 8}), frozenset({7, 19}), frozenset())
    assert jobs.outcomes(job.id) == expected
    assert (jobs.get(job.id).scale, jobs.get(job.id).selection) == (1.5, selection)
    jobs.fail(job.id, Problem(code="region_failed", detail="-", region=3))
    assert jobs.outcomes(job.id).failed == {3}


def test_the_areas_of_a_published_mask_replace_what_the_regions_counted(jobs: JobStore) -> None:
    job = jobs.submit("a" * 32, "a.png", "m", JobOptions(min_object_px=9))
    jobs.start(job.id)
    jobs.start_segment(job.id, INFO, 512, 1)
    jobs.complete_region(job.id, 0, {1: 5, 2: 7})
    assert jobs.succeed(job.id, {1: 12, 2: 0})
    assert jobs.get(job.id).areas_px == {1: 12, 2: 0}


def test_records_from_before_there_were_choices_are_read(jobs: JobStore, settings: Settings) -> None:
    job = jobs.submit("a" * 32, "a.png", "m", JobOptions(region_px=512))
    new = {"roi", "background", "resolution", "overlap", "min_object_px", "probabilities"}
    path = Store(settings.store).job_record(job.id)
    record = json.loads(path.read_text())
    old = {name: value for name, value in record.items() if name not in ("scale", "selection")}
    old["options"] = {name: value for name, value in record["options"].items() if name not in new}
    path.write_text(json.dumps(old))
    fixed = json.loads(jobs._connection.call("HGET", keys.job(job.id), "fixed"))
    jobs._connection.call("HSET", keys.job(job.id), "fixed", json.dumps(fixed | {"options": old["options"]}))
    jobs._connection.call("HDEL", keys.job(job.id), "scale")
    assert jobs.get(job.id) == job
    jobs._connection.call("DEL", keys.job(job.id))
    assert jobs.get(job.id) == job


def test_a_list_of_jobs_holds_no_large_region_of_interest(jobs: JobStore, connection: Connection) -> None:
    ring = [[5000 + 400 * math.cos(k / 16), 6000 + 300 * math.sin(k / 16)] for k in range(100)]
    large, small = (parse_roi({"type": "Polygon", "coordinates": [part]}) for part in (ring, ring[:50]))
    chosen = [jobs.submit(new_id(), "a.tif", "earth", JobOptions(roi=roi, min_object_px=7)) for roi in (small, large)]
    assert [jobs.get(job.id) for job in chosen] == chosen
    told_large, told_small = jobs.list()
    assert told_small == chosen[0]
    assert told_large.options.min_object_px == 7
    assert told_large.options.roi is not None
    assert told_large.options.roi.geometry.bounds == large.geometry.bounds
    assert len(told_large.model_dump_json()) < 1000
    assert view_job(chosen[1], None, "").options == told_large.options
    jobs.start(chosen[1].id)
    connection.call("FLUSHALL")
    jobs.restore()
    assert jobs.get(chosen[1].id).options.roi == large
