"""Writes records with an idempotent producer, reports the outcome of each, and sends again what was refused."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from runtime.errors import BrokerError, BrokerUnreachable, DeliveryFailed, RecordTooLarge
from runtime.kafka.batches import Batch, batched, count_partitions, enqueue
from runtime.kafka.sink import ProducerOwner, check_size
from runtime.kafka.translation import translate
from runtime.observability.outages import Outages
from runtime.records import OutRecord
from runtime.settings import KafkaSettings

_RETRY_PAUSE_S: Final = 0.5
_RENEWAL_PAUSE_S: Final = 2.0
"""Between two new producers: what a person has to mend at the broker must not make a storm of attempts."""
_RENEWING: Final = "starting a new producer"
Result = TypeVar("Result")


class RecordSink(ProducerOwner):
    """Writes records at least once, without duplicates by retries.

        async with RecordSink(settings) as sink:
            delivery = await sink.send(record)   # in the buffer
            await delivery                       # acknowledged by all replicas in sync

    While the broker is unreachable deliveries wait; they fail once their partition has had no leader for
    `request_timeout_ms`. With `outages`, a record that failed so, or that the broker refused for another reason than
    its size, is sent again until it is delivered, and so is everything after it; the order within a partition stays.
    Without, a failure is final: the first one that concerns more than its own record is also raised by every
    later `send` and `flush`, as nothing after it may be taken for delivered.

    Args:
        settings: how to reach Kafka.
        outages: where failures are noted and waited out; None: they are raised.
    """

    def __init__(self, settings: KafkaSettings, outages: Outages | None = None) -> None:
        super().__init__(settings, f"connecting to {settings.bootstrap_servers}")
        self._outages = outages
        self._unconfirmed: dict[asyncio.Future[None], Batch] = {}  # in the order sent
        self._noted: set[str] = set()  # topics
        self._renewal: asyncio.Task[None] | None = None
        self._needs_renewal = False
        self._renew_at = -math.inf
        self._failure: BrokerError | None = None

    async def stop(self) -> None:
        """As in `ProducerOwner`. Deliveries without an acknowledgement by then fail."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await super().stop()
        for delivery, batch in list(self._unconfirmed.items()):
            self._fail(delivery, DeliveryFailed(f"writing to {batch.topic}: stopped before the broker acknowledged"))

    async def send(self, record: OutRecord) -> asyncio.Future[None]:
        """Buffers a record; returns a future that is done when all replicas in sync have it.

        Raises:
            RecordTooLarge: if it exceeds `max_record_bytes`; the sink stays usable.
            BrokerError: without `outages`: if it cannot be taken, or an earlier delivery failed.
        """
        check_size(record, self._settings)
        self.raise_failure()
        return await self._send(Batch((record,)))

    async def send_all(self, records: Sequence[OutRecord]) -> list[tuple[Batch, asyncio.Future[None]]]:
        """Buffers many records, in their order per partition; several times quicker than one by one.

        Returns:
            the batches that they travel in, each with a future as of `send`: a batch is delivered or refused whole.

        Raises:
            RecordTooLarge: if one exceeds `max_record_bytes`; none was sent, and the sink stays usable.
            BrokerError: as in `send`.
        """
        for record in records:
            check_size(record, self._settings)
        self.raise_failure()
        topics = {record.topic for record in records}
        partitions = await self._persist(min(topics), lambda: count_partitions(self._producer, topics))
        batches = batched(records, partitions, self._settings.batch_bytes)
        return [(batch, await self._send(batch)) for batch in batches]

    async def _send(self, batch: Batch) -> asyncio.Future[None]:
        delivery: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._persist(batch.topic, lambda: self._enqueue(batch, delivery))
        return delivery

    async def _persist(self, topic: str, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Tries until the producer that there is then can do it."""
        while True:
            await self._renewed()
            producer = self._producer
            try:
                return await attempt()
            except BrokerError as error:
                if producer is self._producer:  # else it was closed because of another record
                    self._note(topic, error)
                    await asyncio.sleep(_RETRY_PAUSE_S)

    def check_size(self, record: OutRecord) -> None:
        """Raises RecordTooLarge for a record that `send` would refuse."""
        check_size(record, self._settings)

    async def send_and_wait(self, record: OutRecord) -> None:
        """Writes one record and waits until it is delivered."""
        await (await self.send(record))

    async def flush(self) -> None:
        """Waits until everything sent so far is delivered.

        Raises:
            BrokerError: if something was not.
        """
        if self._unconfirmed:
            await asyncio.wait(set(self._unconfirmed))
        self.raise_failure()

    @property
    def in_flight(self) -> int:
        """Records buffered or on their way."""
        return sum(len(batch.records) for batch in self._unconfirmed.values())

    def raise_failure(self) -> None:
        """Raises the error of an earlier failed delivery.

        Raises:
            DeliveryFailed: if one did.
        """
        if self._failure is not None:
            raise DeliveryFailed(f"an earlier record was not delivered: {self._failure}") from self._failure

    async def _enqueue(self, batch: Batch, delivery: asyncio.Future[None]) -> None:
        producer = self._producer
        acknowledged = await enqueue(producer, batch)
        self._unconfirmed[delivery] = batch
        acknowledged.add_done_callback(lambda done: self._settle(delivery, done, producer))

    def _settle(self, delivery: asyncio.Future[None], acknowledged: asyncio.Future[Any], producer: object) -> None:
        batch = self._unconfirmed.get(delivery)
        if batch is None:
            return  # settled by another producer
        error = asyncio.CancelledError() if acknowledged.cancelled() else acknowledged.exception()
        if error is None:
            del self._unconfirmed[delivery]
            self._note_success(batch.topic)
            if not delivery.cancelled():
                delivery.set_result(None)
        elif producer is self._producer:  # else it is about to be sent again
            self._settle_failure(delivery, batch.topic, error)

    def _settle_failure(self, delivery: asyncio.Future[None], topic: str, error: BaseException) -> None:
        failure = translate(error, f"writing to {topic}")
        failure.__cause__ = error
        if isinstance(failure, RecordTooLarge):
            self._fail(delivery, failure)
            self._renew_at = -math.inf  # at once: the records behind it wait, and no person has to mend anything
        elif self._outages is None:
            self._failure = self._failure or failure
            self._fail(delivery, failure)
            return
        else:
            self._note(topic, failure)
        self._renew()

    def _fail(self, delivery: asyncio.Future[None], failure: BrokerError) -> None:
        del self._unconfirmed[delivery]
        if not delivery.cancelled():
            delivery.set_exception(failure)
            delivery.exception()  # marks it as retrieved: `flush` raises it if nobody awaits this future

    def _note(self, topic: str, error: BrokerError) -> None:
        """Notes a failed attempt; raises the error where failures are not waited out."""
        if self._outages is None or isinstance(error, RecordTooLarge):
            raise error
        self._noted.add(topic)
        self._outages.note(f"writing to {topic}", error)
        if not isinstance(error, BrokerUnreachable):
            self._renew()

    def _note_success(self, topic: str) -> None:
        if self._outages is not None and topic in self._noted:
            self._noted.discard(topic)
            self._outages.over(f"writing to {topic}")

    def _renew(self) -> None:
        self._needs_renewal = True
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._replace_producer(), name="a new producer")

    async def _renewed(self) -> None:
        while self._renewal is not None and not self._renewal.done():
            await asyncio.wait([self._renewal])
        self.raise_failure()

    async def _replace_producer(self) -> None:
        """Goes on with a new producer, which first sends again what is not confirmed. After a refused batch the old one
        cannot: the broker misses that batch's sequence numbers and refuses all later ones of the partition.
        """
        loop = asyncio.get_running_loop()
        while self._needs_renewal:
            self._needs_renewal = False
            await asyncio.sleep(self._renew_at - loop.time())
            self._renew_at = loop.time() + _RENEWAL_PAUSE_S
            await self._close()
            try:
                await self.start()
                for delivery, batch in list(self._unconfirmed.items()):
                    await self._enqueue_again(batch, delivery)
            except BrokerError as error:
                if self._outages is None:
                    self._failure = error
                    return
                self._outages.note(_RENEWING, error)
                self._needs_renewal = True
            else:
                if self._outages is not None:
                    self._outages.over(_RENEWING)

    async def _enqueue_again(self, batch: Batch, delivery: asyncio.Future[None]) -> None:
        while True:
            try:
                await self._enqueue(batch, delivery)
            except BrokerUnreachable as error:  # no room: the broker has left again
                self._note(batch.topic, error)
                await asyncio.sleep(_RETRY_PAUSE_S)
            else:
                return
