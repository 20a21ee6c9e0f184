"""Who publishes: one updater of the group, at any time. The others follow the stream and stand by.

Two mechanisms, each doing what it is good at:

    election   The owner of partition 0 of `interactions` in a consumer group of its own is the leader. Kafka notices
               its silence (`leader_timeout_ms`) and gives the partition to another member.
    fencing    Whoever leads writes through one transactional id. Taking it over ends the earlier holder's open
               transaction and makes every further write of his fail, however alive he believes himself to be.

So there may be a moment when two believe that they lead, but never one in which both can publish. A member joins the
group only once it has caught up: a standby that could not take over at once would be none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from runtime.errors import BrokerError, Fenced
from runtime.kafka import RecordSource, Transaction, TransactionalSink
from runtime.records import TopicPartition
from runtime.settings import KafkaSettings

_POLL_MS: Final = 200
_RETRY_S: Final = 1.0
log = structlog.get_logger(__name__)


class Reign:
    """A time of leading: begins when the transactional id is taken over, ends for good when another one takes it, when
    a transaction's outcome is in doubt, or when the group elects another.

    Args:
        sink: writes under the transactional id; started.
    """

    def __init__(self, sink: TransactionalSink) -> None:
        self._sink = sink
        self._in_use = asyncio.Lock()
        self.over = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One transaction, as in `TransactionalSink`.

        Raises:
            TransactionFailed: if the reign is over or ends by this; what was to be written is for the next one.
            BrokerError: on anything that trying again does not mend.
        """
        async with self._in_use:
            if self.over:
                raise Fenced("this updater does not lead any more")
            async with self._sink.transaction() as transaction:
                yield transaction

    async def end(self) -> None:
        """Lets the transaction in flight finish, then lets go of the id."""
        self.over = True
        async with self._in_use:
            await self._sink.stop()


class Leadership:
    """Membership in the group of updaters, and its reigns. Implements `RebalanceHooks`.

    Args:
        election: how to reach Kafka as a member of the group.
        publishing: how to reach Kafka as the leader.
        topic: the topic whose partition 0 makes its owner the leader.
        group_id: of the updaters; the names of the election's group and of the transactional id begin with it.
    """

    def __init__(self, election: KafkaSettings, publishing: KafkaSettings, topic: str, group_id: str) -> None:
        self._publishing = publishing
        self._source = RecordSource(election, [topic], f"{group_id}.election", out_of_range="latest")
        self._crown = TopicPartition(topic, 0)
        self._elected = False
        self._reign: Reign | None = None
        self.group_id = group_id

    @property
    def reign(self) -> Reign | None:
        """The reign to publish in; None while another one leads."""
        return None if self._reign is None or self._reign.over else self._reign

    async def start(self) -> None:
        """Joins the group.

        Raises:
            BrokerError: if it cannot be joined.
        """
        await self._source.start(self)

    async def stop(self) -> None:
        """Ends the reign and leaves the group, so that another one can lead at once."""
        await self._end_reign()
        await self._source.stop()

    async def run(self) -> None:
        """Plays its part in the group until cancelled.

        Raises:
            BrokerError: on anything that waiting does not mend.
        """
        while True:
            await self._keep_membership()
            if self._reign is not None and (self._reign.over or not self._elected):
                await self._end_reign()
            if self._reign is None and self._elected:
                await self._begin_reign()

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Learns the outcome of an election."""
        self._elected = self._crown in partitions

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Nothing: who led goes on until the next assignment tells that another one does, or fences it off."""

    async def _keep_membership(self) -> None:
        """Polls, as every member must, without reading: the records come by another way."""
        self._source.pause()
        await self._source.poll(max_records=1, timeout_ms=_POLL_MS)

    async def _begin_reign(self) -> None:
        """Takes the transactional id over, if the group agrees before and after.

        Before: one that lost its place unawares must not disturb the leader. After: the group may have changed its mind
        meanwhile. Should both have taken over, the later one lets go, and the rightful one learns from its next
        transaction that it was fenced off, and begins again.
        """
        sink = TransactionalSink(self._publishing, f"{self.group_id}.publisher")
        try:
            if not await self._is_confirmed():
                return
            await sink.start()
            if await self._is_confirmed():
                self._reign = Reign(sink)
                log.info("leading: publishing from now on", group=self.group_id)
                return
        except BrokerError as error:
            log.warning("cannot take over yet", cause=str(error), again_in_s=_RETRY_S)
            await asyncio.sleep(_RETRY_S)
        await sink.stop()

    async def _is_confirmed(self) -> bool:
        """Whether the group takes a commit from us: it refuses one of a member that has lost its place. The offset
        itself means nothing: no record is read by way of this group.
        """
        return bool(await self._source.commit({self._crown: 0}))

    async def _end_reign(self) -> None:
        if self._reign is not None:
            reign, self._reign = self._reign, None
            log.info("not leading any more", group=self.group_id)
            await reign.end()
