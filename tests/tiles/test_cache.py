"""What is kept stays within its bound, whoever asks for it."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from gigamask.tiles.cache import Cache


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=40))))
def test_the_weight_is_that_of_what_is_kept_and_within_the_bound(puts: list[tuple[int, bytes]]) -> None:
    cache: Cache[bytes] = Cache(60, len)
    for key, value in puts:
        cache.put(key, value)
        kept = [found for found in map(cache.get, range(10)) if found is not None]
        assert cache.weight == sum(map(len, kept)) <= 60


def test_what_was_used_least_lately_goes_first() -> None:
    cache: Cache[str] = Cache(2)
    cache.put("a", "1")
    cache.put("b", "2")
    assert cache.get("a") == "1"
    cache.put("c", "3")
    assert [cache.get(key) for key in "abc"] == ["1", None, "3"]


def test_what_is_heavier_than_the_bound_is_not_kept() -> None:
    cache: Cache[bytes] = Cache(3, len)
    cache.put("a", b"abcd")
    assert (cache.get("a"), cache.weight) == (None, 0)


def test_what_is_heavier_than_the_bound_drives_nothing_else_out() -> None:
    cache: Cache[bytes] = Cache(10, len)
    cache.put("small", b"1234")
    cache.put("large", b"12345678901")
    assert (cache.get("small"), cache.get("large"), cache.weight) == (b"1234", None, 4)


def test_many_who_want_the_same_at_once_make_it_once() -> None:
    cache: Cache[int] = Cache(5)
    made = []

    def make() -> int:
        time.sleep(0.05)
        made.append(1)
        return 7

    threads = [threading.Thread(target=cache.get_or_make, args=("a", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
