"""Who publishes: one updater of the group, at any time. The others follow the stream and stand by.

Two mechanisms, each doing what it is good at:

    election   The owner of partition 0 of `interactions` in the updaters' consumer group is the leader. Kafka notices
               its silence (`leader_timeout_ms`) and gives the partition to another member.
    fencing    Whoever leads writes through one transactional id. Taking it over ends the earlier holder's open
               transaction and makes every further write of his fail, however alive he believes himself to be.

So there may be a moment when two believe that they lead, but never one in which both can publish. A member joins the
group only once it has caught up: a standby that could not take over at once would be none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from runtime.errors import BrokerError
from runtime.kafka import RecordSource, TransactionalSink
from runtime.records import TopicPartition
from runtime.settings import KafkaSettings

_POLL_MS: Final = 200
_RETRY_S: Final = 1.0
log = structlog.get_logger(__name__)


class Leadership:
    """Membership in the group of updaters, and the sink for as long as this one leads.

    Args:
        election: how to reach Kafka as a member of the group.
        publishing: how to reach Kafka as the leader.
        topic: the topic whose partition 0 makes its owner the leader.
        group_id: the group; also the name of the transactional id.
    """

    def __init__(self, election: KafkaSettings, publishing: KafkaSettings, topic: str, group_id: str) -> None:
        self._publishing = publishing
        self._source = RecordSource(election, [topic], group_id, out_of_range="latest")
        self._crown = TopicPartition(topic, 0)
        self._sink: TransactionalSink | None = None
        self._fallen: TransactionalSink | None = None
        self.group_id = group_id

    @property
    def sink(self) -> TransactionalSink | None:
        """Where to publish; None while another one leads."""
        return None if self._sink is self._fallen else self._sink

    async def start(self) -> None:
        """Joins the group.

        Raises:
            BrokerError: if it cannot be joined.
        """
        await self._source.start()

    async def stop(self) -> None:
        """Lets go of the sink and leaves the group, so that another one can lead at once."""
        await self._step_down()
        await self._source.stop()

    async def run(self) -> None:
        """Plays its part in the group until cancelled.

        Raises:
            BrokerError: on anything that waiting does not mend.
        """
        while True:
            await self._keep_membership()
            await self._follow_election()

    def lost(self, sink: TransactionalSink) -> None:
        """Says that the sink was fenced off or is in doubt. If this one still leads, a new one takes its place."""
        self._fallen = sink

    async def published(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Per input partition, the offset up to which a leader has published everything."""
        return await self._source.committed(partitions)

    async def _keep_membership(self) -> None:
        """Polls, as every member must, without reading: the records come by another way."""
        self._source.pause()
        await self._source.poll(max_records=1, timeout_ms=_POLL_MS)

    async def _follow_election(self) -> None:
        elected = self._crown in self._source.assignment()
        if self._sink is not None and (not elected or self.sink is None):
            await self._step_down()
        if elected and self._sink is None:
            await self._take_over()

    async def _take_over(self) -> None:
        """Fences off whoever led before, then asks the group whether it still agrees.

        Two may come to this at once, when the group changes its mind in between. Then the one that it agrees with has
        perhaps been fenced off by the other, who lets go: it learns so from its next transaction and takes over anew.
        """
        sink = TransactionalSink(self._publishing, f"{self.group_id}.publisher")
        try:
            await sink.start()
            agreed = await self._is_confirmed()
        except BrokerError as error:
            log.warning("cannot take over yet", cause=str(error), again_in_s=_RETRY_S)
            await sink.stop()
            await asyncio.sleep(_RETRY_S)
            return
        if not agreed:
            log.info("elected, but not any more", group=self.group_id)
            await sink.stop()
            return
        self._sink = sink
        log.info("leading: publishing from now on", group=self.group_id)

    async def _is_confirmed(self) -> bool:
        """Whether the group takes a commit from us: it refuses one of a member that has lost its place."""
        committed = (await self._source.committed([self._crown]))[self._crown]
        return bool(await self._source.commit({self._crown: committed or 0}))

    async def _step_down(self) -> None:
        if self._sink is not None:
            sink, self._sink = self._sink, None
            log.info("not leading any more", group=self.group_id)
            await sink.stop()
