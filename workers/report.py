"""What a run in one process tells while it goes on, and at its end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gigamask.job import SelectionSummary, Stage


@dataclass(frozen=True, slots=True)
class Progress:
    """fraction: of this stage, in [0, 1]. megapixels: the image's; 0 until ingest is over."""

    stage: Stage
    fraction: float
    megapixels: float = 0.0


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """areas_px: class name -> pixels (no data apart). areas: the same in `unit` squared, if pixels have a size.

    stage_seconds: `ingest`, `segment`, `assemble` as they passed; `read`, `predict`, `write` overlap within `segment`.
    scale: the image's pixels along one as the model sees it. selection: None where every tile was run.
    Of a resumed run, the time and `segmented_px` are this run's; the areas are the whole image's.
    """

    width: int
    height: int
    segmented_px: int
    seconds: float
    stage_seconds: dict[str, float]
    areas_px: dict[str, int]
    areas: dict[str, float] | None
    unit: str | None
    no_data_px: int
    regions_total: int
    regions_skipped: int
    out: Path
    scale: float = 1.0
    selection: SelectionSummary | None = None

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6

    @property
    def megapixels_per_s(self) -> float:
        """Of what this run segmented."""
        return self.segmented_px / 1e6 / self.seconds
