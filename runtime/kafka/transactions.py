"""Records and offsets together or not at all.

One transactional producer per input partition, its id made of group, topic and partition: whoever is assigned the
partition next initialises the same id, which ends the transaction of an owner of before and fences it off (the client
library lacks the group's own fencing, KIP-447).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as VendorPartition
from aiokafka.errors import IllegalOperation, KafkaError

from runtime.errors import (
    BrokerError,
    Fenced,
    NotAuthorized,
    RecordTooLarge,
    TopicMissing,
    TransactionFailed,
    TransactionTimedOut,
)
from runtime.kafka.batches import Batches
from runtime.kafka.sink import ProducerOwner, check_size, enqueue
from runtime.kafka.translation import translated
from runtime.records import OutRecord, TopicPartition
from runtime.settings import KafkaSettings

_DEFINITE: Final = (TransactionFailed, RecordTooLarge, NotAuthorized, TopicMissing)
"""Errors that say what became of the transaction."""

_RETRY_BACKOFF_MS: Final = 20
"""Brokers often refuse for some milliseconds what belongs to a transaction whose last step they still write down. With
the library's 100 ms one transaction in twenty-five took that much longer.
"""
log = structlog.get_logger(__name__)


class Transaction:
    """What can be done inside a transaction. Made by `TransactionalSink.transaction`."""

    def __init__(self, producer: AIOKafkaProducer, settings: KafkaSettings) -> None:
        self._producer = producer
        self._settings = settings
        self._sent: list[asyncio.Future[Any]] = []

    async def send(self, record: OutRecord) -> None:
        """Adds a record; it can be read once the transaction is committed.

        Raises:
            RecordTooLarge: if it exceeds `max_record_bytes`; caught inside the transaction, this one can go on.
            BrokerError: if it cannot be taken; the transaction is over.
        """
        check_size(record, self._settings)
        with _usable(f"writing to {record.topic} in a transaction"):
            self._sent.append(await enqueue(self._producer, record))

    async def send_all(self, records: Iterable[OutRecord]) -> None:
        """Adds many records, in their order per partition; several times quicker than one by one.

        Raises:
            RecordTooLarge: if one exceeds `max_record_bytes`; see `fits`.
            BrokerError: if one cannot be taken; the transaction is over.
        """
        batches = Batches(self._producer)
        with _usable("writing in a transaction"):
            for record in records:
                check_size(record, self._settings)
                self._sent += await batches.add(record)
            self._sent += await batches.finish()

    def fits(self, record: OutRecord) -> bool:
        """Whether the record's size is within the limit."""
        return record.any_size or record.size <= self._settings.max_record_bytes

    async def commit_offsets(self, group_id: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Adds the group's next offsets to be read.

        Raises:
            BrokerError: if the broker refuses; the transaction is over.
        """
        with _usable(f"adding offsets of {group_id} to a transaction"):
            await self._producer.send_offsets_to_transaction(
                {VendorPartition(*partition): offset for partition, offset in offsets.items()}, group_id
            )

    async def delivered(self) -> None:
        """Waits for every record. The library would commit a transaction of which the broker refused a part.

        Raises:
            BrokerError: if the broker refused one.
        """
        with _usable("writing in a transaction"):
            await asyncio.gather(*self._sent)


class TransactionalSink(ProducerOwner):
    """A producer with a transactional id. Its start ends an open transaction of the id's earlier holder and fences that
    one off; what it leaves open when it stops is taken back by the broker.

        async with sink.transaction() as transaction:
            await transaction.send(record)
            await transaction.commit_offsets(group_id, {partition: next_offset})

    Args:
        settings: how to reach Kafka.
        transactional_id: whoever starts with this id last fences all others off.
    """

    def __init__(self, settings: KafkaSettings, transactional_id: str) -> None:
        super().__init__(
            settings,
            f"taking over the transactional id {transactional_id}",
            transactional_id=transactional_id,
            transaction_timeout_ms=settings.transaction_timeout_ms,
            retry_backoff_ms=_RETRY_BACKOFF_MS,
        )
        self.transactional_id = transactional_id
        self._limit_s = settings.transaction_timeout_ms / 1000

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One transaction: committed at the end of the block, taken back if it raises. All of it under a time-out.

        What the block raises comes out of it once the transaction has been taken back; the sink stays usable.

        Raises:
            Fenced: another producer holds the id now, or the broker gave up on us: nothing of it happened.
            TransactionTimedOut: it did not finish in time.
            TransactionFailed: any other failure that leaves the outcome open. After each of these three build a new
                sink, if this one's work is still ours, and ask for the committed offset.
            BrokerError: the broker refused a record or the user: nothing of it happened, the sink stays usable.
        """
        doing = f"a transaction of {self.transactional_id}"
        try:
            with translated(doing):
                async with asyncio.timeout(self._limit_s) as limit:
                    with _usable(doing):
                        await self._producer.begin_transaction()
                    transaction = Transaction(self._producer, self._settings)
                    try:
                        yield transaction
                        await transaction.delivered()
                    except Exception:
                        await self._abort()
                        raise
                    with _usable(doing):
                        await self._producer.commit_transaction()
        except BrokerError as error:
            if limit.expired():
                raise TransactionTimedOut(f"{doing} did not finish within {self._limit_s:g} s") from error
            raise

    async def _abort(self) -> None:
        """Takes the open transaction back. A failure here is of no interest: the broker does the same in time."""
        try:
            await self._producer.abort_transaction()
        except (KafkaError, AssertionError) as error:
            log.info("abort refused", transactional_id=self.transactional_id, cause=repr(error))


@contextmanager
def _usable(doing: str) -> Iterator[None]:
    """Translates, and turns what leaves the transaction's outcome open into `TransactionFailed`.

    A producer that was fenced in the background refuses further calls by assertions and usage errors.
    """
    try:
        with translated(doing):
            yield
    except _DEFINITE:
        raise
    except BrokerError as error:
        raise TransactionFailed(f"{error}; whether it happened is to be asked anew") from error
    except (AssertionError, IllegalOperation) as error:
        raise Fenced(f"{doing}: the producer was fenced off or failed before ({error})") from error
