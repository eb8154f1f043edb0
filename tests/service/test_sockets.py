"""The service in its own process, behind a real socket: what ASGI alone cannot show."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store
from service.draining import LINGER_BYTES
from service.server import url_of
from tests.service.conftest import MODEL, Served, expected_labels, kept_files, publish_job, serving

MIB = 2**20
MODEL_PART = f'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\n{MODEL}\r\n'.encode()
FILE_HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.tif"\r\n\r\n'
END = b"\r\n--x--\r\n"


def eventually(what: Callable[[], object], within_s: float = 10) -> None:
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)


def head(length: int | None, *more: str) -> bytes:
    """A request's head; without a length the body is chunked."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = ["POST /segment HTTP/1.1", "Host: gigamask", "Content-Type: multipart/form-data; boundary=x", size, *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@contextlib.contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as link:
        yield link


def answer_of(link: socket.socket) -> tuple[int, dict[str, object]]:
    """Status and JSON body; reads no further than the body, so that a connection that stays open does not matter."""
    with link.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        lines = iter(lambda: stream.readline().strip(), b"")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        return status, json.loads(stream.read(int(fields[b"content-length"])))


def image_pieces(mib: int) -> Iterator[bytes]:
    yield MODEL_PART + FILE_HEAD
    block = os.urandom(MIB)
    for _ in range(mib):
        yield block
    yield END


def post_pieces(served: Served, pieces: Iterator[bytes]) -> httpx.Response:
    """Chunked, without a Content-Length."""
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    return httpx.post(f"{served.url}/segment", content=pieces, headers=headers, timeout=120)


# -- uploads


def test_an_upload_without_a_length_is_taken(served: Served) -> None:
    answer = post_pieces(served, image_pieces(3))
    assert answer.status_code == 202
    assert served.store.image_source(answer.json()["image_id"]).stat().st_size == 3 * MIB


def test_a_sender_that_goes_away_leaves_nothing(served: Served) -> None:
    with connected(served) as link:
        link.sendall(head(100 * MIB) + MODEL_PART + FILE_HEAD + b"a" * 5 * MIB)
        eventually(lambda: any(name.endswith("a.tif") for name in kept_files(served.store)))
    eventually(lambda: not kept_files(served.store))
    assert httpx.get(f"{served.url}/jobs").json()["jobs"] == []


def test_a_length_that_is_a_lie_leaves_nothing(served: Served) -> None:
    """More announced than sent, and then the sender only stops sending."""
    whole = MODEL_PART + FILE_HEAD + b"a" * 1000 + END
    with connected(served) as link:
        link.sendall(head(len(whole) + 5000) + whole)
        link.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            assert b"202" not in link.recv(100)
    eventually(lambda: not kept_files(served.store))
    assert httpx.get(f"{served.url}/jobs").json()["jobs"] == []


def test_an_unknown_model_is_refused_before_the_file_is_sent(served: Served) -> None:
    with connected(served) as link:
        link.sendall(head(10 * 2**30) + MODEL_PART.replace(MODEL.encode(), b"nobody") + FILE_HEAD)
        status, body = answer_of(link)
        assert (status, body["code"]) == (404, "unknown_model")
    assert not kept_files(served.store)


def test_five_gibibytes_over_the_limit_are_refused_before_the_body(settings: Settings, store: Store) -> None:
    with serving(settings, max_upload_bytes=2**30) as served, connected(served) as link:
        link.sendall(head(5 * 2**30, "Expect: 100-continue"))
        status, body = answer_of(link)
        assert (status, body["code"]) == (413, "upload_too_large")
        assert not kept_files(served.store)


def test_a_sender_that_will_not_stop_hears_why_and_is_then_cut_off(settings: Settings, store: Store) -> None:
    """Without draining, a reset would eat the answer; without an end to it, the sender would send all of it in vain."""
    with serving(settings, max_upload_bytes=MIB) as served:
        with connected(served) as link:
            link.sendall(head(100 * 2**30))
            for _ in range(3):  # it hears nothing before it has sent what it had at hand
                link.sendall(bytes(MIB))
                time.sleep(0.2)
            status, body = answer_of(link)
            assert (status, body["code"]) == (413, "upload_too_large")
            with pytest.raises(OSError):
                for _ in range(2 * LINGER_BYTES // MIB):
                    link.sendall(bytes(MIB))
        assert not kept_files(served.store)


def test_memory_does_not_grow_with_the_upload(served: Served) -> None:
    peaks = []
    for mib in (50, 300):
        answer = post_pieces(served, image_pieces(mib))
        assert answer.status_code == 202
        peaks.append(peak_rss(served.process))
    assert peaks[1] - peaks[0] < 25 * MIB
    assert peaks[1] < 150 * MIB


def test_memory_does_not_grow_with_readers_that_are_slow(served: Served, jobs: JobStore, store: Store) -> None:
    job = publish_job(jobs, store)
    large = store.mask_zarr(job.id) / "large"
    large.write_bytes(bytes(20 * MIB))
    httpx.get(f"{served.url}/jobs/{job.id}/mask.zarr/large")
    before = served.process.memory_info().rss
    with contextlib.ExitStack() as links:
        for _ in range(40):
            link = links.enter_context(connected(served))
            link.sendall(b"GET /jobs/%s/mask.zarr/large HTTP/1.1\r\nHost: g\r\n\r\n" % job.id.encode())
            assert link.recv(12) == b"HTTP/1.1 200"
        eventually(lambda: httpx.get(f"{served.url}/healthz").status_code == 200)
        assert served.process.memory_info().rss - before < 60 * MIB


def peak_rss(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_others_are_answered_while_an_upload_runs(served: Served) -> None:
    with connected(served) as link:
        link.sendall(head(100 * MIB) + MODEL_PART + FILE_HEAD + b"a" * MIB)
        assert httpx.get(f"{served.url}/readyz", timeout=5).status_code == 200


def test_a_full_disk_is_507_and_leaves_nothing(settings: Settings, store: Store) -> None:
    """A real one: the store is a tmpfs of 8 MiB that only the service sees."""
    wrap = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    if (
        not shutil.which("unshare")
        or subprocess.run([*wrap, "mount -t tmpfs none /mnt"], capture_output=True).returncode
    ):
        pytest.skip("no unprivileged mount namespaces here")
    store.root.mkdir(parents=True)
    mount = f'mount -t tmpfs -o size=8m none {store.root} && "$@"; exit $?'
    with serving(settings, wrap=(*wrap, mount, "sh"), min_free_bytes=0) as served:
        answer = post_pieces(served, image_pieces(20))
        assert (answer.status_code, answer.json()["code"]) == (507, "insufficient_storage")
        seen = Path(f"/proc/{served.process.pid}/root{store.root}")
        assert [path for path in seen.rglob("*") if path.is_file()] == []
        assert post_pieces(served, image_pieces(4)).status_code == 202


# -- heads


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nA: ", b"GET /", b"GET / HTTP/1.1\r\n"])
def test_a_head_without_end_is_cut_off(served: Served, sent: bytes) -> None:
    piece = b"a" * 65536 if sent[-1:] != b"\n" else b"A: b\r\n" * 10_000
    before = served.process.memory_info().rss
    with connected(served) as link, contextlib.suppress(OSError):
        link.sendall(sent)
        for _ in range(400):
            link.sendall(piece)
        pytest.fail("25 MiB of head were taken")
    assert served.process.memory_info().rss - before < 10 * MIB


def test_dots_in_a_raw_path_lead_nowhere(served: Served, jobs: JobStore, store: Store) -> None:
    job = publish_job(jobs, store)
    for path in (b"../job.json", b"%2e%2e/job.json", b"..%2fjob.json", b"/etc/passwd", b"zarr.json%00"):
        with connected(served) as link:
            link.sendall(b"GET /jobs/%s/mask.zarr/%s HTTP/1.1\r\nHost: g\r\n\r\n" % (job.id.encode(), path))
            status, body = answer_of(link)
            assert (status, body["code"]) == (404, "not_found")


# -- the process


def test_it_stops_when_told_and_takes_a_running_upload_along(settings: Settings, store: Store) -> None:
    with serving(settings) as served, connected(served) as link:
        link.sendall(head(100 * MIB) + MODEL_PART + FILE_HEAD + b"a" * 2 * MIB)
        eventually(lambda: kept_files(served.store))
        os.kill(served.process.pid, signal.SIGTERM)
        eventually(lambda: not kept_files(served.store), within_s=20)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (("127.0.0.1", 80), "http://127.0.0.1:80"),
        (("0.0.0.0", 8000), "http://127.0.0.1:8000"),
        (("::", 8000), "http://[::1]:8000"),
    ],
)
def test_the_url_told_is_one_that_can_be_opened(address: tuple[str, int], url: str) -> None:
    assert url_of(address) == url


def test_no_decoder_and_no_network_is_loaded() -> None:
    heavy = ("torch", "pyvips", "onnxruntime", "tensorstore", "tifffile", "rasterio", "shapely")
    code = f"import service.server, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- readers


def test_zarr_opens_the_url_of_a_mask(served: Served, jobs: JobStore, store: Store) -> None:
    """As a user would, through fsspec: whole shards, shard indices by suffix, absent chunks as no-data."""
    zarr = pytest.importorskip("zarr")
    pytest.importorskip("aiohttp", reason="fsspec reads HTTP with aiohttp")
    job = publish_job(jobs, store)
    root = zarr.open(f"{served.url}/jobs/{job.id}/mask.zarr", mode="r")
    mask = root[f"labels/{MODEL}/0"]
    labels = expected_labels()
    np.testing.assert_array_equal(mask[250:900, 150:650], labels[250:900, 150:650])
    np.testing.assert_array_equal(mask[:], labels)
    group = zarr.open_group(f"{served.url}/jobs/{job.id}/mask.zarr", mode="r")
    assert group[f"labels/{MODEL}/1"].shape == (550, 350)


def test_zarr_opens_the_url_of_a_mask_with_obstore(served: Served, jobs: JobStore, store: Store) -> None:
    zarr = pytest.importorskip("zarr")
    from obstore.store import HTTPStore
    from zarr.storage import ObjectStore

    job = publish_job(jobs, store)
    http = HTTPStore.from_url(f"{served.url}/jobs/{job.id}/mask.zarr", client_options={"allow_http": True})
    mask = zarr.open_group(ObjectStore(http, read_only=True), mode="r")[f"labels/{MODEL}/0"]
    np.testing.assert_array_equal(mask[250:, 150:650], expected_labels()[250:, 150:650])


def test_tensorstore_opens_the_url_of_a_mask(served: Served, jobs: JobStore, store: Store) -> None:
    import tensorstore as ts

    job = publish_job(jobs, store)
    base = f"{served.url}/jobs/{job.id}/mask.zarr/labels/{MODEL}/0/"
    mask = ts.open({"driver": "zarr3", "kvstore": base}, read=True, open=True).result()
    np.testing.assert_array_equal(mask[250:, 150:650].read().result(), expected_labels()[250:, 150:650])
