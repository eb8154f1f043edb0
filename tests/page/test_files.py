"""How the page is served: to people, to programs, under a policy, and out of caches that know its versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import httpx
import pytest

from service.page import FOLDER, accepts_html
from tests.e2e.conftest import Service

VENDORED = ("openseadragon-6.1.1/openseadragon.min.js", "tus-js-client-4.3.1/tus.min.js")
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


Get = Callable[..., httpx.Response]


@pytest.fixture
def get(service: Service) -> Iterator[Get]:
    with httpx.Client(base_url=service.url) as client:
        yield lambda path, headers=None: client.get(path, headers=headers)


def test_people_get_the_page_and_programs_the_links(get: Get) -> None:
    page, links = get("/", BROWSER), get("/", {"Accept": "*/*"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>Gigamask</title>" in page.text
    assert links.json()["jobs"] == "/jobs"
    assert "Accept" in page.headers["vary"] and "Accept" in links.headers["vary"]


@pytest.mark.parametrize(
    ("accept", "html"),
    [("text/html", True), ("application/json", False), ("*/*", False), ("", False), ("text/html;q=0, */*", False)],
)
def test_who_accepts_html(accept: str, html: bool) -> None:
    assert accepts_html(accept) is html


def test_nothing_inline_and_no_other_host_is_allowed(get: Get) -> None:
    for path, headers in (("/", BROWSER), ("/page/app.js", {}), (f"/page/vendor/{VENDORED[0]}", {})):
        answer = get(path, headers)
        policy = answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in policy and "script-src 'self'" in policy
        assert "unsafe" not in policy and "http" not in policy and "*" not in policy


def test_a_library_is_kept_for_good_and_our_own_files_are_asked_for_again(get: Get) -> None:
    library, own = get(f"/page/vendor/{VENDORED[0]}"), get("/page/app.js")
    assert "immutable" in library.headers["cache-control"]
    assert own.headers["cache-control"] == "no-cache"
    again = get("/page/app.js", {"If-None-Match": own.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path", ["", "absent.js", "..%2Fpage.py", "vendor/..%2F..%2Fapp.py", "vendor", "a%00b", "x" * 999]
)
def test_nothing_but_the_pages_own_files_is_served(get: Get, path: str) -> None:
    answer = get(f"/page/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_libraries_are_here_with_their_licences_and_without_source_maps() -> None:
    for path in VENDORED:
        folder = (FOLDER / "vendor" / path).parent
        assert (folder / path.split("/")[1]).is_file()
        assert any(entry.name.startswith("LICENSE") for entry in folder.iterdir())
    assert not list(FOLDER.rglob("*.map"))


def test_text_reaches_the_document_as_text_alone() -> None:
    for path in FOLDER.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", path.read_text()), path


def test_every_module_and_style_that_is_named_is_there() -> None:
    named = re.findall(r'(?:src|href)="page/([^"]+)"', (FOLDER / "index.html").read_text())
    for path in FOLDER.glob("*.js"):
        named += re.findall(r'from "\./([^"]+)"', path.read_text())
    assert len(named) > 30
    for name in named:
        assert (FOLDER / name).is_file(), name
    unused = {path.name for path in FOLDER.glob("*.*")} - set(named) - {"index.html"}
    assert not unused
