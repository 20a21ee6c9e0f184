"""Writes records with an idempotent producer and reports the outcome of each."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Self

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from runtime.errors import BrokerError, DeliveryFailed, RecordTooLarge
from runtime.kafka.connection import connection_arguments
from runtime.kafka.translation import translate, translated
from runtime.records import OutRecord
from runtime.settings import KafkaSettings

_MAX_REQUEST_BYTES: Final = 64 * 1_048_576
"""More than any broker accepts: `check_size` enforces the configured limit."""
log = structlog.get_logger(__name__)


def make_producer(settings: KafkaSettings, **more: Any) -> AIOKafkaProducer:  # noqa: ANN401 - aiokafka's own arguments
    """An idempotent aiokafka producer: acknowledged by all replicas, no duplicates by retries."""
    with translated("preparing to write"):
        return AIOKafkaProducer(
            **connection_arguments(settings),
            acks="all",
            enable_idempotence=True,
            compression_type=None if settings.compression == "none" else settings.compression,
            linger_ms=settings.linger_ms,
            max_batch_size=settings.batch_bytes,
            max_request_size=_MAX_REQUEST_BYTES,
            **more,
        )


class ProducerOwner:
    """What sinks share: a producer that exists between start and stop.

    Args:
        settings: how to reach Kafka.
        connecting: what a failed start was about, for the error.
        more: arguments of the producer.
    """

    def __init__(self, settings: KafkaSettings, connecting: str, **more: Any) -> None:  # noqa: ANN401 - see make_producer
        self._settings = settings
        self._connecting = connecting
        self._more = more
        self._producer: Any = None

    async def start(self) -> None:
        """Connects.

        Raises:
            BrokerError: if that does not succeed within `connect_timeout_s`.
        """
        self._producer = make_producer(self._settings, **self._more)
        try:
            with translated(self._connecting):
                await asyncio.wait_for(self._producer.start(), self._settings.connect_timeout_s)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Sends what is buffered, then closes; gives up after `stop_timeout_s`, because the library's stop can hang."""
        if self._producer is None:
            return
        producer, self._producer = self._producer, None
        try:
            await asyncio.wait_for(producer.stop(), self._settings.stop_timeout_s)
        except (TimeoutError, KafkaError) as error:
            log.warning("the producer did not stop cleanly", cause=repr(error))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()


def check_size(record: OutRecord, settings: KafkaSettings) -> None:
    """Checks a record's size before it is sent.

    Raises:
        RecordTooLarge: if it exceeds `max_record_bytes` and is not exempt.
    """
    if record.size > settings.max_record_bytes and not record.any_size:
        raise RecordTooLarge(
            f"a record of {record.size} bytes for {record.topic} exceeds kafka.max_record_bytes "
            f"({settings.max_record_bytes}); raise it together with the topic's max.message.bytes"
        )


async def enqueue(producer: AIOKafkaProducer, record: OutRecord) -> asyncio.Future[Any]:
    """Hands a record to the producer; waits only for room in its buffer. The future is aiokafka's.

    Raises:
        BrokerError: if it cannot be taken.
    """
    with translated(f"writing to {record.topic}"):
        acknowledged: asyncio.Future[Any] = await producer.send(
            record.topic,
            value=record.value,
            key=record.key,
            partition=record.partition,
            timestamp_ms=record.timestamp_ms,
            headers=list(record.headers),
        )
    return acknowledged


class RecordSink(ProducerOwner):
    """Writes records at least once, without duplicates by retries.

        async with RecordSink(settings) as sink:
            delivery = await sink.send(record)   # in the buffer
            await delivery                       # acknowledged by all replicas in sync

    While the broker is unreachable deliveries wait; a failure is final. The first failure that concerns more than its
    own record is also raised by every later `send` and `flush`: nothing after it may be taken for delivered.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__(settings, f"connecting to {settings.bootstrap_servers}")
        self._in_flight: set[asyncio.Future[None]] = set()
        self._failure: BrokerError | None = None

    async def send(self, record: OutRecord) -> asyncio.Future[None]:
        """Buffers a record; returns a future that is done when all replicas in sync have it.

        Raises:
            RecordTooLarge: if it exceeds `max_record_bytes`; the sink stays usable.
            BrokerError: if it cannot be taken, or an earlier delivery failed.
        """
        check_size(record, self._settings)
        self.raise_failure()
        acknowledged = await enqueue(self._producer, record)
        delivery: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_flight.add(delivery)
        acknowledged.add_done_callback(lambda done: self._settle(delivery, done, record.topic))
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
        if self._in_flight:
            await asyncio.wait(set(self._in_flight))
        self.raise_failure()

    @property
    def in_flight(self) -> int:
        """Records buffered or on their way."""
        return len(self._in_flight)

    def _settle(self, delivery: asyncio.Future[None], acknowledged: asyncio.Future[Any], topic: str) -> None:
        self._in_flight.discard(delivery)
        error = None if acknowledged.cancelled() else acknowledged.exception()
        failure = _failure_of(acknowledged, error, topic)
        if failure is not None and not isinstance(failure, RecordTooLarge) and self._failure is None:
            self._failure = failure
        if delivery.cancelled():
            return
        if failure is None:
            delivery.set_result(None)
        else:
            delivery.set_exception(failure)
            delivery.exception()  # marks it as retrieved: `flush` raises it if nobody awaits this future

    def raise_failure(self) -> None:
        """Raises the error of an earlier failed delivery.

        Raises:
            DeliveryFailed: if one did.
        """
        if self._failure is not None:
            raise DeliveryFailed(f"an earlier record was not delivered: {self._failure}") from self._failure


def _failure_of(acknowledged: asyncio.Future[Any], error: BaseException | None, topic: str) -> BrokerError | None:
    if acknowledged.cancelled():
        return DeliveryFailed(f"writing to {topic}: the producer was stopped before the broker acknowledged")
    if error is None:
        return None
    failure = translate(error, f"writing to {topic}")
    failure.__cause__ = error
    return failure
