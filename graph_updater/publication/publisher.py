"""Publishes state changes while this updater leads; follows what the leader has published while it stands by.

A batch is published in parts of bounded size (`publication.pending`), one transaction each, and readers see each
transaction whole. Mostly one part is enough. What is published stays published if a later part fails: the next term
goes on with the rest. After a crash the next leader finds committed offsets before the batch. It publishes what they do
not cover from its own state, made of the same records.

Beside the offsets stands the space of the embeddings in the topics. A leader that finds another one there publishes
every state, and says so before the first of them: until the last is out, whoever leads next does the same. So updaters
whose bundles differ for a while, as during a release, leave nothing behind of a space that is given up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from graph_updater.metrics import UpdaterMetrics
from graph_updater.publication.batch import MIXED, Offsets, Progress, StateBatch, space_note
from graph_updater.publication.byte_rate import ByteRate
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


class States(Protocol):
    """Where the states to be published are."""

    async def encode(self, batch: StateBatch) -> Sequence[OutRecord]:
        """The records of a batch."""

    async def everything(self) -> StateBatch:
        """Every state, and whatever else has changed since the last batch."""


class Publisher:
    """Owns everything about publishing: the batches awaiting it, the term of leadership, the offsets published.

    Args:
        leadership: whether this updater leads.
        outbox: the batches not confirmed as published.
        follower: tells the offsets that leaders have committed.
        states: what is published.
        metrics: counts what is published.
        clock: for freshness.
        tracing: makes traces of interactions; None where they are off.
        bytes_per_s: most bytes of states a second; 0 for no limit.

    Attributes:
        rate: keeps to that.
        outbox: as given.
        published: the offsets of the last batch that this updater published.
    """

    def __init__(
        self,
        leadership: Leadership,
        outbox: Outbox,
        follower: TopicFollower,
        states: States,
        metrics: UpdaterMetrics,
        clock: Clock,
        tracing: UpdateTracing | None = None,
        bytes_per_s: int = 0,
    ) -> None:
        self._leadership = leadership
        self.outbox = outbox
        self._follower = follower
        self._states = states
        self._metrics = metrics
        self._clock = clock
        self._tracing = tracing
        self.rate = ByteRate(bytes_per_s, clock)
        self._reconciled_term: LeaderTerm | None = None
        self._marked: Offsets = {}
        """Committed offsets beside which stands `MIXED`."""
        self.published: Offsets = {}

    @property
    def is_leading(self) -> bool:
        """Whether batches are published now, or kept until the leader has published them."""
        return self._leadership.term is not None

    @property
    def begun_term(self) -> LeaderTerm | None:
        """The present term, once what earlier leaders have published has left the outbox: a batch that is added from
        then on is published in this term, whatever is committed.
        """
        term = self._leadership.term
        return term if term is self._reconciled_term else None

    @property
    def stands_by(self) -> bool:
        """Whether publishing is another updater's."""
        return not self._leadership.is_elected

    @property
    def pending(self) -> int:
        """Batches that are not confirmed as published."""
        return len(self.outbox)

    @property
    def letter_bytes(self) -> int:
        """Bytes of the dead letters that are not confirmed as published."""
        return self.outbox.letter_bytes

    def add(self, batch: StateBatch) -> None:
        """Takes in a batch to be published, by this updater or by the leader."""
        self.outbox.add(batch)

    async def drop_published(self) -> None:
        """Drops what a leader has published, as a standby does.

        Raises:
            BrokerError: if the broker cannot be asked.
        """
        self.outbox.watch_leader(await self._progress())

    async def flush(self) -> bool:
        """Publishes the next part of what is pending. False if not leading, or if that failed; it stays pending then.

        Raises:
            BrokerError: if the broker refuses or does not answer; what is pending stays.
        """
        term = self._leadership.term
        if term is None:
            await self.drop_published()
            return False
        if term is not self._reconciled_term and not await self._reconcile(term):
            return False
        part = self.outbox.next_part(MAX_TRANSACTION_RECORDS)
        if part is not None and not await self._publish(term, part):
            return False
        if not self.outbox:
            self.outbox.note_published()
        return True

    async def _reconcile(self, term: LeaderTerm) -> bool:
        """Goes on from what an earlier leader, or this one before a failed transaction, has published."""
        progress = await self._progress()
        self.outbox.drop_covered(progress)
        self._marked = {}
        if self.outbox.lacks_everything:
            log.info("publishing every state: the topics hold embeddings of another space", space=self.outbox.space)
            if progress.offsets and not await self._transact(term, (), progress.offsets, MIXED):
                return False
            self._marked = progress.offsets
            self.outbox.add_everything(await self._states.everything())
        elif any((progress.offsets.get(place) or 0) < offset for place, offset in self.published.items()):
            # A broker that is shut down can confirm a transaction that the next abort takes back (`runtime.delivery`).
            log.warning("publishing every state: the broker lost transactions that it had confirmed")
            self.outbox.add_everything(await self._states.everything())
            self.published = progress.offsets
        self._reconciled_term = term
        return True

    async def _publish(self, term: LeaderTerm, part: StateBatch) -> bool:
        published = False
        updates = self._tracing.begin(part.traced) if self._tracing is not None and part.traced else None
        try:
            with self._metrics.publishing.time():
                records = await self._states.encode(part)
                if updates is not None:
                    records = updates.labelled(records)
                offsets = {**self._marked, **part.offsets} if part.offsets else {}
                published = await self._transact(term, records, offsets, self.outbox.space)
        finally:
            if not published:
                self.outbox.put_back(part)
        if not published:
            return False
        self.rate.note(sum(record.size for record in records) - part.letter_bytes)
        if updates is not None:
            updates.end(self._clock.wall_ms())
        if part.offsets:
            self.published, self._marked = part.offsets, {}
        self._metrics.published.labels("user").inc(len(part.users))
        self._metrics.published.labels("item").inc(len(part.items))
        self._metrics.published.labels("part").inc(len(part.parts))
        self._metrics.observe_freshness(part.event_times_ms, self._clock.wall_ms())
        return True

    async def _transact(self, term: LeaderTerm, records: Sequence[OutRecord], offsets: Offsets, space: str) -> bool:
        """Whether a transaction succeeded; one that did not is told, and the term is over."""
        try:
            await transact(term, self._leadership.group_id, records, offsets, space)
        except TransactionFailed as error:
            log.warning("changes were not published and will be again", cause=str(error))
            return False
        return True

    async def _progress(self) -> Progress:
        """What leaders have published, per input partition, and in which space."""
        return Progress.of(await self._follower.committed_with_metadata(self._follower.assignment()))


async def transact(
    term: LeaderTerm, group_id: str, records: Sequence[OutRecord], offsets: Offsets, space: str = ""
) -> None:
    """Writes records, and the offsets if there are any, in one transaction. Beside the offsets stands the space.

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
            await transaction.commit_offsets(group_id, offsets, dict.fromkeys(offsets, space_note(space)))
        await transaction.send_all(filter(transaction.fits, records))
