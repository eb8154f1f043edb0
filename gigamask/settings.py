"""Every setting, read once in an entry point and handed down. `GIGAMASK_<NAME>` in the environment or in `.env`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SHIPPED_MODELS = Path(__file__).resolve().parent.parent / "models"

GIB = 1024**3


def own_models() -> Path:
    """Where models that are adopted lie unless GIGAMASK_MODELS says otherwise (XDG base directories)."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "gigamask" / "models"


class Settings(BaseSettings):
    """Units stand in the names. See docs/settings.md."""

    model_config = SettingsConfigDict(env_prefix="GIGAMASK_", env_file=".env", frozen=True, extra="ignore")

    store: Annotated[Path, Field(description="Folder for uploads, images and masks.")] = Path("store")
    models: Annotated[
        tuple[Path, ...],
        NoDecode,
        Field(description="Folders that hold model folders, separated by ':'; unset, also your own (docs/models.md)."),
    ] = Field(default_factory=lambda: (SHIPPED_MODELS, own_models()))
    redis_url: Annotated[str, Field(description="redis://, rediss:// or unix:// URL of Redis >= 7 or Valkey.")] = (
        "redis://127.0.0.1:6379/0"
    )

    host: Annotated[str, Field(description="Address that the service listens on.")] = "127.0.0.1"
    port: Annotated[int, Field(description="Port that the service listens on; 0 takes a free one.")] = 8000
    cors_origins: Annotated[
        str, Field(description="Origins that may read results, and write where they are named; `*`: all may read.")
    ] = "*"

    max_upload_bytes: Annotated[int, Field(gt=0, description="Largest upload.")] = 256 * GIB
    upload_expiry_s: Annotated[
        float, Field(gt=0, description="A resumable upload that nothing is added to is removed after this long.")
    ] = 24 * 3600.0
    min_free_bytes: Annotated[int, Field(ge=0, description="Space that an upload or ingest must leave free.")] = GIB

    max_pixels: Annotated[int, Field(gt=0, description="Largest image, width x height.")] = 400_000_000_000
    max_side_px: Annotated[int, Field(gt=0, description="Longest side of an image.")] = 4_000_000
    max_pages: Annotated[int, Field(gt=0, description="Most directories in one TIFF.")] = 4096
    ingest_memory_bytes: Annotated[int, Field(gt=0, description="Data memory of the decoding child.")] = 2 * GIB
    ingest_stall_s: Annotated[float, Field(gt=0, description="Longest time without a decoded row.")] = 60.0
    ingest_timeout_s: Annotated[float, Field(gt=0, description="Longest time for one image.")] = 24 * 3600.0

    export_memory_bytes: Annotated[int, Field(gt=0, description="Data memory of a child that makes a file.")] = 2 * GIB

    lease_s: Annotated[float, Field(gt=0, description="A silent worker loses its work after this long.")] = 30.0
    max_attempts: Annotated[int, Field(ge=1, description="Deliveries of one message before it is dead.")] = 3
    inflight_regions: Annotated[int, Field(ge=1, description="Regions of one job in the queue at a time.")] = 64

    tile_cache_bytes: Annotated[int, Field(ge=0, description="Pictures for viewers that the service keeps.")] = (
        64 * 1024**2
    )

    engine: Annotated[Literal["onnx", "torch"], Field(description="What runs the model.")] = "onnx"
    device: Annotated[Literal["auto", "cpu", "cuda"], Field(description="auto = a GPU where there is one.")] = "auto"
    batch_tiles: Annotated[
        int, Field(ge=0, le=256, description="Tiles in one call of the network; 0 = 1 on a CPU, 8 on a GPU.")
    ] = 0
    threads: Annotated[int, Field(ge=0, description="Threads of one predictor; 0 = all cores.")] = 0

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(":") if part) if isinstance(value, str) else value
