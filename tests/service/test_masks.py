"""Published results over HTTP: raw Zarr with ranges and validators, and the one-file download."""

from __future__ import annotations

import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from gigamask.errors import NotFound
from gigamask.job import Job, JobOptions, Problem
from gigamask.queue.job_store import JobStore
from gigamask.store import Store, new_id
from service.files import Span, parse_range
from service.masks import attachment, find_key
from tests.pictures import tree
from tests.service.conftest import MODEL, bare_app, client_of, publish_job

SHARD = f"labels/{MODEL}/0/c/0/0"


@pytest.fixture
def job(jobs: JobStore, store: Store) -> Job:
    return publish_job(jobs, store)


@pytest.fixture
def shard(job: Job, store: Store) -> bytes:
    return (store.mask_zarr(job.id) / SHARD).read_bytes()


def url(job: Job, key: str) -> str:
    return f"/jobs/{job.id}/mask.zarr/{key}"


async def test_every_file_of_the_result_is_served_as_it_is(client: httpx.AsyncClient, job: Job, store: Store) -> None:
    files = tree(store.mask_zarr(job.id))
    assert len(files) > 8
    for key, content in files.items():
        answer = await client.get(url(job, key), headers={"Accept-Encoding": "gzip, br"})
        assert (answer.status_code, answer.content) == (200, content)
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["Content-Length"] == str(len(content))
        json = key.endswith("zarr.json")
        assert answer.headers["Content-Type"] == ("application/json" if json else "application/octet-stream")


async def test_head_tells_what_get_would_send(client: httpx.AsyncClient, job: Job) -> None:
    got, told = await client.get(url(job, SHARD)), await client.head(url(job, SHARD))
    assert told.content == b""
    assert told.headers == got.headers
    ranged = await client.head(url(job, SHARD), headers={"Range": "bytes=0-3"})
    assert (ranged.status_code, ranged.headers["Content-Length"]) == (200, got.headers["Content-Length"])


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=5-20", slice(5, 21)),
        ("bytes=5-", slice(5, None)),
        ("bytes=-20", slice(-20, None)),
        ("bytes=-999999999", slice(None)),
        ("bytes=5-999999999", slice(5, None)),
    ],
)
async def test_a_range_is_those_bytes(
    client: httpx.AsyncClient, job: Job, shard: bytes, header: str, part: slice
) -> None:
    answer = await client.get(url(job, SHARD), headers={"Range": header})
    start, stop, _ = part.indices(len(shard))
    assert (answer.status_code, answer.content) == (206, shard[part])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(shard)}"
    assert answer.headers["Content-Length"] == str(stop - start)


async def test_a_range_outside_the_file_is_not_satisfiable(client: httpx.AsyncClient, job: Job, shard: bytes) -> None:
    for header in (f"bytes={len(shard)}-", "bytes=999999999-", "bytes=-0"):
        answer = await client.get(url(job, SHARD), headers={"Range": header})
        assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
        assert answer.headers["Content-Range"] == f"bytes */{len(shard)}"


@pytest.mark.parametrize(
    "header", ["bytes=", "bytes=-", "bytes=9-3", "bytes=a-b", "rows=0-3", "bytes=0-3,8-9", "bytes=" + "9" * 5000 + "-"]
)
def test_a_range_that_makes_no_sense_or_many_are_the_whole_file(header: str) -> None:
    assert parse_range(header, 100) is None


def test_an_empty_file_has_no_range() -> None:
    assert parse_range(None, 0) is None


def test_a_range_is_half_open_inside() -> None:
    assert parse_range("bytes=2-4", 100) == Span(2, 5)


async def test_a_large_span_is_streamed_whole(client: httpx.AsyncClient, job: Job, store: Store) -> None:
    content = bytes(range(256)) * 20_000
    (store.mask_zarr(job.id) / "big").write_bytes(content)
    assert (await client.get(url(job, "big"))).content == content
    answer = await client.get(url(job, "big"), headers={"Range": "bytes=7-4000000"})
    assert answer.content == content[7:4000001]
    assert answer.headers["Content-Length"] == str(4000001 - 7)


async def test_what_a_client_has_is_not_sent_again(client: httpx.AsyncClient, job: Job) -> None:
    etag = (await client.get(url(job, SHARD))).headers["ETag"]
    assert etag.startswith('"')
    for known in (etag, f'"other", {etag}', "*", f"W/{etag}"):
        answer = await client.get(url(job, SHARD), headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    assert (await client.get(url(job, SHARD), headers={"If-None-Match": '"other"'})).status_code == 200


async def test_a_range_of_another_version_is_the_whole_file(client: httpx.AsyncClient, job: Job) -> None:
    etag = (await client.get(url(job, SHARD))).headers["ETag"]
    for known, status in ((etag, 206), ('"other"', 200), (f"W/{etag}", 200)):
        headers = {"Range": "bytes=0-3", "If-Range": known}
        assert (await client.get(url(job, SHARD), headers=headers)).status_code == status


async def test_a_replaced_file_has_another_etag(client: httpx.AsyncClient, job: Job, store: Store) -> None:
    before = (await client.get(url(job, SHARD))).headers["ETag"]
    path = store.mask_zarr(job.id) / SHARD
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert (await client.get(url(job, SHARD))).headers["ETag"] != before


async def test_any_page_may_read_results_but_not_command(client: httpx.AsyncClient, job: Job) -> None:
    origin = {"Origin": "https://viewer.example"}
    answer = await client.get(url(job, SHARD), headers=origin | {"Range": "bytes=0-3"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    shown = answer.headers["Access-Control-Expose-Headers"]
    assert all(name in shown for name in ("Content-Range", "Content-Length", "ETag"))
    asks = {"Access-Control-Request-Headers": "range", "Access-Control-Request-Method": "GET"}
    assert (await client.options(url(job, SHARD), headers=origin | asks)).status_code == 200
    asks["Access-Control-Request-Method"] = "DELETE"
    assert (await client.options(f"/jobs/{job.id}", headers=origin | asks)).status_code == 400


ESCAPES = (
    "absent", "labels", "", f"labels/{MODEL}/0/c/9/9", "..", "../job.json", "labels/../../job.json", "./zarr.json",
    "/etc/passwd", "//etc/passwd", "zarr.json\0", "\0", "..\\job.json", "a" * 300, "a/" * 3000, "zarr.json/",
    "zarr.json/x", "labels//zarr.json", "link.json", "out/job.json", "out", "loop", "loop/x",
)  # fmt: skip


@pytest.fixture
def linked(job: Job, store: Store) -> Path:
    """The result with links out of it, to a file that is there."""
    root = store.mask_zarr(job.id)
    assert (root.parent / "job.json").is_file()
    for name, target in (("link.json", root.parent / "job.json"), ("out", root.parent), ("loop", Path("loop"))):
        (root / name).symlink_to(target)
    return root


@pytest.mark.parametrize("key", ESCAPES)
def test_no_key_leads_out_of_the_result(linked: Path, key: str) -> None:
    with pytest.raises(NotFound):
        find_key(linked, key)


async def test_no_url_leads_out_of_the_result(client: httpx.AsyncClient, job: Job, linked: Path) -> None:
    for key in ESCAPES:
        raw = "".join(f"%{byte:02x}" for byte in key.encode())
        answer = await client.get(httpx.URL("http://gigamask", raw_path=url(job, raw).encode()))
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), key


async def test_an_unpublished_mask_is_a_conflict_and_not_absent(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    job = jobs.submit(new_id(), "a.tif", MODEL, JobOptions())
    (store.job(job.id) / "mask.zarr.partial").mkdir()
    (store.job(job.id) / "mask.zarr.partial" / "zarr.json").touch()
    for state in ("queued", "failed"):
        for path in ("mask.zarr/zarr.json", "mask.ozx"):
            answer = await client.get(f"/jobs/{job.id}/{path}")
            assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
            assert state in answer.json()["detail"]
        jobs.fail(job.id, Problem(code="bad_image", detail="x"))


async def test_a_result_that_was_removed_is_told_so(client: httpx.AsyncClient, job: Job, store: Store) -> None:
    shutil.rmtree(store.mask_zarr(job.id))
    answer = await client.get(f"/jobs/{job.id}/mask.zarr/zarr.json")
    assert (answer.status_code, answer.json()["detail"]) == (409, "the job has succeeded; its result was removed since")


async def test_no_job_no_mask(client: httpx.AsyncClient, store: Store) -> None:
    for job_id in (new_id(), "..", "nonsense", "A" * 32):
        answer = await client.get(f"/jobs/{job_id}/mask.zarr/zarr.json", follow_redirects=False)
        assert answer.status_code == 404


async def test_published_keys_need_no_redis(job: Job, store: Store) -> None:
    app = bare_app()
    app.state.parts = replace(app.state.parts, store=store)
    async with client_of(app) as client:
        assert (await client.get(url(job, SHARD))).status_code == 200


async def test_the_one_file_download_holds_the_result(client: httpx.AsyncClient, job: Job, store: Store) -> None:
    answer = await client.get(f"/jobs/{job.id}/mask.ozx")
    assert answer.status_code == 200
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert 'filename="a slide-land.ozx"' in answer.headers["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist()[0] == "zarr.json"
        assert {i.filename: archive.read(i) for i in archive.infolist()} == tree(store.mask_zarr(job.id))
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
    told = await client.head(f"/jobs/{job.id}/mask.ozx")
    assert (told.content, told.headers["Content-Length"]) == (b"", answer.headers["Content-Length"])


def test_a_download_is_named_in_ascii_and_as_it_is() -> None:
    assert attachment('ä"\r\n.ozx') == "attachment; filename=\"____.ozx\"; filename*=UTF-8''%C3%A4%22%0D%0A.ozx"


def test_the_sample_job_has_absent_chunks(job: Job, store: Store) -> None:
    assert not (store.mask_zarr(job.id) / Path(f"labels/{MODEL}/0/c/2/0")).exists()
