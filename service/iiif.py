"""`/jobs/{id}/iiif/{layer}/...`: image and mask by the IIIF Image API 3.0, level 1, for viewers that speak it.

Pictures of any part at any size are larger work than tiles: they are drawn one at a time.
"""

from __future__ import annotations

import json
from functools import partial
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from gigamask.errors import BadPicture
from gigamask.tiles import grids, iiif
from service.drawing import KEPT, LIVE
from service.parts import RootPath
from service.schemas import ProblemView
from service.tiles import PICTURE, PROBLEMS, Answers, Colors, Hide, JobId, LayerName, draw, find_view, tiles_of

router = APIRouter(tags=["tiles"])

LD_JSON = f'application/ld+json;profile="{iiif.CONTEXT}"'
BAD: Answers = {400: {"model": ProblemView, "description": "No picture of level 1, or none inside the image."}}


@router.get("/jobs/{job_id}/iiif/{layer}", summary="Leads to info.json", status_code=303, response_class=Response)
async def lead_to_information(job_id: JobId, layer: LayerName, root_path: RootPath) -> Response:
    path = quote(f"/jobs/{job_id}/iiif/{layer}/info.json")  # neither was looked at yet
    return Response(status_code=303, headers={"Location": f"{root_path}{path}"})


@router.head("/jobs/{job_id}/iiif/{layer}/info.json", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/iiif/{layer}/info.json",
    summary="What an IIIF viewer needs to know",
    response_class=Response,
    responses=PROBLEMS,
)
def read_information(job_id: JobId, layer: LayerName, request: Request, root_path: RootPath) -> Response:
    """Its `id` is the URL that it was asked for by."""
    view = find_view(tiles_of(request), job_id, layer)
    url = f"{request.url.scheme}://{request.url.netloc}{root_path}/jobs/{job_id}/iiif/{layer}"
    linked = "application/ld+json" in request.headers.get("accept", "")
    headers = {"Cache-Control": LIVE if view.live else KEPT, "Vary": "Accept"}
    text = "" if request.method == "HEAD" else json.dumps(iiif.information(url, view.layer.shape))
    return Response(text, 200, headers, LD_JSON if linked else "application/json")


@router.head("/jobs/{job_id}/iiif/{layer}/{region}/{size}/{rotation}/{quality}.{fmt}", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/iiif/{layer}/{region}/{size}/{rotation}/{quality}.{fmt}",
    summary="Any part at any size",
    response_class=Response,
    responses=PICTURE | PROBLEMS | BAD,
)
async def read_picture(
    job_id: JobId,
    layer: LayerName,
    region: str,
    size: str,
    rotation: str,
    quality: str,
    fmt: str,
    request: Request,
    colors: Colors = "",
    hide: Hide = "",
) -> Response:
    """Regions `full`, `square`, `x,y,w,h`; sizes `max`, `w,`, `,h`, `w,h`; rotation 0; quality default or color."""
    if quality not in iiif.QUALITIES:
        raise BadPicture(f"qualities are {', '.join(iiif.QUALITIES)}, not {quality[:40]!r}")
    if fmt not in iiif.FORMATS:
        raise BadPicture(f"formats are {', '.join(iiif.FORMATS)}, not {fmt[:40]!r}")
    tiles, key = tiles_of(request), (job_id, layer, "iiif", region, size, rotation, fmt, colors, hide)

    def window(shape: grids.Shape) -> grids.Window:
        return iiif.window_of(shape, region, size, rotation)

    work = partial(draw, tiles, job_id, layer, window, fmt, colors, hide)
    return await tiles.drawing.answer(request, key, work, large=True)
