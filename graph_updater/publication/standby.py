"""Who publishes: one updater of the group, at any time. The others follow the stream and stand by.

Two mechanisms, each doing what it is good at:

    election   The owner of partition 0 of `interactions` in a consumer group of its own is the leader. Kafka notices
               its silence (`leader_timeout_ms`) and gives the partition to another member.
    fencing    The leader writes through one transactional id. Taking it over aborts the previous leader's open
               transaction and makes its further writes fail, even if it still believes it leads.

So two updaters may believe for a moment that they lead, but only one can publish. A member joins the group only once it
has caught up, so that it can take over at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from runtime.errors import BrokerError, BrokerUnreachable, Fenced, NotAuthorized, TransactionFailed
from runtime.kafka import RecordSource, Transaction, TransactionalSink
from runtime.observability.outages import Outages
from runtime.records import TopicPartition
from runtime.settings import KafkaSettings

_POLL_MS: Final = 200
_RETRY_S: Final = 1.0
_ACTIVITY: Final = "elections"
log = structlog.get_logger(__name__)


def election_group(group_id: str) -> str:
    """The consumer group whose member with partition 0 leads the updaters of `group_id`."""
    return f"{group_id}.election"


class LeaderTerm:
    """One period of leadership. It begins when the transactional id is taken over. It ends for good when another
    updater takes the id, when a transaction fails, is not allowed or its outcome is in doubt, or when the group elects
    another leader.

    Args:
        sink: writes under the transactional id; started.
    """

    def __init__(self, sink: TransactionalSink) -> None:
        self._sink = sink
        self._in_use = asyncio.Lock()
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether nothing can be written in this term any more."""
        return self._is_over

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One transaction, as in `TransactionalSink`.

        Raises:
            TransactionFailed: if the term is over, or ends by this failure.
            NotAuthorized: the leader may not write something; the term ends.
            BrokerError: on anything that trying again does not mend.
        """
        async with self._in_use:
            if self._is_over:
                raise Fenced("this updater does not lead any more")
            try:
                async with self._sink.transaction() as transaction:
                    yield transaction
            except (TransactionFailed, NotAuthorized):  # the library leaves the latter's transaction open at the broker
                self._is_over = True
                raise

    async def end(self) -> None:
        """Lets the transaction in flight finish, then releases the id."""
        self._is_over = True
        async with self._in_use:
            await self._sink.stop()


class Leadership:
    """Membership in the group of updaters, and its terms. Implements `RebalanceHooks`.

    Args:
        election: how to reach Kafka as a member of the group.
        publishing: how to reach Kafka as the leader.
        topic: the topic whose partition 0 makes its owner the leader.
        group_id: of the updaters; the names of the election's group and of the transactional id begin with it.
        outages: told of elections that wait for the broker.
    """

    def __init__(
        self, election: KafkaSettings, publishing: KafkaSettings, topic: str, group_id: str, outages: Outages
    ) -> None:
        self._publishing = publishing
        self._source = RecordSource(election, [topic], election_group(group_id), out_of_range="latest")
        self._leader_partition = TopicPartition(topic, 0)
        self._outages = outages
        self._is_member = False
        self._elected = False
        self._term: LeaderTerm | None = None
        self.group_id = group_id

    @property
    def term(self) -> LeaderTerm | None:
        """The present term; None while this updater does not lead."""
        return None if self._term is None or self._term.is_over else self._term

    @property
    def is_elected(self) -> bool:
        """Whether the group wants this updater to lead; a term begins as soon as the transactional id can be had."""
        return self._elected

    async def stop(self) -> None:
        """Ends the term and leaves the group, so that another updater can lead at once."""
        await self._end_term()
        await self._leave()

    async def run(self) -> None:
        """Joins the group and takes part in elections until cancelled. What fails is tried again for as long as it
        takes; an error other than silence of the broker also costs the membership, which is begun anew.
        """
        while True:
            try:
                await self._take_part()
            except BrokerError as error:
                self._outages.note(_ACTIVITY, error)
                if not isinstance(error, BrokerUnreachable):
                    await self._leave()
                await asyncio.sleep(_RETRY_S)
            else:
                self._outages.over(_ACTIVITY)

    async def _take_part(self) -> None:
        """One round: stay a member, end a term that is over, begin one if elected."""
        if not self._is_member:
            await self._source.start(self)
            self._is_member = True
        await self._keep_membership()
        if self._term is not None and (self._term.is_over or not self._elected):
            await self._end_term()
        if self._term is None and self._elected:
            await self._begin_term()

    async def _leave(self) -> None:
        self._is_member = self._elected = False
        await self._source.stop()

    async def on_assigned(self, partitions: frozenset[TopicPartition]) -> None:
        """Learns the outcome of an election."""
        self._elected = self._leader_partition in partitions

    async def on_revoked(self, partitions: frozenset[TopicPartition]) -> None:
        """Does nothing: the leader continues until the next assignment names another one, or until it is fenced."""

    async def _keep_membership(self) -> None:
        """Polls, as every member must, without reading: records are read by the follower."""
        self._source.pause()
        await self._source.poll(max_records=1, timeout_ms=_POLL_MS)

    async def _begin_term(self) -> None:
        """Takes the transactional id over, if the group confirms the election before and after.

        Before: a member that lost its partition without noticing must not fence the leader. After: the group may have
        elected another meanwhile. If both took the id, the later one releases it; the elected one fails in its next
        transaction and begins a new term.

        Raises:
            BrokerError: if the broker refuses or does not answer; the id is released.
        """
        sink = TransactionalSink(self._publishing, f"{self.group_id}.publisher")
        if not await self._is_confirmed():
            return
        try:
            await sink.start()
            if await self._is_confirmed():
                self._term = LeaderTerm(sink)
                log.info("leading: publishing from now on", group=self.group_id)
        finally:
            if self._term is None:
                await sink.stop()

    async def _is_confirmed(self) -> bool:
        """Whether the group accepts a commit from us, which it refuses to a member that has lost its partition. The
        committed offset itself has no meaning: no records are read through this group.
        """
        return bool(await self._source.commit({self._leader_partition: 0}))

    async def _end_term(self) -> None:
        if self._term is not None:
            term, self._term = self._term, None
            log.info("not leading any more", group=self.group_id)
            await term.end()
