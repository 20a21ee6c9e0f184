"""Tables for a bundle, with the task that fills them from Kafka and keeps them current."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from models.bundle import Bundle
from runtime.clock import Clock
from runtime.kafka import TopicFollower, require_topics, topic_ids
from runtime.observability.outages import Outages
from runtime.observability.readiness import Readiness
from runtime.records import TopicPartition
from worker.beside import lower_priority
from worker.compute import ComputeThread
from worker.metrics import WorkerMetrics
from worker.outcomes.live import LiveOutcomes
from worker.saved_tables import SavedTables, TableSaver
from worker.settings import WorkerSettings
from worker.state_feed import FeedBeside, StateFeed
from worker.state_store.state_reader import StateReader
from worker.state_store.tables import Tables
from worker.user_partitions import HeldPartitions, UserPartitions

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class FollowedTables:
    """Tables that are kept current.

    Attributes:
        tables: owned by the compute thread.
        space: identity of the embeddings in them.
        history_length: past interactions kept per user.
        follower: reads the states.
        feed: applies them.
        task: fills the tables, then follows until it is cancelled.
        saver: keeps copies of them, where that is wanted.
        held: of which partitions they hold the users; None: of all.
    """

    tables: Tables
    space: str
    history_length: int
    follower: TopicFollower
    feed: StateFeed
    task: asyncio.Task[None]
    saver: TableSaver | None = None
    held: HeldPartitions | None = None

    def serve(self, bundle: Bundle) -> bool:
        """Whether they hold what the bundle's model was trained to read: embeddings of its space, and histories of its
        length. Others would be cut, or too long, and their statistics other numbers than in training.
        """
        return (self.space, self.history_length) == (bundle.space, bundle.limits.history_length)

    async def filled(self) -> None:
        """Returns once they are filled.

        Raises:
            ExitstreamError: they cannot be.
        """
        filled = asyncio.create_task(self.feed.filled())
        try:
            await asyncio.wait([filled, self.task], return_when=asyncio.FIRST_COMPLETED)
            if self.task.done():
                await self.task
        finally:
            filled.cancel()

    async def keep(self) -> None:
        """Lasts as long as they are followed; cancelling it ends that.

        Raises:
            ExitstreamError: they cannot be kept current.
        """
        await self.task

    async def close(self) -> None:
        """Follows no longer."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@dataclass(frozen=True)
class TableMaker:
    """Makes tables and begins to fill them.

    Attributes:
        settings: of the worker.
        thread: owns the tables.
        training: where search indexes are trained.
        metrics: what is counted.
        outcomes: learns from users' histories what became of scores.
        outages: where a broker that does not answer is noted.
        clock: the time.
        partitions: of the users that are to be held; None: all users are.
    """

    settings: WorkerSettings
    thread: ComputeThread
    training: Executor
    metrics: WorkerMetrics
    outcomes: LiveOutcomes
    outages: Outages
    clock: Clock
    partitions: UserPartitions | None = None

    async def make(self, bundle: Bundle, readiness: Readiness, *, beside: bool = False) -> FollowedTables:
        """Tables for a bundle's embeddings and tokenizer.

        Args:
            bundle: the trained model.
            readiness: is told of the condition `tables`.
            beside: whether a model serves from other tables meanwhile.

        Raises:
            BrokerError: the states cannot be read.
        """
        settings = self.settings
        reader = StateReader(settings.topics, settings.kafka.max_record_bytes)
        empty = partial(
            Tables,
            bundle.text,
            bundle.graph.dim,
            settings.worker.tables,
            self.training,
            space=bundle.space,
            history_length=bundle.limits.history_length,
        )
        saved = await self._saved(bundle, reader.topics)
        if saved is None:
            tables, offsets = empty(), dict[TopicPartition, int]()
        else:
            readiness.wait_for("tables", "reading the saved tables")
            tables, offsets = await saved.restored(empty)
        chosen = self._begin_with(reader.users_topic, offsets)
        follower = TopicFollower(
            settings.kafka,
            reader.topics,
            start_from=offsets,
            out_of_range="earliest",
            outages=self.outages,
            chosen=chosen,
        )
        await follower.start()
        held = None
        if self.partitions is not None:
            [(topic, begun_with)] = chosen.items()
            held = HeldPartitions(self.partitions, topic, follower, tables, self.thread, begun_with)
        batch = settings.worker.tables.update_batch
        make_feed = FeedBeside if beside else StateFeed
        feed = make_feed(follower, reader, tables, self.thread, self.metrics, self.outcomes, batch, held)
        feed.applied.update(offsets)
        task = asyncio.create_task(feed.follow(self.clock, readiness), name="states")
        interval_s = settings.worker.tables.save_interval_s
        saver = None if saved is None else TableSaver(saved, tables, self.thread, feed.reached, interval_s)
        return FollowedTables(tables, bundle.space, bundle.limits.history_length, follower, feed, task, saver, held)

    def _begin_with(self, users_topic: str, offsets: Mapping[TopicPartition, int]) -> dict[str, frozenset[int]]:
        """The partitions of users to follow at first: all that a copy of the tables holds, so that none of their users
        stays unless its partition is followed, and all that are wanted. Empty where all users are held.
        """
        if self.partitions is None:
            return {}
        copied = frozenset(one.partition for one in offsets if one.topic == users_topic)
        return {users_topic: copied | (self.partitions.wanted or frozenset())}

    async def _saved(self, bundle: Bundle, topics: Sequence[str]) -> SavedTables | None:
        """Where tables are kept; None if they are not."""
        settings, tables = self.settings, self.settings.worker.tables
        if not tables.saved:
            return None
        cluster, ids = await require_topics(settings.kafka, topics), await topic_ids(settings.kafka, topics)
        if not ids:
            log.warning("tables are not saved: this broker does not tell whether a topic was made anew", topics=topics)
            return None
        origin = {
            "space of embeddings": bundle.space,
            "length of histories": bundle.limits.history_length,
            "number of title tokens": tables.title_tokens,
            "choice of users": tables.users,
            "cluster": cluster.id,
            "topics": ids,
        }
        address = f"{tables.saved}/{settings.group}"
        if self.partitions is not None:
            address += f"/{socket.gethostname()}"  # every worker has users of its own
        return SavedTables(
            address, origin, settings.topics.tombstone_retention_ms, settings.topics.user_states, self.clock
        )


@asynccontextmanager
async def index_training() -> AsyncIterator[Executor]:
    """A thread that trains search indexes and gives way to those that serve. The end of the block does not wait for it,
    which would block the event loop: nobody needs an index that is still being trained then.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix="index training", initializer=lower_priority)
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
