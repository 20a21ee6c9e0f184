"""Offsets that consumer groups have committed, of all groups whose names fit."""

from __future__ import annotations

import re
from collections.abc import Collection

from aiokafka import TopicPartition as VendorPartition
from aiokafka.errors import GroupAuthorizationFailedError, IncompatibleBrokerVersion, InvalidGroupIdError

from runtime.kafka.topics import admin_client, is_embedded_broker
from runtime.kafka.translation import translated
from runtime.records import TopicPartition
from runtime.settings import KafkaSettings


async def furthest_committed(
    settings: KafkaSettings, groups: re.Pattern[str], partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """The largest offset of each partition that a group of such a name has committed; without those that none has.
    Groups that this user may not see are left out, and an embedded broker tells of none.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    furthest: dict[TopicPartition, int] = {}
    wanted = [VendorPartition(*partition) for partition in partitions]
    async with admin_client(settings) as admin:
        if is_embedded_broker(admin):
            return {}
        with translated("asking for consumer groups"):
            try:
                names = [name for name, *_ in await admin.list_consumer_groups()]
            except IncompatibleBrokerVersion:
                return {}
            for name in filter(groups.fullmatch, names):
                try:
                    found = await admin.list_consumer_group_offsets(name, partitions=wanted)
                except (GroupAuthorizationFailedError, InvalidGroupIdError):
                    continue
                for partition, committed in found.items():
                    if committed.offset >= 0:
                        ours = TopicPartition(*partition)
                        furthest[ours] = max(furthest.get(ours, 0), committed.offset)
    return furthest
