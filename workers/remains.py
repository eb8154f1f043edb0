"""What a job that ended leaves behind, and whoever may have written it last removes."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from gigamask.job import State
from gigamask.store import partial
from workers.worker import Worker

log = logging.getLogger(__name__)

REMOVE_ATTEMPTS = 5


def discard_remains(worker: Worker, job_id: str) -> None:
    """Remove what is no longer used: all of the mask of a job that ended without one. Nothing before a job's end."""
    found = worker.jobs.state(job_id)
    if found is None or not found[0].final:
        return
    target = worker.store.mask_zarr(job_id)
    remove_tree(partial(target))
    if found[0] is not State.SUCCEEDED:
        remove_tree(target)


def remove_tree(tree: Path) -> None:
    """A late writer may add a file while the tree is being removed: begin again then."""
    for _ in range(REMOVE_ATTEMPTS):
        shutil.rmtree(tree, ignore_errors=True)
        if not tree.exists():
            return
    log.warning("cannot remove %s", tree)
