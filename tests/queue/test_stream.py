"""A message has one owner at a time, comes back when its owner falls silent, and is deleted once."""

from __future__ import annotations

import time

import pytest

from gigamask.job import Stage
from gigamask.queue import keys
from gigamask.queue.connection import Connection
from gigamask.queue.stream import WorkStream, new_consumer

LEASE_S = 0.3


def add(connection: Connection, *regions: int) -> None:
    for region in regions:
        connection.call("XADD", keys.work(Stage.SEGMENT), "*", "job", "a", "region", region)


@pytest.fixture
def stream(connection: Connection) -> WorkStream:
    return WorkStream(connection, Stage.SEGMENT, LEASE_S)


def test_messages_from_before_the_first_worker_are_delivered(connection: Connection) -> None:
    add(connection, 0, 1)
    stream = WorkStream(connection, Stage.SEGMENT, LEASE_S)
    claimed = [stream.claim("one", 0) for _ in range(3)]
    assert [delivery and delivery.region for delivery in claimed] == [0, 1, None]


def test_a_claim_waits_for_work_no_longer_than_it_was_told(stream: WorkStream) -> None:
    start = time.monotonic()
    assert stream.claim("one", 200) is None
    assert 0.15 < time.monotonic() - start < 2


def test_a_delivery_comes_back_after_the_lease_and_not_before(connection: Connection, stream: WorkStream) -> None:
    add(connection, 7)
    first = stream.claim("one", 0)
    assert first is not None and first.deliveries == 1
    assert stream.claim("two", 0) is None
    time.sleep(LEASE_S + 0.05)
    second = stream.claim("two", 0)
    assert second is not None
    assert (second.id, second.region, second.deliveries) == (first.id, 7, 2)


def test_a_renewed_lease_is_kept(connection: Connection, stream: WorkStream) -> None:
    add(connection, 7)
    held = stream.claim("one", 0)
    assert held is not None
    for _ in range(6):
        time.sleep(LEASE_S / 3)
        assert stream.renew(held)
        assert stream.claim("two", 0) is None


def test_renewing_does_not_count_as_a_delivery(connection: Connection, stream: WorkStream) -> None:
    add(connection, 7)
    held = stream.claim("one", 0)
    assert held is not None
    for _ in range(5):
        stream.renew(held)
    time.sleep(LEASE_S + 0.05)
    again = stream.claim("two", 0)
    assert again is not None and again.deliveries == 2


def test_the_old_owner_can_neither_renew_nor_acknowledge_nor_bury(connection: Connection, stream: WorkStream) -> None:
    add(connection, 7)
    old = stream.claim("one", 0)
    time.sleep(LEASE_S + 0.05)
    new = stream.claim("two", 0)
    assert old is not None and new is not None
    assert not stream.renew(old)
    assert not stream.acknowledge(old)
    assert not stream.bury(old, "late")
    assert stream.length() == 1
    assert stream.renew(new) and stream.acknowledge(new)
    assert stream.length() == 0


def test_an_acknowledged_message_is_gone_for_its_owner_too(connection: Connection, stream: WorkStream) -> None:
    add(connection, 7)
    held = stream.claim("one", 0)
    assert held is not None
    assert stream.acknowledge(held)
    assert not stream.acknowledge(held)
    assert not stream.renew(held)
    time.sleep(LEASE_S + 0.05)
    assert stream.claim("two", 0) is None


def test_a_silent_message_is_found_behind_many_live_ones(connection: Connection) -> None:
    """XAUTOCLAIM with COUNT 1 looks at ten pending entries and stops."""
    lease_s = 2.0  # long beside what forty renewals take on a busy machine
    stream = WorkStream(connection, Stage.SEGMENT, lease_s)
    add(connection, *range(40))
    held = [stream.claim("one", 0) for _ in range(40)]
    time.sleep(lease_s * 0.6)
    for delivery in held[:-1]:
        assert delivery is not None and stream.renew(delivery)
    time.sleep(lease_s * 0.45)
    taken = stream.claim("two", 0)
    assert taken is not None and taken.region == 39


def test_a_buried_message_lies_with_the_dead_and_its_reason(connection: Connection, stream: WorkStream) -> None:
    add(connection, 7)
    held = stream.claim("one", 0)
    assert held is not None and stream.bury(held, "it bites")
    assert stream.length() == 0
    ((_id, letter),) = connection.call("XRANGE", keys.DEAD, "-", "+")
    assert letter == {"job": "a", "region": "7", "stage": "segment", "deliveries": "1", "reason": "it bites"}


def test_an_emptied_redis_loses_the_lease_and_gets_its_group_back(connection: Connection, stream: WorkStream) -> None:
    add(connection, 7)
    held = stream.claim("one", 0)
    assert held is not None
    connection.call("FLUSHALL")
    assert not stream.renew(held)
    assert not stream.acknowledge(held)
    assert stream.claim("one", 0) is None
    add(connection, 8)
    again = stream.claim("one", 0)
    assert again is not None and again.region == 8


def test_a_consumer_that_leaves_forgets_nothing(connection: Connection, stream: WorkStream) -> None:
    add(connection, 7)
    consumer = new_consumer()
    held = stream.claim(consumer, 0)
    stream.leave(consumer)
    time.sleep(LEASE_S + 0.05)
    again = stream.claim("two", 0)
    assert held is not None and again is not None and again.id == held.id
    stream.leave(consumer)
    names = [dict(zip(c[::2], c[1::2], strict=True))["name"] if isinstance(c, list) else c["name"]
             for c in connection.call("XINFO", "CONSUMERS", keys.work(Stage.SEGMENT), keys.GROUP)]  # fmt: skip
    assert names == ["two"]


def test_what_is_put_back_is_claimed_at_once_and_counts_as_not_delivered(
    connection: Connection, stream: WorkStream
) -> None:
    add(connection, 7)
    for _ in range(3):
        held = stream.claim("one", 0)
        assert held is not None and (held.region, held.deliveries) == (7, 1)
        assert stream.put_back(held)
    stream.leave("one")
    consumers = connection.call("XINFO", "CONSUMERS", keys.work(Stage.SEGMENT), keys.GROUP)
    assert "one" not in [flat[1] for flat in consumers], "it holds nothing, and could leave"
    assert not stream.put_back(held), "it is nobody's, not ours"
    again = stream.claim("two", 0)
    assert again is not None and again.deliveries == 1


def test_attempts_from_before_a_putting_back_are_still_counted(connection: Connection, stream: WorkStream) -> None:
    add(connection, 7)
    stream.claim("dies", 0)
    time.sleep(LEASE_S + 0.05)
    held = stream.claim("stops", 0)
    assert held is not None and held.deliveries == 2
    stream.put_back(held)
    again = stream.claim("two", 0)
    assert again is not None and again.deliveries == 2
