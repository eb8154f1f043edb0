"""Whether the container's process can do its work, as an exit status for HEALTHCHECK.

service: it answers `/healthz`.
worker: Redis, without which it gets no work, answers. Its process needs no check: the container ends with it.
"""

from __future__ import annotations

import sys
import urllib.request

from gigamask.settings import Settings

TIMEOUT_S = 4.0


def check_service(settings: Settings) -> None:
    """Raises OSError, as urllib's errors are."""
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.port}/healthz", timeout=TIMEOUT_S):
        pass


def check_worker(settings: Settings) -> None:
    """Raises redis.RedisError."""
    from redis import Redis

    with Redis.from_url(settings.redis_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as redis:
        redis.ping()


CHECKS = {"service": check_service, "worker": check_worker}


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        sys.exit(f"expected {' or '.join(CHECKS)}, got {' '.join(sys.argv[1:])!r}")
    try:
        CHECKS[sys.argv[1]](Settings())
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
