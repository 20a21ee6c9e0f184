"""Notices that a topic was deleted and made again while the program runs: its offsets then count other records."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from runtime.errors import BrokerError
from runtime.kafka import topic_ids
from runtime.observability.outages import Outages
from runtime.settings import KafkaSettings

WATCH_INTERVAL_S: Final = 5.0
_ACTIVITY: Final = "topics"


class TopicsMadeAgain(BrokerError):
    """Topics that the program works with were deleted and made again."""


async def watch_topics(
    settings: KafkaSettings, known: Mapping[str, str], outages: Outages, interval_s: float = WATCH_INTERVAL_S
) -> None:
    """Compares the topics' ids until cancelled. A topic that is missing is waited for.

    Args:
        settings: how to reach Kafka.
        known: id by topic, from the start; empty where the broker does not tell.
        outages: told while a topic is missing or the broker does not answer.
        interval_s: between two looks.

    Raises:
        TopicsMadeAgain: if one has another id.
    """
    while known:
        await asyncio.sleep(interval_s)
        try:
            present = await topic_ids(settings, sorted(known))
        except BrokerError as error:
            outages.note(_ACTIVITY, error)
            continue
        again = sorted(name for name, topic_id in present.items() if known.get(name) != topic_id)
        if again:
            raise TopicsMadeAgain(f"deleted and made again: {', '.join(again)}")
        if missing := sorted(known.keys() - present.keys()):
            outages.note(_ACTIVITY, BrokerError(f"missing: {', '.join(missing)}; waiting for them to be made again"))
        else:
            outages.over(_ACTIVITY)
