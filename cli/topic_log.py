"""An event log read from the topics themselves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from event_data.event_log import EventLog
from event_data.load import load_log
from graph_updater.intake import Intake
from programs.settings import ExitstreamSettings
from programs.topics import TopicSettings
from runtime.clock import SystemClock
from runtime.errors import DatasetError, SettingsError
from runtime.kafka import TopicFollower, probe
from runtime.settings import KafkaSettings
from runtime.settings_sources import load_settings
from schemas.messages import Interaction, Item
from training.clicks import is_click

NAME: Final = "kafka"
"""What a bundle says that it was trained on."""
_LEAD_MS: Final = 3_600_000


def chosen_log(data: Path | None, config: Path | None, *, from_kafka: bool, click_at: float | None = None) -> EventLog:
    """The event log of a folder, of the topics, or the synthetic one.

    Raises:
        SettingsError: a folder or a click rating was named beside `--from-kafka`.
        DatasetError: there is nothing to train on.
        BrokerError: the topics cannot be read.
    """
    if not from_kafka:
        return load_log(data, click_at)
    if data is not None:
        raise SettingsError("--data and --from-kafka name two sources; leave one of them out")
    if click_at is not None:
        raise SettingsError(
            "--click-at is for the ratings of a data set; interactions from Kafka say themselves what is a click"
        )
    settings = load_settings(ExitstreamSettings, config)
    return asyncio.run(read_topics(settings.kafka, settings.topics))


async def read_topics(kafka: KafkaSettings, topics: TopicSettings) -> EventLog:
    """What the topics of items and interactions hold now, decoded as the updater does it.

    Of several interactions with one event id the first counts; of several records of an item the last.

    Raises:
        DatasetError: there are no interactions.
        BrokerError: the topics cannot be read.
    """
    await probe(kafka)
    intake = Intake(topics.items, max_bytes=kafka.max_record_bytes, max_event_lead_ms=_LEAD_MS, clock=SystemClock())
    items: dict[str, Item] = {}
    interactions: dict[str, Interaction] = {}
    skipped, first_skipped = 0, ""
    follower = TopicFollower(kafka, [topics.items, topics.interactions])
    await follower.start()
    try:
        while not follower.caught_up:
            batch = intake.read(await follower.poll())
            items.update((item.item_id, item) for item in batch.items)
            for item_id in batch.withdrawn_items:
                items.pop(item_id, None)
            for event in batch.interactions:
                interactions.setdefault(event.event_id, replace(event, positive=is_click(event)))
            if batch.rejects and not skipped:
                first_skipped = f"{batch.rejects[0].record}: {batch.rejects[0].reason}"
            skipped += len(batch.rejects)
    finally:
        await follower.stop()
    if not interactions:
        raise DatasetError(f"{topics.interactions} on {kafka.bootstrap_servers} holds no interactions")
    in_order = sorted(interactions.values(), key=lambda event: event.event_time_ms)
    return EventLog(NAME, list(items.values()), in_order, skipped, first_skipped)
