"""What an updater finds around it at its start: the bundle, the broker with the topics, the place for snapshots."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from graph_updater.graph.base_embeddings import BaseEmbeddings, bundled_base
from graph_updater.origin import Origin
from graph_updater.partitions import own_partitions
from graph_updater.recovery import SNAPSHOT_KIND
from graph_updater.settings import UpdaterSettings
from graph_updater.state.snapshot_checks import EARLIER_VERSIONS, SNAPSHOT_VERSION
from models.bundle_files import GraphPart
from runtime.errors import BrokerError
from runtime.kafka import probe, require_topics, topic_ids
from runtime.observability.outages import Outages
from runtime.snapshots import SnapshotStore

_RETRY_S: Final = 1.0
_ACTIVITY: Final = "recovery"


@dataclass(frozen=True)
class UpdaterResources:
    """What stays the same while an updater runs, until its bundle changes or topics are made again.

    Attributes:
        base: base embeddings, from the model bundle.
        origin: what a snapshot must agree with.
        store: where the snapshots are.
        chosen: this shard's partitions of interactions and user states; empty where one updater has all users.
        made_again: topics that were deleted and made again while the program ran.
    """

    base: BaseEmbeddings
    origin: Origin
    store: SnapshotStore
    chosen: Mapping[str, Collection[int]] = field(default_factory=dict)
    made_again: frozenset[str] = frozenset()

    def with_bundle(self, bundle: GraphPart) -> UpdaterResources:
        """The same with another bundle."""
        origin = replace(self.origin, model_version=bundle.version, space=bundle.space)
        return replace(self, base=bundled_base(bundle.graph, bundle.text, bundle.history_length), origin=origin)

    def with_version_of(self, bundle: GraphPart) -> UpdaterResources:
        """The same with the version, and the length of histories, of a bundle that has the same graph."""
        base = replace(self.base, history_length=bundle.history_length)
        return replace(self, base=base, origin=replace(self.origin, model_version=bundle.version))


def input_topics(settings: UpdaterSettings) -> tuple[str, ...]:
    """What is read; see `Origin.topics`."""
    topics = settings.topics
    parts = (topics.item_parts,) if settings.updater.own_shard.is_one_of_several else ()
    return topics.interactions, *parts, topics.items


async def find_resources(settings: UpdaterSettings, bundle: GraphPart) -> UpdaterResources:
    """Checks brokers, topics and the snapshots' address.

    Raises:
        ExitstreamError: whatever keeps an updater from starting.
    """
    updater = settings.updater
    await probe(settings.kafka)
    cluster = await require_topics(settings.kafka, _all_topics(settings))
    chosen = await own_partitions(settings, cluster.partitions)
    inputs, ids = input_topics(settings), await _topic_ids(settings)
    return UpdaterResources(
        base=bundled_base(bundle.graph, bundle.text, bundle.history_length),
        origin=Origin(
            bundle.version,
            cluster.id,
            inputs,
            ids,
            bundle.space,
            updater.own_shard,
            settings.topics.tombstone_retention_ms // 2,
        ),
        store=SnapshotStore(
            updater.own_snapshots,
            kind=SNAPSHOT_KIND,
            version=SNAPSHOT_VERSION,
            earlier=EARLIER_VERSIONS,
            keep=updater.snapshots_kept,
        ),
        chosen=chosen,
    )


async def find_again(settings: UpdaterSettings, before: UpdaterResources, outages: Outages) -> UpdaterResources:
    """The same with the topics' present ids, once the broker tells them."""
    while True:
        try:
            await require_topics(settings.kafka, _all_topics(settings))
            present = await _topic_ids(settings)
        except BrokerError as error:
            outages.note(_ACTIVITY, error)
            await asyncio.sleep(_RETRY_S)
        else:
            outages.over(_ACTIVITY)
            known = before.origin.topic_ids
            again = frozenset(name for name in present if present[name] != known.get(name))
            return replace(
                before, origin=replace(before.origin, topic_ids=present), made_again=before.made_again | again
            )


def _all_topics(settings: UpdaterSettings) -> tuple[str, ...]:
    topics = settings.topics
    letters = map(topics.dead_letter, (topics.interactions, topics.items))
    return (*input_topics(settings), topics.user_states, topics.item_states, *letters)


async def _topic_ids(settings: UpdaterSettings) -> dict[str, str]:
    topics = settings.topics
    return await topic_ids(settings.kafka, (*input_topics(settings), topics.user_states, topics.item_states))
