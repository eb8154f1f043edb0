"""One connection pool to Redis >= 7 or Valkey, whose silence or refusal is a QueueUnavailable.

A command is tried again where the connection breaks, so every script is written to be run twice without harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.commands.core import Script
from redis.retry import Retry

from gigamask.errors import QueueUnavailable

RETRIES = 5
BACKOFF_BASE_S, BACKOFF_CAP_S = 0.05, 1.0
SOCKET_TIMEOUT_S = 20.0
GROUP_STATES = ("NOGROUP", "BUSYGROUP")

Word = str | int | float


class Connection:
    """Commands in, answers (str, int, list, dict) out. Safe to share between threads.

    Every call raises QueueUnavailable where Redis does not answer, or answers with an error (full, read-only, ...);
    of a consumer group that is missing or is there already, redis.ResponseError.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        retry = Retry(ExponentialBackoff(cap=BACKOFF_CAP_S, base=BACKOFF_BASE_S), RETRIES)
        try:
            self._redis = redis.Redis.from_url(
                url, decode_responses=True, protocol=2, retry=retry, socket_timeout=SOCKET_TIMEOUT_S
            )
        except ValueError as exc:
            raise QueueUnavailable(f"a Redis URL begins with redis://, rediss:// or unix://: {exc}") from exc
        self._script = lru_cache(self._redis.register_script)

    def call(self, *words: Word) -> Any:
        """One command, word by word."""
        with _unavailable():
            return self._redis.execute_command(*words)  # type: ignore[no-untyped-call]

    def run(self, lua: str, keys: Sequence[str], words: Sequence[Word] = ()) -> Any:
        """One Lua script, atomic."""
        script: Script = self._script(lua)
        with _unavailable():
            return script(keys=list(keys), args=list(words))

    def close(self) -> None:
        self._redis.close()


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as exc:
        raise QueueUnavailable(f"Redis does not answer: {exc}") from exc
    except redis.RedisError as exc:
        if str(exc).startswith(GROUP_STATES):
            raise
        raise QueueUnavailable(f"Redis refuses: {exc}") from exc
