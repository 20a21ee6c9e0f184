"""The partitions of one of several shards, and whether users can be shared by them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

from graph_updater.settings import UpdaterSettings
from programs.partition_checks import require_in_place, require_same_number
from runtime.errors import BrokerError, SettingsError
from runtime.kafka import require_topics
from runtime.observability.outages import Outages
from runtime.records import Record
from schemas.codec import MessageDecoder
from schemas.messages import Interaction

_OTHERWISE: Final = "set updater.shards to 1"
_LOOK_AGAIN_S: Final = 30.0
_ACTIVITY: Final = "partitions"


async def own_partitions(settings: UpdaterSettings, counts: Mapping[str, int]) -> dict[str, Collection[int]]:
    """This shard's partitions of the topics whose keys are users; empty where one updater has all of them.

    Args:
        settings: all settings.
        counts: how many partitions each topic has.

    Raises:
        SettingsError: interactions and user states are not alike, or there are more shards than partitions.
        BrokerError: the interactions cannot be read.
    """
    shard = settings.updater.own_shard
    if not shard.is_one_of_several:
        return {}
    decoder = MessageDecoder(Interaction, settings.kafka.max_record_bytes)

    def user_of(record: Record) -> str:
        return decoder.decode(record.value, record.headers).user_id

    interactions, states = settings.topics.interactions, settings.topics.user_states
    count = counts[interactions]
    require_same_number({topic: counts[topic] for topic in (interactions, states)}, _OTHERWISE)
    if shard.shards > count:
        raise SettingsError(
            f"{shard.shards} shards would share the {count} partitions of {interactions}: some would have none. Set "
            f"updater.shards to {count} at most, or add partitions (docs/how-to/scale.md)"
        )
    await require_in_place(settings.kafka, interactions, count, user_of, _OTHERWISE)
    return dict.fromkeys((interactions, states), shard.partitions(count))


async def watch_partitions(
    settings: UpdaterSettings,
    chosen: Mapping[str, Collection[int]],
    outages: Outages,
    interval_s: float = _LOOK_AGAIN_S,
) -> None:
    """Ends the program once a topic has other partitions than at the start: users then belong to other shards.

    Raises:
        SettingsError: one has.
    """
    shard = settings.updater.own_shard
    while chosen:
        await asyncio.sleep(interval_s)
        try:
            counts = (await require_topics(settings.kafka, sorted(chosen))).partitions
        except BrokerError as error:
            outages.note(_ACTIVITY, error)
            continue
        outages.over(_ACTIVITY)
        for topic, partitions in chosen.items():
            if list(partitions) != shard.partitions(counts[topic]):
                raise SettingsError(
                    f"{topic} has {counts[topic]} partitions now: users belong to other shards than before. Stop all "
                    "updaters, delete their snapshots, and start them again (docs/how-to/scale.md)"
                )
