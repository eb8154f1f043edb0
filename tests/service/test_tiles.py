"""Tiles of image and mask over HTTP: every one is exactly the pixels or the labels that it stands for."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from functools import partial

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Request, Response

from gigamask.errors import Busy
from gigamask.geometry import level_shape
from gigamask.job import Job, JobOptions, Problem
from gigamask.manifest import ModelShelf
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store, new_id
from service import drawing as module_of_drawing
from service.app import create_app
from service.drawing import Drawing, Picture
from tests.service.conftest import MODEL, client_of
from tests.service.looking import SHAPE, colors_of, labels_of, level_of, picture, pixels_of, published_job, run_job

LAST = 11  # ceil(log2(1800))


@pytest.fixture
def job(jobs: JobStore, store: Store) -> Job:
    return published_job(jobs, store)


async def joined(client: httpx.AsyncClient, job: Job, layer: str, level: int, fmt: str, query: str = "") -> np.ndarray:
    """A whole DZI level from its tiles, (h, w, 4)."""
    height, width = level_shape(SHAPE, LAST - level)
    whole = np.zeros((height, width, 4), np.uint8)
    for row in range(-(-height // 256)):
        for col in range(-(-width // 256)):
            answer = await client.get(f"/jobs/{job.id}/{layer}_files/{level}/{col}_{row}.{fmt}{query}")
            tile = np.asarray(picture(answer).convert("RGBA"))
            part = whole[row * 256 : (row + 1) * 256, col * 256 : (col + 1) * 256]
            assert tile.shape == part.shape
            part[:] = tile
    return whole


async def test_the_tiles_of_a_level_join_to_the_whole_mask(client: httpx.AsyncClient, job: Job) -> None:
    for level in range(LAST + 1):
        expected = colors_of(level_of(labels_of(), LAST - level))
        for fmt in ("png", "webp"):
            np.testing.assert_array_equal(await joined(client, job, "mask", level, fmt), expected, f"{level} {fmt}")


async def test_the_tiles_of_a_level_join_to_the_whole_image(client: httpx.AsyncClient, job: Job) -> None:
    for level in range(LAST + 1):
        expected = level_of(pixels_of(), LAST - level).transpose(1, 2, 0)
        tiles = await joined(client, job, "image", level, "png")
        np.testing.assert_array_equal(tiles[..., :3], expected, str(level))
        assert (tiles[..., 3] == 255).all()


async def test_a_mask_tile_is_a_small_palette_picture(client: httpx.AsyncClient, job: Job) -> None:
    answer = await client.get(f"/jobs/{job.id}/mask_files/{LAST}/0_0.png")
    tile = picture(answer)
    assert tile.mode == "P"
    assert answer.headers["Content-Type"] == "image/png"
    assert len(answer.content) < 256 * 256 / 8


async def test_the_class_of_a_pixel(client: httpx.AsyncClient, job: Job) -> None:
    labels = labels_of()
    for y, x in ((0, 0), (1299, 1799), (700, 900), (701, 905)):
        told = (await client.get(f"/jobs/{job.id}/label?x={x}&y={y}")).json()
        names = {0: ("sea", "#0000ff"), 1: ("land", "#00ff00"), 255: ("no data", None)}
        label = int(labels[y, x])
        assert told == {"label": label, "name": names[label][0], "color": names[label][1]}


async def test_an_xyz_tile_is_a_square_with_nothing_beyond_the_image(client: httpx.AsyncClient, job: Job) -> None:
    whole = colors_of(level_of(labels_of(), 2))  # 325 x 450
    tile = np.asarray(picture(await client.get(f"/jobs/{job.id}/tiles/mask/1/1/1.png")).convert("RGBA"))
    expected = np.zeros((256, 256, 4), np.uint8)
    expected[:69, :194] = whole[256:, 256:]
    np.testing.assert_array_equal(tile, expected)
    image = np.asarray(picture(await client.get(f"/jobs/{job.id}/tiles/image/1/1/1.webp")).convert("RGBA"))
    assert (image[69:, :, 3] == 0).all() and (image[:69, :194, 3] == 255).all()
    corner = np.asarray(picture(await client.get(f"/jobs/{job.id}/tiles/image/1/1/1.jpg")))
    assert (corner[80:] > 235).all()


async def test_colours_and_hidden_classes_are_the_viewers(client: httpx.AsyncClient, job: Job) -> None:
    query = "?colors=0:ff8800,1:%2300ff01&hide=1"
    tiles = await joined(client, job, "mask", LAST, "png", query)
    labels = labels_of()
    assert (tiles[labels == 0] == (255, 136, 0, 255)).all()
    assert (tiles[labels != 0][..., 3] == 0).all()


async def test_where_the_image_has_no_data_png_and_webp_are_transparent_and_jpeg_is_white(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    job = published_job(jobs, store, channels=4)
    for fmt in ("png", "webp"):
        tile = np.asarray(picture(await client.get(f"/jobs/{job.id}/image_files/{LAST}/0_0.{fmt}")))
        np.testing.assert_array_equal(tile[..., 3], np.where(labels_of()[:256, :256] == 255, 0, 255))
    tile = np.asarray(picture(await client.get(f"/jobs/{job.id}/image_files/{LAST}/0_0.jpg")))
    assert tile.shape == (256, 256, 3)
    assert (tile[:100, :150] > 250).all()


async def test_each_job_shows_its_own(client: httpx.AsyncClient, job: Job, jobs: JobStore, store: Store) -> None:
    other = published_job(jobs, store, labels=1 - labels_of() % 2)
    tiles = [await client.get(f"/jobs/{j.id}/mask_files/{LAST}/4_3.png") for j in (job, other)]
    first, second = (np.asarray(picture(tile).convert("RGBA")) for tile in tiles)
    assert (first[..., 1] != second[..., 1]).all()


# -- while the job runs


async def test_the_image_is_there_as_soon_as_it_has_been_read(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    running = run_job(jobs, store)
    before = await client.get(f"/jobs/{running.job.id}/image_files/{LAST}/3_2.png")
    assert before.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    np.testing.assert_array_equal(
        np.asarray(picture(before)), pixels_of()[:, 512:768, 768:1024].transpose(1, 2, 0)
    )  # fmt: skip
    running.write(range(running.plan.region_count))
    running.publish()
    after = await client.get(f"/jobs/{running.job.id}/image_files/{LAST}/3_2.png")
    assert (after.content, after.headers["ETag"]) == (before.content, before.headers["ETag"])


async def test_regions_appear_in_the_mask_as_they_finish(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    running = run_job(jobs, store)
    expected = np.full(SHAPE, 255, np.uint8)
    for index in (0, 5, 7):
        running.write([index])
        box = running.plan.region(index).box
        expected[box.slices] = labels_of()[box.slices]
        for level in (LAST, LAST - 2, LAST - 5):
            shown = await joined(client, running.job, "mask", level, "png")
            np.testing.assert_array_equal(shown, colors_of(level_of(expected, LAST - level)), f"{index} {level}")


async def test_a_mask_that_is_being_made_is_not_kept_and_the_final_one_is(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    running = run_job(jobs, store)
    url = f"/jobs/{running.job.id}/mask_files/{LAST}/1_1.png"
    live = await client.get(url, headers={"If-None-Match": "*"})
    assert (live.status_code, live.headers["Cache-Control"]) == (200, "no-store")
    assert "ETag" not in live.headers
    assert (await client.get(f"/jobs/{running.job.id}/mask.dzi")).headers["Cache-Control"] == "no-store"
    assert (np.asarray(picture(live).convert("RGBA"))[..., 3] == 0).all()
    running.write(range(running.plan.region_count))
    running.publish()
    final = await client.get(url)
    assert final.headers["ETag"]
    np.testing.assert_array_equal(
        np.asarray(picture(final).convert("RGBA")), colors_of(labels_of()[256:512, 256:512])
    )  # fmt: skip


async def test_a_mask_published_while_it_is_looked_at_is_never_empty(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    """Its files move under the reader: a chunk that has gone would read as no data."""
    running = run_job(jobs, store)
    running.write(range(running.plan.region_count))
    expected = colors_of(labels_of()[256:512, 256:512])
    url = f"/jobs/{running.job.id}/mask_files/{LAST}/1_1.png?v="
    publishing = threading.Thread(target=running.publish)
    publishing.start()
    number = 0
    while publishing.is_alive() or number < 3:
        answer = await client.get(f"{url}{number}")
        np.testing.assert_array_equal(np.asarray(picture(answer).convert("RGBA")), expected)
        number += not publishing.is_alive()
    publishing.join()


async def test_before_there_is_anything_to_see_the_answer_is_a_conflict(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    job = jobs.submit(new_id(), "a.tif", MODEL, JobOptions())
    paths = ("image.dzi", "mask.dzi", "image_files/0/0_0.jpg", "mask_files/0/0_0.png", "tiles/mask/0/0/0.png")
    for path in (*paths, "label?x=0&y=0", "iiif/image/info.json", "iiif/mask/full/max/0/default.png"):
        answer = await client.get(f"/jobs/{job.id}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict"), path


async def test_of_a_failed_job_the_image_can_be_looked_at_and_the_mask_cannot(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    running = run_job(jobs, store)
    jobs.fail(running.job.id, Problem(code="region_failed", detail="x", region=1))
    assert (await client.get(f"/jobs/{running.job.id}/image_files/0/0_0.jpg")).status_code == 200
    answer = await client.get(f"/jobs/{running.job.id}/mask_files/0/0_0.png")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "failed" in answer.json()["detail"]


async def test_what_is_published_asks_no_redis(settings: Settings, job: Job, store: Store) -> None:
    nowhere = settings.model_copy(update={"redis_url": "unix:///absent/redis.sock"})
    app = create_app(nowhere, store, JobStore(Connection(nowhere.redis_url), store, nowhere), ModelShelf(()))
    async with client_of(app) as client:
        for path in ("mask.dzi", "mask_files/0/0_0.png", "image_files/0/0_0.jpg", "label?x=9&y=9"):
            assert (await client.get(f"/jobs/{job.id}/{path}")).status_code == 200, path


# -- what is kept


async def test_every_look_has_an_etag_of_its_own_that_saves_the_second_answer(
    client: httpx.AsyncClient, job: Job
) -> None:
    place = f"/jobs/{job.id}/mask_files/{LAST}/1_1"
    urls = [f"{place}.png", f"{place}.webp", f"{place}.png?hide=1", f"{place}.png?colors=0:ff0000"]
    urls += [f"/jobs/{job.id}/mask_files/{LAST}/1_2.png", f"/jobs/{job.id}/image_files/{LAST}/1_1.png"]
    answers = [await client.get(url) for url in urls]
    assert len({answer.headers["ETag"] for answer in answers}) == len(urls)
    for url, answer in zip(urls, answers, strict=True):
        tag = answer.headers["ETag"]
        assert not tag.startswith("W/")
        again = await client.get(url, headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
        assert (await client.get(url, headers={"If-None-Match": '"other"'})).content == answer.content
        assert (await client.get(url, headers={"If-None-Match": "*"})).status_code == 304


async def test_head_tells_what_get_would_send(client: httpx.AsyncClient, job: Job) -> None:
    paths = ("mask.dzi", f"mask_files/{LAST}/1_1.png", "tiles/image/0/0/0.jpg", "iiif/image/full/100,/0/default.jpg")
    for path in paths:
        got, told = await client.get(f"/jobs/{job.id}/{path}"), await client.head(f"/jobs/{job.id}/{path}")
        assert (told.status_code, told.content) == (200, b"")
        if path != "mask.dzi":
            assert told.headers == got.headers


async def test_what_many_want_at_once_is_drawn_once(
    client: httpx.AsyncClient, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    import service.tiles as module

    drawn, draw = [], module.encode

    def counted(*words: object) -> bytes:
        drawn.append(words)
        return draw(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "encode", counted)
    url = f"/jobs/{job.id}/image_files/{LAST}/2_2.jpg"
    answers = await asyncio.gather(*(client.get(url) for _ in range(20)))
    assert {answer.content for answer in answers} == {answers[0].content}
    assert (await client.get(url)).content == answers[0].content
    assert len(drawn) == 1


async def test_what_is_kept_stays_within_the_setting(
    settings: Settings, jobs: JobStore, job: Job, store: Store
) -> None:
    small = settings.model_copy(update={"tile_cache_bytes": 40_000})
    app = create_app(small, store, jobs, ModelShelf(settings.models))
    drawing: Drawing = app.state.tiles.drawing
    async with client_of(app) as client:
        for col in range(8):
            for row in range(6):
                assert (await client.get(f"/jobs/{job.id}/image_files/{LAST}/{col}_{row}.jpg")).status_code == 200
                assert drawing.kept_bytes <= 40_000
    assert drawing.kept_bytes > 20_000


async def test_what_is_kept_weighs_the_same_however_long_its_words_are() -> None:
    """The same tile may be asked for with kilobytes of colours, in thousands of ways."""
    drawing = Drawing(2**20, threads=1)
    request = Request({"type": "http", "method": "GET", "headers": []})
    tracemalloc.start()
    try:
        for number in range(300):
            await drawing.answer(request, ("mask", "1," * 4000 + str(number)), lambda: Picture(b"", "image/png"))
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 2 * drawing.kept_bytes


@pytest.mark.parametrize("large", [False, True])
async def test_pictures_that_wait_are_bounded(
    client: httpx.AsyncClient, app: FastAPI, job: Job, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr(module_of_drawing, "MOST_WAITING", {False: 3, True: 3})
    go_on, drawing = threading.Event(), app.state.tiles.drawing
    request = Request({"type": "http", "method": "GET", "headers": []})

    def draw() -> Picture:
        go_on.wait(10)
        return Picture(b"", "image/png")

    waiting = [asyncio.create_task(drawing.answer(request, key, draw, large)) for key in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await drawing.answer(request, "another", draw, large)
    same = asyncio.create_task(drawing.answer(request, 1, draw, large))
    go_on.set()
    assert [answer.status_code for answer in await asyncio.gather(*waiting, same)] == [200] * 4
    assert (await drawing.answer(request, "another", draw, large)).status_code == 200


async def test_what_nobody_began_to_draw_does_not_keep_the_process() -> None:
    """Python ends once every thread has done all that it was given."""
    drawing, go_on, drawn = Drawing(0, threads=1), threading.Event(), list[int]()
    request = Request({"type": "http", "method": "GET", "headers": []})

    def draw(number: int) -> Picture:
        go_on.wait(10)
        drawn.append(number)
        return Picture(b"", "image/png")

    asked = [asyncio.create_task(drawing.answer(request, n, partial(draw, n))) for n in range(5)]
    await asyncio.sleep(0.05)
    drawing.close()
    go_on.set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert [isinstance(answer, Response) for answer in found] == [True, False, False, False, False]
    assert drawn == [0]


# -- what makes no sense


NOTHING = [
    "image_files/-1/0_0.jpg", "image_files/12/0_0.jpg", "image_files/11/-1_0.jpg", "image_files/11/0_6.jpg",
    "image_files/11/99999999999999999999_0.jpg", "image_files/1e1/0_0.jpg", "image_files/11/0_0.gif",
    "image_files/11/0_0.", "image_files/11/0_0", "image_files/11/0.jpg", "image_files/11/0_0_0.jpg",
    "image_files/11/0_0.jpg/x", "image_files/%2e%2e/0_0.jpg", "image_files/..%2f..%2fjob.json",
    "image_files/11/%00_0.jpg", "labels_files/11/0_0.png", "x.dzi", "..%2fimage.dzi", "image.dzi/",
    "image.dzi?format=gif", "_files/0/0_0.png", "tiles/image/4/0/0.jpg", "tiles/image/-1/0/0.jpg",
    "tiles/image/0/1/0.jpg", "tiles/other/0/0/0.jpg", "tiles/image/0/0/0.bmp", "tiles/image/0/0", "label?x=1800&y=0",
    "label?x=-1&y=0", "label?x=0&y=1300", "label?x=99999999999999999999&y=0", "iiif/other/info.json",
    "iiif/other/full/max/0/default.jpg",
]  # fmt: skip
BAD = [
    "iiif/image/full/max/0/gray.jpg", "iiif/image/full/max/0/default.tif", "iiif/image/full/max/90/default.jpg",
    "iiif/image/full/9999,/0/default.jpg", "iiif/image/9,9/max/0/default.jpg", "iiif/mask/pct:1,1,1,1/max/0/color.png",
    "iiif/image/1800,0,1,1/max/0/default.jpg", "iiif/image/full/%2e%2e/0/default.jpg",
]  # fmt: skip
INVALID = [
    "mask_files/11/0_0.png?colors=0", "mask_files/11/0_0.png?colors=7:ff0000", "mask_files/11/0_0.png?colors=0:zz0000",
    "mask_files/11/0_0.png?hide=a", "mask_files/11/0_0.png?hide=-1", "mask_files/11/0_0.png?hide=256",
    "mask_files/11/0_0.png?hide=" + "1," * 9000, "label?x=a&y=0", "label",
]  # fmt: skip


@pytest.mark.parametrize(("paths", "status"), [(NOTHING, 404), (BAD, 400), (INVALID, 422)], ids=["404", "400", "422"])
async def test_hostile_words_are_answered_as_problems(
    client: httpx.AsyncClient, job: Job, paths: list[str], status: int
) -> None:
    for path in paths:
        answer = await client.get(f"/jobs/{job.id}/{path}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), path
        assert len(answer.content) < 3000, path


async def test_no_job_no_tile(client: httpx.AsyncClient, store: Store) -> None:
    for job_id in (new_id(), "nonsense", "A" * 32, "%2e%2e"):
        for path in ("image.dzi", "mask_files/0/0_0.png", "label?x=0&y=0", "iiif/image/info.json"):
            answer = await client.get(f"/jobs/{job_id}/{path}")
            assert answer.status_code == 404, (job_id, path)


# -- IIIF


async def test_iiif_leads_from_the_image_to_its_tiles(client: httpx.AsyncClient, job: Job) -> None:
    base = await client.get(f"/jobs/{job.id}/iiif/mask")
    assert (base.status_code, base.headers["Location"]) == (303, f"/jobs/{job.id}/iiif/mask/info.json")
    answer = await client.get(base.headers["Location"])
    told = answer.json()
    assert answer.headers["Content-Type"] == "application/json"
    assert told["id"] == f"http://gigamask/jobs/{job.id}/iiif/mask"
    labels = level_of(labels_of(), 1)
    tile = await client.get(f"{told['id']}/1024,0,776,1024/388,512/0/default.png")
    np.testing.assert_array_equal(np.asarray(picture(tile).convert("RGBA")), colors_of(labels[:512, 512:]))
    hostile = await client.get("/jobs/a%0d%0aX-Evil:%201/iiif/%E2%82%AC", follow_redirects=False)
    assert hostile.headers["Location"] == "/jobs/a%0D%0AX-Evil%3A%201/iiif/%E2%82%AC/info.json"
    linked = await client.get(base.headers["Location"], headers={"Accept": "application/ld+json"})
    assert linked.headers["Content-Type"].startswith('application/ld+json;profile="http://iiif.io/api/image/3/')


async def test_iiif_sizes_are_as_they_were_asked_for(client: httpx.AsyncClient, job: Job) -> None:
    for size, expected in (("max", (1800, 1300)), ("90,", (90, 65)), (",130", (180, 130)), ("77,33", (77, 33))):
        for fmt in ("jpg", "png", "webp"):
            answer = await client.get(f"/jobs/{job.id}/iiif/image/full/{size}/0/color.{fmt}")
            assert picture(answer).size == expected


async def test_a_mask_is_there_as_soon_as_its_job_says_so(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    """What was seen of the job a moment before does not count against it."""
    job = jobs.submit(new_id(), "a slide.tif", MODEL, JobOptions())
    early = await client.get(f"/jobs/{job.id}/mask_files/{LAST}/0_0.png")
    running = run_job(jobs, store, job=job)
    begun = await client.get(f"/jobs/{job.id}/mask_files/{LAST}/0_0.png")
    running.write(range(running.plan.region_count))
    running.publish()
    published = await client.get(f"/jobs/{job.id}/mask_files/{LAST}/0_0.png")
    assert [answer.status_code for answer in (early, begun, published)] == [409, 200, 200]
