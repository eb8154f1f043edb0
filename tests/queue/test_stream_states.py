"""In whatever order claims, renewals, silences and acknowledgements come: no message is lost, or owned by two."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from gigamask.job import Stage
from gigamask.queue import keys
from gigamask.queue.connection import Connection
from gigamask.queue.stream import Delivery, WorkStream

PENDING = "return redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000)"
SILENCE = "return redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'IDLE', 2000000, 'JUSTID')"


class StreamMachine(RuleBasedStateMachine):
    """The model: message id -> (owner, deliveries). Time passes only where a rule says so."""

    connection: Connection
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.connection.call("FLUSHALL")
        self.stream = WorkStream(self.connection, Stage.SEGMENT, 1000)
        self.waiting = 0
        self.owners: dict[str, tuple[str, int]] = {}
        self.silent: set[str] = set()

    @rule()
    def add(self) -> None:
        self.connection.call("XADD", keys.work(Stage.SEGMENT), "*", "job", "a", "region", 0)
        self.waiting += 1

    @rule(target=held, consumer=st.sampled_from("abc"))
    def claim(self, consumer: str):  # type: ignore[no-untyped-def]
        delivery = self.stream.claim(consumer, 0)
        if delivery is None:
            assert not self.silent and not self.waiting
            return multiple()
        if self.silent:
            assert delivery.id in self.silent
            self.silent.discard(delivery.id)
            assert delivery.deliveries == self.owners[delivery.id][1] + 1
        else:
            assert delivery.id not in self.owners and delivery.deliveries == 1
            self.waiting -= 1
        self.owners[delivery.id] = consumer, delivery.deliveries
        return delivery

    def owns(self, delivery: Delivery) -> bool:
        return self.owners.get(delivery.id, ("", 0))[0] == delivery.consumer

    @rule(delivery=held)
    def renew(self, delivery: Delivery) -> None:
        assert self.stream.renew(delivery) == self.owns(delivery)
        if self.owns(delivery):
            self.silent.discard(delivery.id)

    @rule(delivery=consumes(held), dead=st.booleans())
    def end(self, delivery: Delivery, dead: bool) -> None:
        owned = self.owns(delivery)
        assert (self.stream.bury(delivery, "why") if dead else self.stream.acknowledge(delivery)) == owned
        if owned:
            del self.owners[delivery.id]
            self.silent.discard(delivery.id)

    @rule(delivery=held)
    def fall_silent(self, delivery: Delivery) -> None:
        """Its owner has not been heard of for longer than the lease (the server's clock is set back by hand)."""
        if self.owns(delivery):
            self.connection.run(SILENCE, [keys.work(Stage.SEGMENT)], [keys.GROUP, delivery.consumer, delivery.id])
            self.silent.add(delivery.id)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.stream.length() == self.waiting + len(self.owners)
        pending = self.connection.run(PENDING, [keys.work(Stage.SEGMENT)], [keys.GROUP])
        assert {key: (consumer, times) for key, consumer, _idle_ms, times in pending} == self.owners


def test_no_message_is_lost_or_owned_twice(connection: Connection) -> None:
    StreamMachine.connection = connection
    run_state_machine_as_test(
        StreamMachine,
        settings=settings(
            max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
