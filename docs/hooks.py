"""What the documentation site makes of the code while it is built: the OpenAPI document of the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from gigamask.manifest import ModelShelf
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store
from service.app import create_app


def on_files(files: Files, config: Any) -> Files:
    files.append(File.generated(config, "openapi.json", content=json.dumps(openapi())))
    return files


def openapi() -> dict[str, Any]:
    """Of an app whose Redis and store are not there: describing itself needs neither."""
    settings = Settings(store=Path("absent"), redis_url="unix:///absent/redis.sock")
    store = Store(settings.store)
    app = create_app(settings, store, JobStore(Connection(settings.redis_url), store, settings), ModelShelf(()))
    return app.openapi()
