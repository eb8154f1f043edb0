"""`/healthz`: the process answers. `/readyz`: it can also do its work."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from gigamask.errors import GigamaskError
from service.parts import Parts, PartsDep

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Whether the process lives")
async def live() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz", summary="Whether Redis answers and the store can be written", responses={503: {}})
def ready(parts: PartsDep) -> Response:
    """200 with every part `ok`, else 503 that says which part is not."""
    checks = {"queue": _check(lambda: parts.jobs.ping()), "store": _check(lambda: write_probe(parts))}
    well = all(state == "ok" for state in checks.values())
    body = {"status": "ok" if well else "unavailable", "checks": checks}
    return JSONResponse(body, 200 if well else 503, {"Cache-Control": "no-store"})


def write_probe(parts: Parts) -> None:
    """Raises OSError, or InsufficientStorage where no upload could be taken."""
    parts.store.require_free(0, parts.settings.min_free_bytes)
    with tempfile.TemporaryFile(dir=parts.store.root) as stream:
        stream.write(b"0")


def _check(act: Callable[[], object]) -> str:
    try:
        act()
    except GigamaskError as exc:
        return exc.code
    except OSError as exc:
        return exc.strerror or "unreadable"
    return "ok"
