"""One stage's work: a Redis stream whose messages are leased, renewed, acknowledged, and buried when nothing helps.

A message belongs to the consumer that claimed it until it is acknowledged or its lease runs out in silence; then the
next claim takes it over (XAUTOCLAIM), and the old owner can neither renew nor acknowledge it. At least once, therefore:
the steps are written so that doing one twice changes nothing. Acknowledged messages are deleted, so the stream's
length is what is left to do.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from redis import ResponseError

from gigamask.job import Stage
from gigamask.queue import keys, scripts
from gigamask.queue.connection import Connection, Word


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message in the hand of one consumer. deliveries: how often it was delivered, this one included."""

    id: str
    fields: Mapping[str, str]
    consumer: str
    deliveries: int

    @property
    def job_id(self) -> str:
        return self.fields["job"]

    @property
    def region(self) -> int | None:
        return int(self.fields["region"]) if "region" in self.fields else None


def new_consumer() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class WorkStream:
    def __init__(self, connection: Connection, stage: Stage, lease_s: float) -> None:
        self._connection = connection
        self._stage = stage
        self._key = keys.work(stage)
        self._lease_ms = max(1, round(lease_s * 1000))
        self._create_group()

    def claim(self, consumer: str, block_ms: int) -> Delivery | None:
        """What fell silent first, then what is new; waits `block_ms` for it, 0 = not at all."""
        try:
            return self._claim_silent(consumer) or self._claim_new(consumer, block_ms)
        except ResponseError as exc:
            if not _is_missing_group(exc):
                raise
            self._create_group()
            return None

    def renew(self, delivery: Delivery) -> bool:
        """Start the lease anew. False when it was lost: another consumer has the message, or nobody any more."""
        return self._if_owner(scripts.RENEW, delivery)

    def acknowledge(self, delivery: Delivery) -> bool:
        """Done: delete the message. False when the lease was lost."""
        return self._if_owner(scripts.ACKNOWLEDGE, delivery)

    def put_back(self, delivery: Delivery) -> bool:
        """The next claim has it, and counts this delivery as none. False when the lease was lost."""
        return self._if_owner(scripts.PUT_BACK, delivery, delivery.deliveries - 1)

    def bury(self, delivery: Delivery, reason: str) -> bool:
        """Move the message to the dead letters. False when the lease was lost."""
        letter: dict[str, Word] = {
            **delivery.fields,
            "stage": self._stage,
            "deliveries": delivery.deliveries,
            "reason": reason,
        }
        words = [word for pair in letter.items() for word in pair]
        return self._if_owner(scripts.BURY, delivery, *words)

    def length(self) -> int:
        """Messages that are not acknowledged: waiting, or in somebody's hand."""
        return int(self._connection.call("XLEN", self._key))

    def leave(self, consumer: str) -> None:
        """Forget a consumer that holds nothing."""
        self._connection.run(scripts.LEAVE, [self._key], [keys.GROUP, consumer])

    def _claim_silent(self, consumer: str) -> Delivery | None:
        words: list[Word] = [keys.GROUP, consumer, self._lease_ms]
        found = self._connection.run(scripts.CLAIM_SILENT, [self._key], words)
        if found is None:
            return None
        message_id, flat, deliveries = found
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return Delivery(message_id, fields, consumer, deliveries)

    def _claim_new(self, consumer: str, block_ms: int) -> Delivery | None:
        wait = ("BLOCK", block_ms) if block_ms else ()  # BLOCK 0 would wait for ever
        words = ("XREADGROUP", "GROUP", keys.GROUP, consumer, "COUNT", 1, *wait, "STREAMS", self._key, ">")
        answer = self._connection.call(*words)
        if not answer:
            return None
        ((_key, ((message_id, fields),)),) = answer
        return Delivery(message_id, fields, consumer, 1)

    def _if_owner(self, lua: str, delivery: Delivery, *words: Word) -> bool:
        owned = [keys.GROUP, delivery.consumer, delivery.id, *words]
        try:
            return bool(self._connection.run(lua, [self._key, keys.DEAD], owned))
        except ResponseError as exc:
            if _is_missing_group(exc):
                return False
            raise

    def _create_group(self) -> None:
        """At 0, so that messages which were added before the first worker came are delivered too."""
        try:
            self._connection.call("XGROUP", "CREATE", self._key, keys.GROUP, "0", "MKSTREAM")
        except ResponseError as exc:
            if not str(exc).startswith("BUSYGROUP"):
                raise


def _is_missing_group(exc: ResponseError) -> bool:
    """Redis was emptied under us."""
    return str(exc).startswith("NOGROUP")
