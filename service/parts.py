"""What every route works with, made once in the entry point and handed down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from gigamask.manifest import ModelShelf
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store


@dataclass(frozen=True, slots=True)
class Parts:
    settings: Settings
    store: Store
    jobs: JobStore
    shelf: ModelShelf


async def parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


PartsDep = Annotated[Parts, Depends(parts_of)]


async def root_path_of(request: Request) -> str:
    """The path that a proxy strips off; links begin with it."""
    path: str = request.scope.get("root_path", "")
    return path


RootPath = Annotated[str, Depends(root_path_of)]
