"""Where the network's window lies over the tile that it labels.

Tiles are powers of two. A network that sees more than it may keep (a halo, a valid convolution, a side that is no power
of two) is handed its window out of the tile's surround, so the served form stays as it is: `surround`, `offset`.

    surround  [................................]  alpha t px
    window         [......................]       network_px, margin_px before the tile
    tile                  [.......]               t px, kept
"""

from __future__ import annotations

from dataclasses import dataclass

from gigamask.errors import BadModel

LEAST_TILE_PX, LARGEST_TILE_PX, LARGEST_ALPHA = 32, 4096, 4


@dataclass(frozen=True, slots=True)
class Frame:
    """crop_px: what the network's map lacks on each side; beyond the image it is then shown a mirror image."""

    network_px: int
    tile_px: int
    alpha: int
    crop_px: int = 0

    @property
    def surround_px(self) -> int:
        return self.tile_px * self.alpha

    @property
    def margin_px(self) -> int:
        """Before the tile; after it one more where the rest is odd."""
        return (self.network_px - self.tile_px) // 2

    @property
    def mirror_px(self) -> int:
        """Of the surround, on each side."""
        return self.network_px - self.tile_px - self.margin_px if self.crop_px else 0

    @property
    def whole(self) -> bool:
        """The tile is all that the network sees."""
        return self.alpha == 1


def choose_frame(network_px: int, halo_px: int = 0, crop_px: int = 0) -> Frame:
    """The largest tile that lies within what may be kept. Raises BadModel where there is none."""
    kept = min(network_px - 2 * max(halo_px, crop_px), LARGEST_TILE_PX)
    if halo_px < 0 or kept < LEAST_TILE_PX:
        raise BadModel(
            f"of {network_px} px a halo of {max(halo_px, crop_px)} px on each side leaves {kept} px,"
            f" expected {LEAST_TILE_PX} or more"
        )
    tile_px = 1 << (kept.bit_length() - 1)
    alpha = -(-network_px // tile_px)
    if alpha > LARGEST_ALPHA:
        raise BadModel(
            f"a network that sees {network_px} px and keeps {tile_px} reads too much for each tile,"
            f" expected at most {LARGEST_ALPHA * tile_px} px"
        )
    return Frame(network_px, tile_px, alpha, crop_px)
