"""Publishes state changes while this updater leads; follows what the leader has published while it stands by.

A batch is published in parts of bounded size (`publication.pending`), one transaction each, and readers see each
transaction whole. Mostly one part is enough. What is published stays published if a later part fails: the next term
goes on with the rest. After a crash the next leader finds committed offsets before the batch. It publishes what they do
not cover from its own state, made of the same records.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from graph_updater.metrics import UpdaterMetrics
from graph_updater.publication.batch import CommittedOffsets, Offsets, StateBatch
from graph_updater.publication.outbox import Outbox
from graph_updater.publication.standby import Leadership, LeaderTerm
from graph_updater.publication.tracing import UpdateTracing
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
        tracing: makes traces of interactions; None where they are off.

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
        tracing: UpdateTracing | None = None,
    ) -> None:
        self._leadership = leadership
        self._outbox = outbox
        self._follower = follower
        self._encode = encode
        self._metrics = metrics
        self._clock = clock
        self._tracing = tracing
        self._reconciled_term: LeaderTerm | None = None
        self.published: Offsets = {}

    @property
    def is_leading(self) -> bool:
        """Whether batches are published now, or kept until the leader has published them."""
        return self._leadership.term is not None

    @property
    def stands_by(self) -> bool:
        """Whether publishing is another updater's."""
        return not self._leadership.is_elected

    @property
    def pending(self) -> int:
        """Batches that are not confirmed as published."""
        return len(self._outbox)

    @property
    def letter_bytes(self) -> int:
        """Bytes of the dead letters that are not confirmed as published."""
        return self._outbox.letter_bytes

    def add(self, batch: StateBatch) -> None:
        """Takes in a batch to be published, by this updater or by the leader."""
        self._outbox.add(batch)

    async def drop_published(self) -> None:
        """Drops what a leader has published, as a standby does.

        Raises:
            BrokerError: if the broker cannot be asked.
        """
        self._outbox.watch_leader(await self._committed())

    async def flush(self) -> bool:
        """Publishes the next part of what is pending. False if not leading, or if that failed; it stays pending then.

        Raises:
            BrokerError: if the broker refuses or does not answer; what is pending stays.
        """
        term = self._leadership.term
        if term is None:
            await self.drop_published()
            return False
        if term is not self._reconciled_term:  # an earlier leader, or this one with a failed transaction, got so far
            self._outbox.drop_covered(await self._committed())
            self._reconciled_term = term
        part = self._outbox.next_part(MAX_TRANSACTION_RECORDS)
        if part is not None and not await self._publish(term, part):
            return False
        if not self._outbox:
            self._outbox.note_published()
        return True

    async def _publish(self, term: LeaderTerm, part: StateBatch) -> bool:
        published = False
        updates = self._tracing.begin(part.traced) if self._tracing is not None and part.traced else None
        try:
            with self._metrics.publishing.time():
                records = await self._encode(part)
                if updates is not None:
                    records = updates.labelled(records)
                await transact(term, self._leadership.group_id, records, part.offsets)
            published = True
        except TransactionFailed as error:
            log.warning("changes were not published and will be again", cause=str(error))
        finally:
            if not published:
                self._outbox.put_back(part)
        if not published:
            return False
        if updates is not None:
            updates.end(self._clock.wall_ms())
        self.published = part.offsets or self.published
        self._metrics.published.labels("user").inc(len(part.users))
        self._metrics.published.labels("item").inc(len(part.items))
        self._metrics.observe_freshness(part.event_times_ms, self._clock.wall_ms())
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
