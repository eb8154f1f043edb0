"""A Gigamask service from Python: `Client` and, with `await`, `AsyncClient`.

Protocol and network are apart: the core (`uploading`, `following`, `downloading`, `calls`) is made of generators that
ask for effects (`effects`) and know no socket; two thin drivers (`blocking`, `asynchronous`) do them with httpx.
Nothing heavy is loaded before it is needed: zarr with the first mask that is opened.
"""

from gigamask.client.asynchronous import AsyncClient
from gigamask.client.blocking import Client
from gigamask.client.errors import FileChanged, Refused, Unreachable
from gigamask.client.views import Area, File, Job, JobError, Model, Regions

__all__ = [
    "Area",
    "AsyncClient",
    "Client",
    "File",
    "FileChanged",
    "Job",
    "JobError",
    "Model",
    "Refused",
    "Regions",
    "Unreachable",
]
