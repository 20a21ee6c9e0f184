"""Rebuilds the state from the topics, where no snapshot can be continued.

    1. Where it begins: at the offsets of the snapshot, or at the earliest that Kafka keeps. What lies between was read
       by nobody: the gap is logged and counted.
    2. Replay: the retained records, up to the group's committed offsets. The published states know of these.
    3. Adoption: what the compacted topics hold completes the state (`state.adoption`).
       Where several shards share the users, each takes over the states of its own users, and the parts of items that
       all of them have told, before the replay: among these its own, with what it had counted.
    4. From the committed offsets on records are read as ever; none counts twice.

If the group has no committed offsets (nothing was ever published completely, or nothing for longer than the brokers'
`offsets.retention.minutes`), everything retained is replayed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from graph_updater.engine import EngineThread
from graph_updater.intake import Intake
from graph_updater.metrics import UpdaterMetrics
from graph_updater.publication.batch import CommittedOffsets, DeadLetter, Offsets, StateBatch
from graph_updater.publication.outbox import MAX_LETTER_BYTES
from graph_updater.published_topics import PublishedTopics, following
from graph_updater.recovery import Recovered
from graph_updater.state.updater_state import UpdaterState
from programs.topics import TopicSettings
from runtime.dead_letters import DeadLetters
from runtime.kafka import TopicFollower, furthest_committed
from runtime.records import Record, TopicPartition
from runtime.settings import KafkaSettings

_POLL_MS: Final = 100
_AT_ONCE: Final = 2_000
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Sources:
    """What a rebuild reads, and with what.

    Attributes:
        kafka: how to reach the topics.
        topics: their names.
        group_id: the group whose committed offsets tell what is published.
        former_groups: names of the groups that may have published before, with another number of shards.
        intake: decodes input records.
        letters: makes dead letters of those that cannot be decoded.
        metrics: counts gaps.
        made_again: topics that were deleted and made again: offsets committed before count other records.
        chosen: this shard's partitions of the topics that are not read as a whole.
    """

    kafka: KafkaSettings
    topics: TopicSettings
    group_id: str
    former_groups: re.Pattern[str]
    intake: Intake
    letters: DeadLetters
    metrics: UpdaterMetrics
    made_again: frozenset[str] = frozenset()
    chosen: Mapping[str, Collection[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rebuilt:
    """A state with the offsets from which to go on, and the dead letters that nobody is known to have sent."""

    state: UpdaterState
    offsets: Offsets
    unsent: StateBatch


async def rebuild(recovered: Recovered, sources: Sources, thread: EngineThread) -> Rebuilt:
    """Completes a state from the topics.

    Args:
        recovered: from a snapshot, or empty.
        sources: what to read.
        thread: where the state lives.

    Raises:
        BrokerError: if the topics cannot be read.
    """
    published = PublishedTopics(sources.kafka, sources.topics, sources.chosen)
    await published.look()
    if published.states or recovered.offsets:  # else it is the very first start
        sources.metrics.rebuilds.inc()
    parts_offsets = await _read_parts(recovered.state, sources, thread)
    follower = TopicFollower(
        sources.kafka,
        (sources.topics.interactions, sources.topics.items),
        start_from={
            place: offset for place, offset in recovered.offsets.items() if place.topic != sources.topics.item_parts
        },
        out_of_range="earliest",
        group_id=sources.group_id,
        chosen=_of(sources.topics.interactions, sources.chosen),
    )
    async with following(follower):
        starts, ends = await follower.positions(), await follower.end_offsets()
        committed = without(await _committed(follower, starts, sources), sources.made_again)
        tell_gaps(recovered.offsets, starts, committed, sources.metrics)
        until = replay_until(starts, ends, committed) if published.states else starts
        replay = _Replay(recovered.state, sources, starts, until)
        await replay.read(follower, thread)
    shared, is_new_shard = recovered.state.shared, False
    if shared is not None:
        are_published = any(offset is not None for offset in committed.values())
        is_new_shard = are_published and not shared.has_told
        await thread(partial(shared.adopt_own_counts, are_published=are_published))
    adoption = recovered.state.adoption(is_new_shard=is_new_shard)
    async for users, items in published.read():
        await thread(adoption.take_users, users)
        await thread(adoption.take_items, items)
    await thread(adoption.finish)
    log.info("rebuilt the state from the topics", published_states=published.states)
    unsent = [letter for letter in replay.letters if not letter.is_covered_by(committed)]
    offsets = {**replay.offsets, **parts_offsets}
    return Rebuilt(recovered.state, offsets, StateBatch(offsets, dead_letters=unsent))


async def _committed(follower: TopicFollower, places: Offsets, sources: Sources) -> CommittedOffsets:
    """What updaters of this group have published, or those that had these users before."""
    own = await follower.committed(places)
    former = await furthest_committed(sources.kafka, sources.former_groups, places)
    return {
        place: max((one for one in (own[place], former.get(place)) if one is not None), default=None)
        for place in places
    }


async def _read_parts(state: UpdaterState, sources: Sources, thread: EngineThread) -> Offsets:
    """Takes in everything that shards have told, and where that ends; nothing where one updater has all users."""

    def take(records: list[Record]) -> None:
        state.receive_parts(sources.intake.read(records).parts)

    if state.shared is None:
        return {}
    follower = TopicFollower(sources.kafka, (sources.topics.item_parts,), out_of_range="earliest")
    async with following(follower):
        while not follower.caught_up:
            await thread(take, await follower.poll(max_records=_AT_ONCE, timeout_ms=_POLL_MS))
        return await follower.positions()


def _of(topic: str, chosen: Mapping[str, Collection[int]]) -> dict[str, Collection[int]]:
    return {topic: chosen[topic]} if topic in chosen else {}


class _Replay:
    """Reads retained records into the state. Nobody is released before the adoption."""

    def __init__(self, state: UpdaterState, sources: Sources, starts: Offsets, until: Offsets) -> None:
        self._state = state
        self._sources = sources
        self._until = until
        self._letter_bytes = 0
        self.letters: list[DeadLetter] = []
        self.offsets = dict(starts)

    async def read(self, follower: TopicFollower, thread: EngineThread) -> None:
        """Reads up to the offsets wanted, or until the dead letters take too much memory."""
        while any(self._until[place] > at for place, at in (await follower.positions()).items()):
            records = await follower.poll(max_records=_AT_ONCE, timeout_ms=_POLL_MS)
            await thread(self._take, [one for one in records if one.offset < self._until[one.source]])
            if self._letter_bytes > MAX_LETTER_BYTES:
                return
            if follower.caught_up and not records:
                break
        self.offsets = dict(self._until)

    def _take(self, records: Sequence[Record]) -> None:
        batch = self._sources.intake.read(records)
        self._state.apply_items(batch.items)
        self._state.withdraw_items(batch.withdrawn_items)
        self._state.apply(batch.interactions)
        self.offsets.update((record.source, record.offset + 1) for record in records)
        for record, reason in batch.rejects:
            letter = DeadLetter(record.source, record.offset, self._sources.letters.letter(record, reason))
            self.letters.append(letter)
            self._letter_bytes += letter.letter.size


def without(committed: CommittedOffsets, made_again: frozenset[str]) -> dict[TopicPartition, int | None]:
    """The committed offsets, 0 for those of topics made again: the published states know nothing of their records."""
    return {place: 0 if place.topic in made_again else offset for place, offset in committed.items()}


def replay_until(starts: Offsets, ends: Offsets, committed: CommittedOffsets) -> dict[TopicPartition, int]:
    """Per partition the offset before which the published states know of every record."""
    is_known = any(offset is not None for offset in committed.values())
    if not is_known:
        log.warning("the group has no committed offsets: interactions that left the histories may count twice")
    wanted = {place: committed.get(place) or 0 if is_known else ends[place] for place in starts}
    return {place: max(start, min(wanted[place], ends[place])) for place, start in starts.items()}


def tell_gaps(before: Offsets, starts: Offsets, committed: CommittedOffsets, metrics: UpdaterMetrics) -> None:
    """Logs and counts the records that expired before anybody read them.

    Args:
        before: the snapshot's offsets.
        starts: where reading goes on.
        committed: by the group, whose states are published.
        metrics: counts them.
    """
    for place, start in starts.items():
        offset = before.get(place)
        read_until = max(offset or 0, committed.get(place) or 0)
        if offset is not None and start < offset:
            log.warning("the topic ends before the snapshot's offset, reading it anew", partition=str(place))
        elif read_until and start > read_until:
            metrics.gap_records.labels(place.topic).inc(start - read_until)
            log.warning(
                "records expired before they were read; raise the topic's retention above the longest outage",
                partition=str(place),
                offset=read_until,
                going_on_from=start,
            )
