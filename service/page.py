"""`/` and `/page/...`: the page, static files as they lie in service/page/, under a strict content security policy.

Nothing is built: the browser loads ES modules. A vendored library's folder carries its version, so it is cached for
good; the page's own files are asked for again each time and answered with 304.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse

from gigamask.errors import NotFound
from service.files import send_file
from service.parts import RootPath
from service.schemas import ProblemView

FOLDER = Path(__file__).resolve().parent / "page"
VENDOR = "vendor"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
PLAIN = "text/plain; charset=utf-8"  # licences

# Scripts, styles and connections from here alone, and no inline ones; blob: is what a tile's picture may be.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
GUARDS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FOR_GOOD = {"Cache-Control": "public, max-age=31536000, immutable"}
ASK_AGAIN = {"Cache-Control": "no-cache"}

router = APIRouter(tags=["page"])

INDEX_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {}, "application/json": {}}, "description": "The page, or the links as JSON."}
}
FILE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/javascript": {}, "text/css": {}, "image/svg+xml": {}}, "description": "The file."},
    304: {"description": "Not changed (If-None-Match)."},
    404: {"model": ProblemView, "description": "The page has no such file."},
}


@router.head("/", include_in_schema=False)
@router.get("/", summary="The page for people, links for programs", response_class=Response, responses=INDEX_ANSWERS)
def read_index(request: Request, root_path: RootPath, accept: Annotated[str, Header()] = "") -> Response:
    """HTML for whoever accepts `text/html`, as browsers say; for all others JSON that leads on."""
    if accepts_html(accept):
        headers = GUARDS | ASK_AGAIN | {"Vary": "Accept"}
        return send_file(request, FOLDER / "index.html", headers, MEDIA_TYPES[".html"])
    names = {"segment": "segment", "jobs": "jobs", "models": "models", "health": "readyz", "docs": "docs"}
    names["openapi"] = "openapi.json"
    links = {name: f"{root_path}/{path}" for name, path in names.items()}
    return JSONResponse({"name": "Gigamask"} | links, headers={"Vary": "Accept"})


@router.head("/page/{path:path}", include_in_schema=False)
@router.get("/page/{path:path}", summary="A file of the page", response_class=Response, responses=FILE_ANSWERS)
def read_page_file(path: str, request: Request) -> Response:
    """Scripts, styles and the vendored libraries with their licences."""
    found = find_file(path)
    headers = GUARDS | (FOR_GOOD if PurePosixPath(path).parts[0] == VENDOR else ASK_AGAIN)
    return send_file(request, found, headers, MEDIA_TYPES.get(found.suffix, PLAIN))


def accepts_html(accept: str) -> bool:
    """Whether `text/html` stands in an Accept header, not refused by `q=0` (RFC 9110, 12.5.1). `*/*` is a program's."""
    for entry in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        if kind == "text/html":
            return not any(p.removeprefix("q=") in ("0", "0.0", "0.00", "0.000") for p in parameters)
    return False


def find_file(path: str) -> Path:
    """A file inside the page's folder. Raises NotFound."""
    names = path.split("/")
    if all(name not in ("", ".", "..") and "\0" not in name and "\\" not in name for name in names):
        found = FOLDER.joinpath(*names)
        try:
            if found.is_file():
                return found
        except OSError:  # a name too long
            pass
    raise NotFound(f"the page has no file {path!r}")
