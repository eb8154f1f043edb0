"""What must be done to an image, derived and never stored: (shape, model, options) -> regions.

A *region* is the unit of work: a square that is exactly one shard of the mask at level 0 and at each level above, down
to one chunk. No two regions ever write the same shard, so a region done twice rewrites the same bytes. Service, workers
and tests derive the same regions from the same plan.

A model sees *working pixels*, each `scale` level-0 pixels wide (gigamask.resolution): windows and tiles are in working
pixels, on a grid anchored at the image's origin, so that no label depends on the side of a region.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce

from gigamask.errors import InvalidOption
from gigamask.geometry import (
    Box,
    Tile,
    level_count,
    level_shape,
    scaled_box,
    scaled_shape,
    shift_into,
    tile_at,
    tile_over,
)
from gigamask.image_info import ImageInfo
from gigamask.job import JobOptions, Overlap
from gigamask.manifest import TILE_CONTEXT, Context, ModelManifest
from gigamask.resolution import choose_scale

CHUNK_PX = 512
REGION_SIDES_PX = (512, 1024, 2048, 4096)
MAX_SHARD_PX = 4096
LARGEST_SHARED_PX = 2048  # where a region's window goes through the branch as a whole: gigabytes at 4096 and full width
LARGEST_WORK_PX = 8192  # side of a region in working pixels: a window of 200 MB
LIGHT_WORK_PX, FEW_REGIONS, MANY_REGIONS = 2048, 16, 1024  # a region that is heavier is for images of very many
PROBABILITY_BYTES = 64 * 1024**2  # of one region, one byte a class and pixel
BLEND_BYTES = 256 * 1024**2  # sums of scores as high as a tile and as wide as a region, four bytes a class and pixel


@dataclass(frozen=True, slots=True)
class Region:
    """`box` is written by this region alone; `window` is read: all that its tiles look at, in the image.

    box: in level-0 pixels. work: the same in working pixels; so are `window` and `tiles`. The tiles keep every pixel of
    `work` once; where they overlap by half, four times inside the image.
    """

    index: int
    box: Box
    work: Box
    window: Box
    tiles: tuple[Tile, ...]
    overlap: Overlap = "none"


@dataclass(frozen=True, slots=True)
class Plan:
    """shape: (height, width) of level 0. region_px: side of a region in level-0 pixels, a power of two of chunks.

    context: what a window must hold. overlap: half, gaussian = tiles at every half tile, to be averaged (section 4.3).
    scale: level-0 pixels along one working pixel; at 1 a region is whole tiles.
    """

    shape: tuple[int, int]
    tile_px: int
    alpha: int
    region_px: int
    context: Context = TILE_CONTEXT
    overlap: Overlap = "none"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.region_px not in REGION_SIDES_PX:
            raise InvalidOption(f"region side is one of {REGION_SIDES_PX} px, not {self.region_px}")
        if self.scale == 1 and self.region_px % self.tile_px:
            raise InvalidOption(f"a region of {self.region_px} px is no whole number of tiles of {self.tile_px} px")
        if self.region_px > LARGEST_WORK_PX * self.scale:
            side = f"{self.region_px / self.scale:.0f} px of the model's size"
            raise InvalidOption(f"a region of {self.region_px} px is {side}: at most {LARGEST_WORK_PX}")
        if min(self.shape) < 1:
            raise InvalidOption(f"an image has at least 1 x 1 px, not {self.shape[0]} x {self.shape[1]}")

    @property
    def work_shape(self) -> tuple[int, int]:
        """(height, width) of the image in working pixels."""
        return scaled_shape(self.shape, self.scale)

    @property
    def levels(self) -> int:
        return level_count(self.shape)

    @property
    def region_levels(self) -> int:
        """Levels that a region writes itself: 0 until its shard is one chunk."""
        return min(self.levels, (self.region_px // CHUNK_PX).bit_length())

    @property
    def grid(self) -> tuple[int, int]:
        """Regions down, regions across."""
        return region_grid(self.shape, self.region_px)

    @property
    def region_count(self) -> int:
        rows, cols = self.grid
        return rows * cols

    def shard_px(self, level: int) -> int:
        """Side of one shard of the mask at `level`; above the regions' levels one writer has large shards."""
        if level < self.region_levels:
            return self.region_px >> level
        longest = max(level_shape(self.shape, level))
        return min(MAX_SHARD_PX, CHUNK_PX << max(0, (longest - 1) // CHUNK_PX).bit_length())

    def region(self, index: int) -> Region:
        """Raises IndexError outside [0, region_count)."""
        rows, cols = self.grid
        if not 0 <= index < rows * cols:
            raise IndexError(f"region index is in [0, {rows * cols}), not {index}")
        row, col = divmod(index, cols)
        side = self.region_px
        box = Box(row * side, col * side, (row + 1) * side, (col + 1) * side).clip(self.shape)
        work = scaled_box(box, self.scale)
        tiles = self._cells(work) if self.overlap == "none" else self._overlapping_tiles(work)
        return Region(index, box, work, self.window(work, tiles), tiles, self.overlap)

    def window(self, box: Box, tiles: tuple[Tile, ...]) -> Box:
        """What must be read to predict these tiles, which keep pixels of `box`. All in working pixels."""
        seen = reduce(Box.union, (tile.local for tile in tiles), box)
        if self.context.mode != "neighbourhood":
            seen = reduce(Box.union, (tile.surround for tile in tiles), seen)
        return seen.grow(self.context.halo_px).snap(self.context.lattice_px).clip(self.work_shape)

    def _cells(self, work: Box) -> tuple[Tile, ...]:
        """Those of the grid of tiles that reach into the region; where its side is no whole tiles, neighbours share."""
        t, shape, cells = self.tile_px, self.work_shape, work.snap(self.tile_px)
        tiles = (
            tile_at(y // t, x // t, shape, t, self.alpha)
            for y in range(cells.y0, cells.y1, t)
            for x in range(cells.x0, cells.x1, t)
        )
        return tuple(replace(tile, keep=tile.keep.intersect(work)) for tile in tiles)

    def _overlapping_tiles(self, work: Box) -> tuple[Tile, ...]:
        """Those of the grid of half tiles that reach into the region; each keeps all of itself that lies in it."""
        t, shape = self.tile_px, self.work_shape
        rows, columns = (
            [start for start in half_steps(total, t) if start < stop and start + t > first]
            for first, stop, total in ((work.y0, work.y1, shape[0]), (work.x0, work.x1, shape[1]))
        )
        tiles = (tile_over(y, x, shape, t, self.alpha) for y in rows for x in columns)
        return tuple(replace(tile, keep=tile.local.clip(shape).intersect(work)) for tile in tiles)

    def regions(self) -> Iterator[Region]:
        return (self.region(index) for index in range(self.region_count))


def region_grid(shape: tuple[int, int], region_px: int) -> tuple[int, int]:
    """Regions down, regions across."""
    return -(-shape[0] // region_px), -(-shape[1] // region_px)


def half_steps(total: int, tile_px: int) -> list[int]:
    """Where tiles start that overlap by half: the last is shifted inside, as mmsegmentation does."""
    count = -(-max(0, total - tile_px) // (tile_px // 2)) + 1
    return [shift_into(i * (tile_px // 2), tile_px, total) for i in range(count)]


def choose_region_px(shape: tuple[int, int], tile_px: int, scale: float = 1.0, most_px: float = 4096.0) -> int:
    """The largest side that gives enough regions for several workers to have work and for progress to move.

    Larger regions mean fewer files and less surround read twice (a 2048 region reads 1.56x its pixels, a 512 region
    4x), and more memory (a worker with a light model: 0.4 GiB at 2048, 0.7 at 4096), so more than 2048 working pixels
    are for images of which 2048 would make very many files. Where a region is no whole number of tiles, it has two at
    least, if any side gives that. most_px: what a side should not exceed, unless a tile does. Raises InvalidOption for
    a tile that fits no side.
    """
    sides = [side for side in REGION_SIDES_PX if scale != 1 or side % tile_px == 0]
    if not sides:
        raise InvalidOption(f"tile side divides one of {REGION_SIDES_PX} px, not {tile_px}")
    sides = [side for side in sides if side <= max(most_px, tile_px * scale)] or sides[:1]
    if scale != 1:
        sides = [side for side in sides if side >= 2 * tile_px * scale] or sides[-1:]
    pixels = shape[0] * shape[1]
    enough = [side for side in sides if pixels >= _enough_regions(side / scale) * side * side]
    return max(enough, default=sides[0])


def _enough_regions(work_px: float) -> int:
    return FEW_REGIONS if work_px <= LIGHT_WORK_PX else MANY_REGIONS


def plan_regions(
    shape: tuple[int, int],
    manifest: ModelManifest,
    region_px: int | None = None,
    overlap: Overlap = "none",
    scale: float = 1.0,
    probabilities: bool = False,
) -> Plan:
    """region_px: None = chosen from the image's size, and smaller where regions have scores of many classes.

    Raises InvalidOption.
    """
    if region_px is None:
        most_px = _most_work_px(manifest, overlap, probabilities, scale) * scale
        region_px = choose_region_px(shape, manifest.tile_px, scale, most_px)
    return Plan(shape, manifest.tile_px, manifest.alpha, region_px, manifest.context, overlap, scale)


def _most_work_px(manifest: ModelManifest, overlap: Overlap, probabilities: bool, scale: float) -> float:
    """Side of a region in working pixels that memory is good for."""
    classes, sides = len(manifest.classes), [float(REGION_SIDES_PX[-1])]
    if manifest.context.mode != "tile":
        sides.append(LARGEST_SHARED_PX)
    if overlap != "none":
        sides.append(BLEND_BYTES / (4 * classes * manifest.tile_px))
    if probabilities:
        sides.append((PROBABILITY_BYTES / classes) ** 0.5 / max(1.0, scale))
    return min(sides)


def plan_job(info: ImageInfo, manifest: ModelManifest, options: JobOptions, region_px: int | None = None) -> Plan:
    """What a job does to its image. region_px: the side that it has begun with, over the options'.

    Raises InvalidOption, also where the model's resolution cannot be had from this image.
    """
    scale = choose_scale(info, manifest, options.resolution)
    side = region_px or options.region_px
    return plan_regions(info.shape, manifest, side, options.overlap, scale, options.probabilities)
