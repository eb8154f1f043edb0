"""What must be done to an image, derived and never stored: (shape, model, options) -> regions.

A *region* is the unit of work: a square of whole tiles that is exactly one shard of the mask at level 0 and at each
level above, down to one chunk. No two regions ever write the same shard, so a region done twice rewrites the same
bytes. Service, workers and tests derive the same regions from the same plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce

from gigamask.errors import InvalidOption
from gigamask.geometry import Box, Tile, level_count, level_shape, shift_into, tile_at, tile_over
from gigamask.manifest import TILE_CONTEXT, Context, ModelManifest

CHUNK_PX = 512
REGION_SIDES_PX = (512, 1024, 2048, 4096)
MAX_SHARD_PX = 4096
LARGEST_SHARED_PX = 2048  # where a region's window goes through the branch as a whole: gigabytes at 4096 and full width
ENOUGH_REGIONS = {512: 16, 1024: 16, 2048: 16, 4096: 1024}  # by side


@dataclass(frozen=True, slots=True)
class Region:
    """`box` is written by this region alone; `window` is read: all that its tiles look at, in the image.

    The tiles keep every pixel of the box once; where they overlap by half, four times inside the image.
    """

    index: int
    box: Box
    window: Box
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """shape: (height, width) of level 0. region_px: side of a region, a power of two of chunks and whole tiles.

    context: what a window must hold. half_overlap: tiles at every half tile, to be averaged (section 4.3).
    """

    shape: tuple[int, int]
    tile_px: int
    alpha: int
    region_px: int
    context: Context = TILE_CONTEXT
    half_overlap: bool = False

    def __post_init__(self) -> None:
        if self.region_px not in REGION_SIDES_PX:
            raise InvalidOption(f"region side is one of {REGION_SIDES_PX} px, not {self.region_px}")
        if self.region_px % self.tile_px:
            raise InvalidOption(f"a region of {self.region_px} px is no whole number of tiles of {self.tile_px} px")
        if min(self.shape) < 1:
            raise InvalidOption(f"an image has at least 1 x 1 px, not {self.shape[0]} x {self.shape[1]}")

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
        return -(-self.shape[0] // self.region_px), -(-self.shape[1] // self.region_px)

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
        side, t = self.region_px, self.tile_px
        box = Box(row * side, col * side, (row + 1) * side, (col + 1) * side).clip(self.shape)
        if self.half_overlap:
            tiles = self._overlapping_tiles(box)
        else:
            tiles = tuple(
                tile_at(y // t, x // t, self.shape, t, self.alpha)
                for y in range(box.y0, box.y1, t)
                for x in range(box.x0, box.x1, t)
            )
        return Region(index, box, self.window(box, tiles), tiles)

    def window(self, box: Box, tiles: tuple[Tile, ...]) -> Box:
        """What must be read to predict these tiles, which keep pixels of `box`."""
        seen = reduce(Box.union, (tile.local for tile in tiles), box)
        if self.context.mode != "neighbourhood":
            seen = reduce(Box.union, (tile.surround for tile in tiles), seen)
        return seen.grow(self.context.halo_px).snap(self.context.lattice_px).clip(self.shape)

    def _overlapping_tiles(self, box: Box) -> tuple[Tile, ...]:
        """Those of the grid of half tiles that reach into the box; each keeps all of itself that lies in it."""
        t = self.tile_px
        rows, columns = (
            [start for start in half_steps(total, t) if start < stop and start + t > first]
            for first, stop, total in ((box.y0, box.y1, self.shape[0]), (box.x0, box.x1, self.shape[1]))
        )
        tiles = (tile_over(y, x, self.shape, t, self.alpha) for y in rows for x in columns)
        return tuple(replace(tile, keep=tile.local.clip(self.shape).intersect(box)) for tile in tiles)

    def regions(self) -> Iterator[Region]:
        return (self.region(index) for index in range(self.region_count))


def half_steps(total: int, tile_px: int) -> list[int]:
    """Where tiles start that overlap by half: the last is shifted inside, as mmsegmentation does."""
    count = -(-max(0, total - tile_px) // (tile_px // 2)) + 1
    return [shift_into(i * (tile_px // 2), tile_px, total) for i in range(count)]


def choose_region_px(shape: tuple[int, int], tile_px: int) -> int:
    """The largest side that gives enough regions for several workers to have work and for progress to move.

    Larger regions mean fewer files and less surround read twice (a 2048 region reads 1.56x its pixels, a 512 region
    4x), and more memory (a worker with a light model: 0.4 GiB at 2048, 0.7 at 4096), so 4096 is for images of which
    2048 would make very many files. Raises InvalidOption for a tile that fits no side.
    """
    fitting = [side for side in REGION_SIDES_PX if side % tile_px == 0]
    if not fitting:
        raise InvalidOption(f"tile side divides one of {REGION_SIDES_PX} px, not {tile_px}")
    pixels = shape[0] * shape[1]
    enough = [side for side in fitting if pixels >= ENOUGH_REGIONS[side] * side * side]
    return max(enough, default=fitting[0])


def plan_regions(
    shape: tuple[int, int], manifest: ModelManifest, region_px: int | None = None, half_overlap: bool = False
) -> Plan:
    """region_px: None = chosen from the image's size. Raises InvalidOption."""
    side = region_px or choose_region_px(shape, manifest.tile_px)
    if region_px is None and manifest.context.mode != "tile":
        side = max(min(side, LARGEST_SHARED_PX), manifest.tile_px)
    return Plan(shape, manifest.tile_px, manifest.alpha, side, manifest.context, half_overlap)
