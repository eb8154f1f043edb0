"""Every name that Gigamask uses in Redis.

gigamask:work:<stage>        stream of work, consumer group `workers`
gigamask:dead                stream of messages that used up their attempts, and why
gigamask:jobs                sorted set of job ids by creation time (seconds since 1970, UTC)
gigamask:job:<id>            hash: the record's fixed part as JSON, its state, its live counters
gigamask:job:<id>:regions    bitmap of the regions that are done or skipped
gigamask:job:<id>:skipped    bitmap of those that were skipped
gigamask:ingest:<image>      id of the job that ingests the image
gigamask:waiting:<image>     set of the jobs that wait for it
"""

from __future__ import annotations

from gigamask.job import Stage

GROUP = "workers"
DEAD = "gigamask:dead"
JOBS = "gigamask:jobs"
JOB_PREFIX = "gigamask:job:"


def work(stage: Stage) -> str:
    return f"gigamask:work:{stage}"


def job(job_id: str) -> str:
    return f"{JOB_PREFIX}{job_id}"


def regions(job_id: str) -> str:
    return f"{JOB_PREFIX}{job_id}:regions"


def skipped(job_id: str) -> str:
    return f"{JOB_PREFIX}{job_id}:skipped"


def ingest_owner(image_id: str) -> str:
    return f"gigamask:ingest:{image_id}"


def ingest_waiting(image_id: str) -> str:
    return f"gigamask:waiting:{image_id}"
