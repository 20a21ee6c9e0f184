"""Where a run begins: with a snapshot, with what the topics hold or, after a change of the bundle, with the state of
the run before.

A state that goes over to another bundle keeps everything but its embeddings, which are computed anew; its offsets stay,
so that no interaction is lost or counted twice. Whether all states have to be published again the outbox learns from
the offsets that leaders commit (`publication.outbox`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import structlog
from numpy.typing import NDArray

from graph_updater.engine import EngineThread
from graph_updater.graph.config import GraphConfig
from graph_updater.publication.batch import Offsets
from graph_updater.publication.outbox import Outbox
from graph_updater.published_topics import following
from graph_updater.rebuild import Sources, rebuild
from graph_updater.recovery import Recovered, for_another_space, recover
from graph_updater.resources import UpdaterResources
from graph_updater.state.updater_state import UpdaterState
from runtime.kafka import TopicFollower
from runtime.records import Record

_POLL_MS: Final = 100
_AT_ONCE: Final = 2_000
log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Carried:
    """The state of a run that has ended, for the next one, which has another bundle.

    Attributes:
        arrays: as `UpdaterState.restore` takes them.
        metadata: the same.
        offsets: next offset to be read per partition.
        outbox: what is not confirmed as published.
    """

    arrays: Mapping[str, NDArray[Any]]
    metadata: Mapping[str, Any]
    offsets: Offsets
    outbox: Outbox


@dataclass(frozen=True, eq=False)
class Beginning:
    """What a run begins with.

    Attributes:
        state: its state.
        offsets: next offset to be read per partition.
        outbox: what has to be published.
    """

    state: UpdaterState
    offsets: Offsets
    outbox: Outbox


async def begin(
    resources: UpdaterResources, config: GraphConfig, sources: Sources, thread: EngineThread, *, is_in_range: bool
) -> Beginning:
    """From the newest usable snapshot, completed from the topics where it cannot be continued as it is.

    Args:
        resources: bundle, snapshots and topics.
        config: settings of the graph.
        sources: for a rebuild.
        thread: where the state lives.
        is_in_range: whether Kafka still has the records that follow the snapshot, as far as known.

    Raises:
        BrokerError: if the topics cannot be read.
    """
    recovered = await thread(recover, resources.store, config, resources.base, resources.origin)
    if recovered.offsets and recovered.is_published and is_in_range:
        return Beginning(recovered.state, recovered.offsets, Outbox(resources.base.space))
    outbox = Outbox(resources.base.space, rebuilt=True)
    outbox.lacks_everything = recovered.is_of_other_space
    return await _completed(recovered, outbox, sources, thread)


async def begin_again(
    carried: Carried,
    resources: UpdaterResources,
    config: GraphConfig,
    sources: Sources,
    thread: EngineThread,
    *,
    is_in_range: bool,
) -> Beginning:
    """From the state of the run before, in the space of another bundle. Arguments and errors as `begin`.

    Args:
        carried: of the run before; may be used again if this fails.
        resources: with the new bundle.
        config: settings of the graph.
        sources: for the catalogue, or a rebuild.
        thread: where the state lives.
        is_in_range: whether Kafka still has the records to be read next, as far as known.
    """
    state = await thread(
        UpdaterState.restore,
        config,
        resources.base,
        carried.arrays,
        carried.metadata,
        of_other_space=True,
        shard=resources.origin.shard,
    )
    carried.outbox.change_space(resources.base.space)
    if not is_in_range:
        recovered = Recovered(state, for_another_space(carried.offsets, resources.origin))
        return await _completed(recovered, carried.outbox, sources, thread)
    await _read_catalogue(state, carried.offsets, sources, thread)
    # The parts that shards tell in the new space are read by the run itself: others may tell them much later.
    offsets = {place: at for place, at in carried.offsets.items() if place.topic != sources.topics.item_parts}
    return Beginning(state, offsets, carried.outbox)


async def _completed(recovered: Recovered, outbox: Outbox, sources: Sources, thread: EngineThread) -> Beginning:
    """A state completed from the topics."""
    sources = replace(sources, made_again=sources.made_again | recovered.made_again)
    rebuilt = await rebuild(recovered, sources, thread)
    if rebuilt.unsent.dead_letters:
        outbox.add(rebuilt.unsent)
    return Beginning(rebuilt.state, rebuilt.offsets, outbox)


async def _read_catalogue(state: UpdaterState, until: Offsets, sources: Sources, thread: EngineThread) -> None:
    """Reads the catalogue again up to the offsets of the state, which does not hold the texts. Records that cannot be
    read have their dead letters already.
    """

    def take(records: list[Record]) -> None:
        batch = sources.intake.read([one for one in records if one.offset < until.get(one.source, 0)])
        state.apply_items(batch.items)
        state.withdraw_items(batch.withdrawn_items)

    follower = TopicFollower(sources.kafka, (sources.topics.items,), out_of_range="earliest")
    async with following(follower):
        while any(until.get(place, 0) > at for place, at in (await follower.positions()).items()):
            records = await follower.poll(max_records=_AT_ONCE, timeout_ms=_POLL_MS)
            await thread(take, records)
            if follower.caught_up and not records:
                break
    log.info("the state is in the new bundle's space", space=state.published.space)
