"""Errors as clients see them: `application/problem+json` (RFC 9457), from one table.

    GigamaskError             its own status, code, title and message (see gigamask.errors)
    RequestValidationError    422 invalid_request, with where and what
    HTTPException             its status: 404 not_found, 405 method_not_allowed, 415 ..., 416 ...
    QueueUnavailable          503, and where Redis should be stands in the log alone
    ClientDisconnect          nobody is left to answer
    whatever else             500 internal and an id that stands in the log beside the traceback; nothing else

`code` is stable and for programs; `type` is a page that says what the code means.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from gigamask.errors import GigamaskError, NotFound, QueueUnavailable
from gigamask.store import new_id

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = {503: 5, 507: 60}
CODES = {404: "not_found", 405: "method_not_allowed", 415: "unsupported_media_type", 416: "range_not_satisfiable"}

log = logging.getLogger("gigamask.service")


class ProblemResponse(JSONResponse):
    media_type = MEDIA_TYPE


def problem(
    request: Request,
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Response:
    """A problem document; `more` are its extension members."""
    root = request.scope.get("root_path", "")
    body = {"type": f"{root}/problems/{code}", "title": title, "status": status, "detail": detail}
    body |= {"instance": request.url.path, "code": code} | more
    retry = {"Retry-After": str(RETRY_AFTER_S[status])} if status in RETRY_AFTER_S else {}
    return ProblemResponse(body, status, {"Cache-Control": "no-store"} | retry | (headers or {}))


def on_gigamask_error(request: Request, exc: GigamaskError) -> Response:
    return problem(request, exc.status, exc.code, exc.title, exc.message, **exc.members)


def on_validation_error(request: Request, exc: RequestValidationError) -> Response:
    errors = [{"where": ".".join(map(str, e["loc"])), "what": e["msg"]} for e in exc.errors()]
    detail = "; ".join(f"{e['where']}: {e['what']}" for e in errors)
    return problem(request, 422, "invalid_request", "The request is not valid", detail, errors=errors)


def on_http_exception(request: Request, exc: HTTPException) -> Response:
    phrase = HTTPStatus(exc.status_code).phrase
    code = CODES.get(exc.status_code, f"http_{exc.status_code}")
    if exc.status_code == 404 and exc.detail == phrase:
        exc.detail = "nothing is here; GET / lists what there is"
    return problem(request, exc.status_code, code, phrase, exc.detail, dict(exc.headers or {}))


def on_queue_unavailable(
    request: Request, exc: QueueUnavailable, detail: str = "Redis does not answer; try again", **more: Any
) -> Response:
    log.error("%s %s: %s", request.method, request.url.path, exc)
    return problem(request, exc.status, exc.code, exc.title, detail, **more)


def on_disconnect(_request: Request, _exc: ClientDisconnect) -> Response:
    return Response(status_code=400)


def on_unknown_error(request: Request, exc: Exception) -> Response:
    error_id = new_id()
    log.error("error %s at %s %s", error_id, request.method, request.url.path, exc_info=exc)
    detail = f"an unexpected error; the service's log has more under {error_id}"
    return problem(request, 500, "internal", GigamaskError.title, detail, error_id=error_id)


TABLE: dict[type[Exception], Callable[..., Response]] = {
    GigamaskError: on_gigamask_error,
    RequestValidationError: on_validation_error,
    HTTPException: on_http_exception,
    QueueUnavailable: on_queue_unavailable,
    ClientDisconnect: on_disconnect,
    Exception: on_unknown_error,
}


def install_problems(app: FastAPI) -> None:
    for kind, answer in TABLE.items():
        app.add_exception_handler(kind, answer)


def error_kinds(kind: type[GigamaskError] = GigamaskError) -> Iterator[type[GigamaskError]]:
    """Of the tree in gigamask.errors. What clients and commands add to it is never an answer of the service."""
    yield kind
    for narrower in kind.__subclasses__():
        if narrower.__module__ == GigamaskError.__module__:
            yield from error_kinds(narrower)


router = APIRouter(tags=["problems"])


@router.get("/problems/{code}", summary="What a problem's code means")
def explain(code: str) -> dict[str, str | int]:
    for kind in error_kinds():
        if kind.code == code:
            return {"code": code, "status": kind.status, "title": kind.title}
    raise NotFound(f"no problem has the code {code!r}")
