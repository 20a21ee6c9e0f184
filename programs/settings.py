"""The settings that the programs share: how to reach Kafka, the topics, and what one file may hold."""

from __future__ import annotations

from typing import ClassVar

from programs.topics import TopicSettings
from runtime.settings import KafkaSettings, ProgramSettings


class ExitstreamSettings(ProgramSettings):
    """Base of every program's settings; alone, what a command needs that only talks to the broker."""

    shared_sections: ClassVar[frozenset[str]] = frozenset({"kafka", "topics", "telemetry", "worker", "updater"})

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
