"""What was made lately, kept within a bound; the least recently used goes first. Safe to share between threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

STRIPES = 16

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """bound: what the values may weigh together. weigh: of one value; 1 for each, unless told."""

    def __init__(self, bound: int, weigh: Callable[[Value], int] = lambda value: 1) -> None:
        self._bound, self._weigh = bound, weigh
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._weight = 0
        self._lock = threading.Lock()
        self._making = [threading.Lock() for _ in range(STRIPES)]

    @property
    def weight(self) -> int:
        return self._weight

    def get(self, key: Hashable) -> Value | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def get_or_make(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Two threads that want the same make it once; now and then two that want different things wait in vain."""
        with self._making[hash(key) % STRIPES]:
            value = self.get(key)
            if value is None:
                value = make()
                self.put(key, value)
            return value

    def put(self, key: Hashable, value: Value) -> None:
        """A value that alone is over the bound is not kept."""
        weight = self._weigh(value)
        with self._lock:
            self._drop(key)
            if weight > self._bound:  # and drives nothing else out
                return
            self._values[key] = value
            self._weight += weight
            while self._weight > self._bound:
                self._drop(next(iter(self._values)))

    def drop(self, key: Hashable) -> None:
        with self._lock:
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self._weight -= self._weigh(value)
