"""What sinks share: an idempotent producer, its start and stop, the size of records."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Self

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from runtime.errors import RecordTooLarge
from runtime.kafka.connection import connection_arguments
from runtime.kafka.translation import translated
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
            await self._close()
            raise

    async def stop(self) -> None:
        """Sends what is buffered, then closes; gives up after `stop_timeout_s`, because the library's stop can hang."""
        await self._close()

    async def _close(self) -> None:
        if self._producer is None:
            return
        producer, self._producer = self._producer, None
        try:
            await asyncio.wait_for(producer.stop(), self._settings.stop_timeout_s)
        except (TimeoutError, KafkaError) as error:
            log.debug("the producer did not stop by itself", cause=repr(error))
            await _abandon(producer, self._settings.stop_timeout_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()


async def _abandon(producer: AIOKafkaProducer, limit_s: float) -> None:
    """Ends what a stop that was cut short leaves running: the library's sender would try again for ever, and could
    write after the producer that replaces this one.
    """
    sender = producer._sender.sender_task  # noqa: SLF001 - aiokafka offers no other way to stop without sending the rest
    closing = asyncio.create_task(producer.client.close(), name="closing a producer's connections")
    ending = {closing} if sender is None else {closing, sender}
    # The first cancellation ends the sender's loop, which then waits for its requests; the second one ends those.
    for _ in range(2):
        if sender is not None:
            sender.cancel()
        await asyncio.wait(ending, timeout=limit_s / 2)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)


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
