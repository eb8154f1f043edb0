"""Resumable uploads by a client that nobody here wrote (tuspy), through a proxy that cuts its connections."""

from __future__ import annotations

import contextlib
import hashlib
import random
from pathlib import Path

import httpx
import pytest

from tests.cutting_proxy import cutting
from tests.service.conftest import MODEL, Served

tusclient = pytest.importorskip("tusclient.client")
tusclient_errors = pytest.importorskip("tusclient.exceptions")
SIZE = 4_000_003


def write_noise(path: Path, size: int = SIZE) -> str:
    """-> its sha256."""
    content = random.Random(size).randbytes(size)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def taken(served: Served, url: str) -> str:
    """The sha256 of what the service made of an upload."""
    asked = {"upload": url.rsplit("/", 1)[1], "model": MODEL}
    job = httpx.post(f"{served.url}/segment", json=asked, timeout=30).raise_for_status().json()
    return hashlib.sha256(served.store.image_source(job["image_id"]).read_bytes()).hexdigest()


@pytest.mark.parametrize("checked", [False, True], ids=["plain", "with checksums"])
def test_tuspy_uploads(served: Served, tmp_path: Path, checked: bool) -> None:
    sha256 = write_noise(tmp_path / "a.tif")
    client = tusclient.TusClient(f"{served.url}/uploads")
    with (tmp_path / "a.tif").open("rb") as stream:
        uploader = client.uploader(file_stream=stream, chunk_size=700_000, upload_checksum=checked)
        uploader.upload()
    assert taken(served, uploader.url) == sha256


def test_tuspy_goes_on_after_connections_that_were_cut(served: Served, tmp_path: Path) -> None:
    sha256, random_ = write_noise(tmp_path / "a.tif"), random.Random(1)
    cuts = (random_.randrange(300, 900_000) for _ in range(12))
    upload = httpx.post(f"{served.url}/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": str(SIZE)})
    with cutting(served.port, cuts) as proxy, (tmp_path / "a.tif").open("rb") as stream:
        url, uploaded = proxy.url + upload.headers["Location"], False
        client = tusclient.TusClient(f"{proxy.url}/uploads")
        while not uploaded:
            with contextlib.suppress(tusclient_errors.TusCommunicationError, tusclient_errors.TusUploadFailed):
                client.uploader(file_stream=stream, url=url, chunk_size=2**20, retries=3, retry_delay=0).upload()
                uploaded = True
        assert proxy.cut >= 4
    assert taken(served, served.url + upload.headers["Location"]) == sha256
