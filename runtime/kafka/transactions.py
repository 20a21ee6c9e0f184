"""Transactions: records and offsets are committed together or not at all.

There is one transactional producer per input partition, its id made of group, topic and partition: the partition's next
owner initialises the same id, which aborts the earlier owner's open transaction and fences that owner (the client
library lacks the fencing by group of KIP-447).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
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
from runtime.kafka.batches import Batch, batched, count_partitions, enqueue
from runtime.kafka.committing import vendor_offsets
from runtime.kafka.sink import ProducerOwner, check_size
from runtime.kafka.translation import translate, translated
from runtime.records import OutRecord, TopicPartition
from runtime.settings import KafkaSettings

_DEFINITE: Final = (TransactionFailed, RecordTooLarge, NotAuthorized, TopicMissing)
"""Errors after which the transaction's outcome is known."""

_RETRY_BACKOFF_MS: Final = 20
"""For a few milliseconds brokers often refuse a transaction's next step while they still write the last one. With the
library's default of 100 ms one transaction in 25 took that much longer.
"""
log = structlog.get_logger(__name__)


class Transaction:
    """The operations inside a transaction. Made by `TransactionalSink.transaction`."""

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
        with _usable(self._producer, f"writing to {record.topic} in a transaction"):
            self._sent.append(await enqueue(self._producer, Batch((record,))))

    async def send_all(self, records: Iterable[OutRecord]) -> None:
        """Adds many records, in their order per partition; several times quicker than one by one.

        Raises:
            RecordTooLarge: if one exceeds `max_record_bytes`; see `fits`.
            BrokerError: if one cannot be taken; the transaction is over.
        """
        wanted = list(records)
        for record in wanted:
            check_size(record, self._settings)
        with _usable(self._producer, "writing in a transaction"):
            partitions = await count_partitions(self._producer, {record.topic for record in wanted})
            for batch in batched(wanted, partitions, self._settings.batch_bytes):
                self._sent.append(await enqueue(self._producer, batch))

    def fits(self, record: OutRecord) -> bool:
        """Whether the record's size is within the limit."""
        return record.any_size or record.size <= self._settings.max_record_bytes

    async def commit_offsets(
        self,
        group_id: str,
        offsets: Mapping[TopicPartition, int],
        metadata: Mapping[TopicPartition, str] = MappingProxyType({}),
    ) -> None:
        """Adds the group's next offsets to be read, each with the text that is to stand beside it.

        Raises:
            BrokerError: if the broker refuses; the transaction is over.
        """
        with _usable(self._producer, f"adding offsets of {group_id} to a transaction"):
            await self._producer.send_offsets_to_transaction(vendor_offsets(offsets, metadata), group_id)

    async def delivered(self) -> None:
        """Waits for every record: the library would commit a transaction even if the broker refused part of it.

        Raises:
            BrokerError: if the broker refused one.
        """
        with _usable(self._producer, "writing in a transaction"):
            try:
                await asyncio.gather(*self._sent)
            except KafkaError as error:
                note = _note_of(self._producer)
                first = note.exception() if note is not None and note.done() and not note.cancelled() else None
                raise (first or error) from error  # where a topic is forbidden, records of the others are refused too

    def abandon(self) -> None:
        """Says that nobody will ask what became of the records: each of them would be a traceback in the log otherwise,
        and so would the library's own note of the failure.
        """
        note = _note_of(self._producer)
        for future in self._sent if note is None else [*self._sent, note]:
            future.add_done_callback(_retrieve)


class TransactionalSink(ProducerOwner):
    """A producer with a transactional id. Starting it aborts an open transaction of the id's earlier holder and
    fences that holder. The broker aborts what it leaves open when it stops.

        async with sink.transaction() as transaction:
            await transaction.send(record)
            await transaction.commit_offsets(group_id, {partition: next_offset})

    Args:
        settings: how to reach Kafka.
        transactional_id: the last to start with this id fences all others.
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
        """One transaction: committed at the end of the block, aborted if it raises, all under one time-out.

        An error of the block is raised once the transaction has been aborted; the sink stays usable.

        Raises:
            Fenced: another producer holds the id now, or the broker aborted the transaction: nothing was committed.
            TransactionTimedOut: it did not finish in time.
            TransactionFailed: any other failure that leaves the outcome unknown. After any of these three, restart the
                sink if the work is still ours, and ask for the committed offset.
            BrokerError: the broker refused a record or the user: nothing was committed, the sink stays usable.
        """
        doing = f"a transaction of {self.transactional_id}"
        try:
            with translated(doing):
                async with asyncio.timeout(self._limit_s) as limit:
                    with _usable(self._producer, doing):
                        await self._producer.begin_transaction()
                    transaction = Transaction(self._producer, self._settings)
                    try:
                        yield transaction
                        await transaction.delivered()
                    except BaseException as error:
                        if isinstance(error, Exception):
                            await self._abort()
                        transaction.abandon()
                        raise
                    with _usable(self._producer, doing):
                        await self._producer.commit_transaction()
        except BrokerError as error:
            if limit.expired():
                raise TransactionTimedOut(f"{doing} did not finish within {self._limit_s:g} s") from error
            raise

    async def _abort(self) -> None:
        """Aborts the open transaction. A failure does not matter: the broker aborts it after its time-out."""
        try:
            await self._producer.abort_transaction()
        except (KafkaError, AssertionError) as error:
            log.info("abort refused", transactional_id=self.transactional_id, cause=repr(error))


def _retrieve(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


@contextmanager
def _usable(producer: AIOKafkaProducer, doing: str) -> Iterator[None]:
    """Translates errors; those that leave the transaction's outcome unknown become `TransactionFailed`.

    A producer that failed in the background raises assertion and usage errors on further calls. Only what made it fail
    tells whether another one holds the id now.
    """
    try:
        with translated(doing):
            yield
    except _DEFINITE:
        raise
    except BrokerError as error:
        raise TransactionFailed(f"{error}; ask for the committed offset to learn the outcome") from error
    except (AssertionError, IllegalOperation) as error:
        failure = _failure_of(producer)
        if failure is None or isinstance(translate(failure, doing), Fenced):
            raise Fenced(f"{doing}: another producer took the transactional id ({failure or error})") from error
        raise TransactionFailed(f"{doing}: the producer failed before ({failure!r})") from error


def _note_of(producer: AIOKafkaProducer) -> asyncio.Future[Any] | None:
    """Where the library notes what made the transaction fail first."""
    manager = getattr(producer, "_txn_manager", None)  # aiokafka offers no other way
    return getattr(manager, "_transaction_waiter", None)


def _failure_of(producer: AIOKafkaProducer) -> BaseException | None:
    """What ended the library's sender, if anything did."""
    sender = getattr(getattr(producer, "_sender", None), "sender_task", None)  # aiokafka offers no other way
    return sender.exception() if sender is not None and sender.done() and not sender.cancelled() else None
