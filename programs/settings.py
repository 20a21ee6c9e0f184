"""The settings that the programs share: how to reach Kafka, the topics, and what one file may hold."""

from __future__ import annotations

from typing import ClassVar, Final

from programs.topics import TopicSettings
from runtime.settings import KafkaSettings, ProgramSettings

HISTORY_LENGTH_REMOVED: Final = (
    "the bundle tells how many past interactions are kept per user; remove it, and train with --history-length for "
    "another number"
)


class ExitstreamSettings(ProgramSettings):
    """Base of every program's settings; alone, what a command needs that only talks to the broker."""

    shared_sections: ClassVar[frozenset[str]] = frozenset({"kafka", "topics", "telemetry", "worker", "updater"})

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
