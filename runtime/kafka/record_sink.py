"""Writes records with an idempotent producer, reports the outcome of each, and sends again what was refused."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Final

from runtime.errors import BrokerError, BrokerUnreachable, DeliveryFailed, RecordTooLarge
from runtime.kafka.sink import ProducerOwner, check_size, enqueue
from runtime.kafka.translation import translate
from runtime.observability.outages import Outages
from runtime.records import OutRecord
from runtime.settings import KafkaSettings

_RETRY_PAUSE_S: Final = 0.5
_RENEWAL_PAUSE_S: Final = 2.0
"""Between two new producers: what a person has to mend at the broker must not make a storm of attempts."""
_RENEWING: Final = "starting a new producer"


class RecordSink(ProducerOwner):
    """Writes records at least once, without duplicates by retries.

        async with RecordSink(settings) as sink:
            delivery = await sink.send(record)   # in the buffer
            await delivery                       # acknowledged by all replicas in sync

    While the broker is unreachable deliveries wait. With `outages`, a record that the broker refused for another reason
    than its size is sent again until it is delivered, and so is everything after it; the order within a partition
    stays. Without, a failure is final: the first one that concerns more than its own record is also raised by every
    later `send` and `flush`, as nothing after it may be taken for delivered.

    Args:
        settings: how to reach Kafka.
        outages: where failures are noted and waited out; None: they are raised.
    """

    def __init__(self, settings: KafkaSettings, outages: Outages | None = None) -> None:
        super().__init__(settings, f"connecting to {settings.bootstrap_servers}")
        self._outages = outages
        self._unconfirmed: dict[asyncio.Future[None], OutRecord] = {}  # in the order sent
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
        for delivery, record in list(self._unconfirmed.items()):
            self._fail(delivery, DeliveryFailed(f"writing to {record.topic}: stopped before the broker acknowledged"))

    async def send(self, record: OutRecord) -> asyncio.Future[None]:
        """Buffers a record; returns a future that is done when all replicas in sync have it.

        Raises:
            RecordTooLarge: if it exceeds `max_record_bytes`; the sink stays usable.
            BrokerError: without `outages`: if it cannot be taken, or an earlier delivery failed.
        """
        check_size(record, self._settings)
        self.raise_failure()
        delivery: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        while True:
            await self._renewed()
            producer = self._producer
            try:
                await self._enqueue(record, delivery)
            except BrokerError as error:
                if producer is self._producer:  # else it was closed because of another record
                    self._note(record, error)
                    await asyncio.sleep(_RETRY_PAUSE_S)
            else:
                return delivery

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
        return len(self._unconfirmed)

    def raise_failure(self) -> None:
        """Raises the error of an earlier failed delivery.

        Raises:
            DeliveryFailed: if one did.
        """
        if self._failure is not None:
            raise DeliveryFailed(f"an earlier record was not delivered: {self._failure}") from self._failure

    async def _enqueue(self, record: OutRecord, delivery: asyncio.Future[None]) -> None:
        producer = self._producer
        acknowledged = await enqueue(producer, record)
        self._unconfirmed[delivery] = record
        acknowledged.add_done_callback(lambda done: self._settle(delivery, done, producer))

    def _settle(self, delivery: asyncio.Future[None], acknowledged: asyncio.Future[Any], producer: object) -> None:
        record = self._unconfirmed.get(delivery)
        if record is None:
            return  # settled by another producer
        error = asyncio.CancelledError() if acknowledged.cancelled() else acknowledged.exception()
        if error is None:
            del self._unconfirmed[delivery]
            self._note_success(record.topic)
            if not delivery.cancelled():
                delivery.set_result(None)
        elif producer is self._producer:  # else it is about to be sent again
            self._settle_failure(delivery, record, error)

    def _settle_failure(self, delivery: asyncio.Future[None], record: OutRecord, error: BaseException) -> None:
        failure = translate(error, f"writing to {record.topic}")
        failure.__cause__ = error
        if isinstance(failure, RecordTooLarge):
            self._fail(delivery, failure)
            self._renew_at = -math.inf  # at once: the records behind it wait, and no person has to mend anything
        elif self._outages is None:
            self._failure = self._failure or failure
            self._fail(delivery, failure)
            return
        else:
            self._note(record, failure)
        self._renew()

    def _fail(self, delivery: asyncio.Future[None], failure: BrokerError) -> None:
        del self._unconfirmed[delivery]
        if not delivery.cancelled():
            delivery.set_exception(failure)
            delivery.exception()  # marks it as retrieved: `flush` raises it if nobody awaits this future

    def _note(self, record: OutRecord, error: BrokerError) -> None:
        """Notes a failed attempt; raises the error where failures are not waited out."""
        if self._outages is None or isinstance(error, RecordTooLarge):
            raise error
        self._noted.add(record.topic)
        self._outages.note(f"writing to {record.topic}", error)
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
                for delivery, record in list(self._unconfirmed.items()):
                    await self._enqueue_again(record, delivery)
            except BrokerError as error:
                if self._outages is None:
                    self._failure = error
                    return
                self._outages.note(_RENEWING, error)
                self._needs_renewal = True
            else:
                if self._outages is not None:
                    self._outages.over(_RENEWING)

    async def _enqueue_again(self, record: OutRecord, delivery: asyncio.Future[None]) -> None:
        while True:
            try:
                await self._enqueue(record, delivery)
            except BrokerUnreachable as error:  # no room: the broker has left again
                self._note(record, error)
                await asyncio.sleep(_RETRY_PAUSE_S)
            else:
                return
