"""`/jobs/{id}/image.dzi`, `mask.dzi`, `tiles/...`, `label`: the image and the mask of a job, for viewers.

The image can be looked at once it has been read, the mask as soon as its first regions are done. What is published
never changes and is kept by browsers; a mask that is still being made is drawn anew each time.
Nothing that draws is loaded before the first picture is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as PathParameter

from gigamask.errors import Conflict, InvalidOption, NotFound
from gigamask.tiles import grids
from service.drawing import KEPT, LIVE, Drawing, Picture
from service.parts import Parts
from service.schemas import ProblemView

if TYPE_CHECKING:
    from gigamask.tiles.jobs import JobViews, View

router = APIRouter(tags=["tiles"])

ATTEMPTS = 3
MOST_TEXT = 8192
IMAGE_FORMAT, MASK_FORMAT = "jpg", "png"

JobId = Annotated[str, PathParameter(description="Id of the job.")]
LayerName = Annotated[str, PathParameter(description="`image` or `mask`.")]
Colors = Annotated[
    str, Query(max_length=MOST_TEXT, description="Of a mask, other colours than the model's: `0:ff8800,3:00ff00`.")
]
Hide = Annotated[str, Query(max_length=MOST_TEXT, description="Of a mask, classes not to show: `1,3`.")]
Answers = dict[int | str, dict[str, Any]]
PROBLEMS: Answers = {
    404: {"model": ProblemView, "description": "No such job, or nothing there."},
    409: {"model": ProblemView, "description": "The image or the mask is not there (yet)."},
}
PICTURE: Answers = {
    200: {"content": {"image/jpeg": {}, "image/png": {}, "image/webp": {}}, "description": "The picture."},
    304: {"description": "Not changed (If-None-Match)."},
    503: {"model": ProblemView, "description": "Too many pictures wait to be drawn."},
}
DESCRIPTOR: Answers = {200: {"content": {"application/xml": {}}, "description": "The pyramid's size and format."}}


class Tiles:
    """What the routes below share, made once with the app: pictures that are kept and pyramids that are open."""

    def __init__(self, parts: Parts) -> None:
        self.drawing = Drawing(parts.settings.tile_cache_bytes)
        self._parts = parts
        self._views: JobViews | None = None

    @property
    def views(self) -> JobViews:
        from gigamask.tiles.jobs import JobViews

        if self._views is None:
            self._views = JobViews(self._parts.store, self._parts.jobs, self._parts.shelf)
        return self._views


def tiles_of(request: Request) -> Tiles:
    tiles: Tiles = request.app.state.tiles
    return tiles


def stop_drawing(app: object) -> None:
    app.state.tiles.drawing.close()  # type: ignore[attr-defined]


# -- DZI


@router.head("/jobs/{job_id}/{layer}.dzi", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/{layer}.dzi",
    summary="The image or the mask as a Deep Zoom pyramid",
    response_class=Response,
    responses=DESCRIPTOR | PROBLEMS,
)
def read_dzi(
    job_id: JobId,
    layer: LayerName,
    request: Request,
    format_: Annotated[str, Query(alias="format", max_length=8, description="Of the tiles.")] = "",
) -> Response:
    """Give its URL to OpenSeadragon; what is in the query goes on to the tiles."""
    from gigamask.tiles.encoding import media_type

    view = find_view(tiles_of(request), job_id, layer)
    extension = format_ or {"image": IMAGE_FORMAT, "mask": MASK_FORMAT}[layer]
    media_type(extension)
    text = grids.dzi_descriptor(view.layer.shape, extension)
    headers = {"Cache-Control": LIVE if view.live else KEPT}
    return Response("" if request.method == "HEAD" else text, 200, headers, "application/xml")


@router.head("/jobs/{job_id}/{layer}_files/{level}/{col}_{row}.{fmt}", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/{layer}_files/{level}/{col}_{row}.{fmt}",
    summary="A tile of a Deep Zoom pyramid",
    response_class=Response,
    responses=PICTURE | PROBLEMS,
)
async def read_dzi_tile(
    job_id: JobId,
    layer: LayerName,
    level: str,
    col: str,
    row: str,
    fmt: str,
    request: Request,
    colors: Colors = "",
    hide: Hide = "",
) -> Response:
    """Level 0 is one pixel, the last level the image itself; a tile is 256 px wide, less at the right and bottom."""

    def window(shape: grids.Shape) -> grids.Window:
        place = (grids.parse_index(text, name) for text, name in ((level, "level"), (col, "column"), (row, "row")))
        return grids.dzi_window(shape, *place)

    tiles, key = tiles_of(request), (job_id, layer, "dzi", level, col, row, fmt, colors, hide)
    return await tiles.drawing.answer(request, key, partial(draw, tiles, job_id, layer, window, fmt, colors, hide))


# -- XYZ


@router.head("/jobs/{job_id}/tiles/{layer}/{z}/{x}/{y}.{fmt}", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/tiles/{layer}/{z}/{x}/{y}.{fmt}",
    summary="A tile by zoom, column and row",
    response_class=Response,
    responses=PICTURE | PROBLEMS,
)
async def read_xyz_tile(
    job_id: JobId,
    layer: LayerName,
    z: str,
    x: str,
    y: str,
    fmt: str,
    request: Request,
    colors: Colors = "",
    hide: Hide = "",
) -> Response:
    """On the image's own pixels: z = 0 is the whole in one tile of 256 px, and each zoom doubles."""

    def window(shape: grids.Shape) -> grids.Window:
        place = (grids.parse_index(text, name) for text, name in ((z, "zoom"), (x, "column"), (y, "row")))
        return grids.xyz_window(shape, *place)

    tiles, key = tiles_of(request), (job_id, layer, "xyz", z, x, y, fmt, colors, hide)
    return await tiles.drawing.answer(request, key, partial(draw, tiles, job_id, layer, window, fmt, colors, hide))


# -- one label


@router.get("/jobs/{job_id}/label", summary="The class of one pixel", responses=PROBLEMS)
def read_label(
    job_id: JobId,
    request: Request,
    response: Response,
    x: Annotated[int, Query(description="Pixels from the left.")],
    y: Annotated[int, Query(description="Pixels from the top.")],
) -> dict[str, int | str | None]:
    """Label 255 is no data, and has no colour."""
    from gigamask.geometry import Box
    from gigamask.manifest import NO_DATA
    from gigamask.pyramid.ngff import NO_DATA_NAME

    view = tiles_of(request).views.mask(job_id)
    height, width = view.layer.shape
    if not (0 <= y < height and 0 <= x < width):
        raise NotFound(f"the image is {width} x {height} px; ({x}, {y}) is outside")
    label = int(view.layer.read(Box(y, x, y + 1, x + 1), 0)[0, 0])
    response.headers["Cache-Control"] = LIVE if view.live else KEPT
    if label == NO_DATA:
        return {"label": label, "name": NO_DATA_NAME, "color": None}
    known = {entry.id: (entry.name, entry.color) for entry in view.legend.classes}
    name, color = known.get(label, (f"class {label}", "#808080"))
    return {"label": label, "name": name, "color": color}


# -- drawing


def find_view(tiles: Tiles, job_id: str, layer: str) -> View:
    """Blocking. Raises NotFound, UnknownJob, Conflict."""
    if layer == "image":
        return tiles.views.image(job_id)
    if layer == "mask":
        return tiles.views.mask(job_id)
    raise NotFound(f"there are image and mask, not {layer[:40]!r}")


def draw(
    tiles: Tiles,
    job_id: str,
    layer: str,
    window: Callable[[grids.Shape], grids.Window],
    extension: str,
    colors: str,
    hide: str,
) -> Picture:
    """Blocking. Drawn again where the files went away meanwhile, as a mask's do when it is published."""
    from gigamask.tiles.encoding import media_type

    kind = media_type(extension)
    for _ in range(ATTEMPTS):
        view = find_view(tiles, job_id, layer)
        content = encode(view, layer, window(view.layer.shape), extension, colors, hide)
        if view.stands:
            return Picture(content, kind, view.live)
    raise Conflict("the job is changing its state; ask again")


def encode(view: View, layer: str, window: grids.Window, extension: str, colors: str, hide: str) -> bytes:
    from gigamask.legend import parse_colors
    from gigamask.tiles.encoding import encode_labels, encode_pixels, palette_of
    from gigamask.tiles.layers import read_labels, read_pixels

    if layer == "image":
        return encode_pixels(read_pixels(view.layer, window), extension)
    palette = palette_of(view.legend.recolored(parse_colors(colors)), parse_hidden(hide))
    return encode_labels(read_labels(view.layer, window), palette, extension)


def parse_hidden(text: str) -> frozenset[int]:
    """`1,3` -> {1, 3}. Raises InvalidOption."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() and len(part) <= 3 and int(part) < 256 for part in parts):
        raise InvalidOption(f"classes to hide are ids below 256, such as 1,3, not {text[:40]!r}")
    return frozenset(map(int, parts))
