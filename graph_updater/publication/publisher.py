"""Publishes state changes while this updater leads; follows what the leader has published while it stands by.

How a batch is published, so that nothing is lost wherever it is interrupted:
    1. the states, in transactions of bounded size;
    2. the dead letters, each transaction with the offsets up to the first letter that is still to come;
    3. with the last of them, the offsets of the batch.
Mostly all of this is one transaction. Readers see each transaction whole. After a crash the next leader finds the
committed offsets before the batch. It publishes what they do not cover from its own state, made of the same records.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from graph_updater.metrics import UpdaterMetrics
from graph_updater.publication.outbox import CommittedOffsets, Offsets, Outbox, StateBatch
from graph_updater.publication.standby import Leadership, LeaderTerm
from runtime.clock import Clock
from runtime.errors import TransactionFailed
from runtime.kafka import TopicFollower
from runtime.records import OutRecord

MAX_TRANSACTION_RECORDS: Final = 5_000
"""Few enough to be written well within the transaction time-out on a slow broker."""
log = structlog.get_logger(__name__)


class Publisher:
    """Owns everything about publishing: the batches awaiting it, the term of leadership, the offsets published.

    Args:
        leadership: whether this updater leads.
        outbox: the batches not confirmed as published.
        follower: tells the offsets that leaders have committed.
        encode: makes records of a batch.
        metrics: counts what is published.
        clock: for freshness.

    Attributes:
        published: the offsets of the last batch that this updater published.
    """

    def __init__(
        self,
        leadership: Leadership,
        outbox: Outbox,
        follower: TopicFollower,
        encode: Callable[[StateBatch], Awaitable[Sequence[OutRecord]]],
        metrics: UpdaterMetrics,
        clock: Clock,
    ) -> None:
        self._leadership = leadership
        self._outbox = outbox
        self._follower = follower
        self._encode = encode
        self._metrics = metrics
        self._clock = clock
        self._reconciled_term: LeaderTerm | None = None
        self.published: Offsets = {}

    @property
    def is_leading(self) -> bool:
        """Whether batches are published now, or kept until the leader has published them."""
        return self._leadership.term is not None

    @property
    def needs_full_republish(self) -> bool:
        """Whether the next batch must name every state."""
        return self.is_leading and self._outbox.full_republish

    @property
    def pending(self) -> int:
        """Batches that are not confirmed as published."""
        return len(self._outbox)

    def add(self, batch: StateBatch) -> None:
        """Takes in a batch to be published, by this updater or by the leader."""
        self._outbox.add(batch)

    async def flush(self) -> bool:
        """Publishes all pending batches. False if not leading, or if that failed; they stay pending then.

        Raises:
            BrokerError: on anything that trying again does not mend.
        """
        term = self._leadership.term
        if term is None:
            self._outbox.watch_leader(await self._committed())
            return False
        if term is not self._reconciled_term:  # an earlier leader, or this one with a failed transaction, got so far
            self._outbox.drop_covered(await self._committed())
            self._reconciled_term = term
        batch = self._outbox.contents()
        return batch is None or await self._publish(term, batch)

    async def _publish(self, term: LeaderTerm, batch: StateBatch) -> bool:
        try:
            with self._metrics.publishing.time():
                for part in batch.split(MAX_TRANSACTION_RECORDS):
                    await transact(term, self._leadership.group_id, await self._encode(part), part.offsets)
        except TransactionFailed as error:
            log.warning("a batch was not published", cause=str(error))
            return False
        self._outbox.published(batch)
        self.published = batch.offsets
        self._metrics.published.labels("user").inc(len(batch.users))
        self._metrics.published.labels("item").inc(len(batch.items))
        self._metrics.observe_freshness(batch.event_times_ms, self._clock.wall_ms())
        return True

    async def _committed(self) -> CommittedOffsets:
        """Per input partition, the offset up to which leaders have published everything."""
        return await self._follower.committed(self._follower.assignment())


async def transact(term: LeaderTerm, group_id: str, records: Sequence[OutRecord], offsets: Offsets) -> None:
    """Writes records, and the offsets if there are any, in one transaction.

    A state too large to be written is skipped with a warning, so that it does not hold up the rest; readers keep its
    last published version.

    Raises:
        TransactionFailed: the term is over; nothing was written, or that is not known.
        BrokerError: on anything that trying again does not mend.
    """
    async with term.transaction() as transaction:
        for record in records:
            if not transaction.fits(record):
                log.warning(
                    "a state is too large to be published", topic=record.topic, key=record.key, bytes=record.size
                )
        if offsets:  # first: while a broker writes this down it refuses the transaction's records
            await transaction.commit_offsets(group_id, offsets)
        await transaction.send_all(filter(transaction.fits, records))
