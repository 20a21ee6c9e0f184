"""The topics' names in one installation, and how they are created."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from runtime.settings import SettingsSection
from runtime.topic_specs import TopicSpec
from schemas.topics import (
    CHANNELS,
    CTR_SCORES,
    DEAD_LETTER_SUFFIX,
    IMPRESSION_REQUESTS,
    INTERACTIONS,
    ITEM_PARTS,
    ITEM_STATES,
    ITEMS,
    SHADOW_SCORES,
    USER_STATES,
    Channel,
)


class TopicSettings(SettingsSection):
    """Names of the topics and how `exitstream topics create` makes them."""

    interactions: str = INTERACTIONS.topic
    items: str = ITEMS.topic
    impression_requests: str = IMPRESSION_REQUESTS.topic
    ctr_scores: str = CTR_SCORES.topic
    shadow_scores: str = SHADOW_SCORES.topic
    user_states: str = USER_STATES.topic
    item_states: str = ITEM_STATES.topic
    item_parts: str = ITEM_PARTS.topic
    dead_letter_suffix: str = Field(DEAD_LETTER_SUFFIX, min_length=1)

    partitions: int = Field(4, ge=1)
    replication_factor: int = Field(1, ge=1)
    min_insync_replicas: int = Field(1, ge=1)
    retention_ms: int = Field(7 * 86_400_000, ge=-1, description="of the topics that are not compacted; -1: forever")
    dead_letter_retention_ms: int = Field(30 * 86_400_000, ge=-1)
    dead_letter_max_bytes: int = Field(4_194_304, ge=1_048_576, description="room for the largest record and headers")
    tombstone_retention_ms: int = Field(86_400_000, ge=0, description="how long compacted topics show a removal")

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        names = [*self.logs, *self.compacted]
        if len(set(names)) < len(names):
            raise ValueError(f"two topics share a name: {', '.join(sorted(names))}")
        if self.min_insync_replicas > self.replication_factor:
            raise ValueError("min_insync_replicas exceeds replication_factor: nothing could ever be written")
        return self

    def name_of(self, channel: Channel) -> str:
        """The topic's name here."""
        return str(getattr(self, channel.topic.replace("-", "_")))

    @property
    def logs(self) -> tuple[str, ...]:
        """Topics kept by time."""
        return tuple(self.name_of(channel) for channel in CHANNELS if not channel.compacted)

    @property
    def compacted(self) -> tuple[str, ...]:
        """Topics that keep the latest record per key."""
        return tuple(self.name_of(channel) for channel in CHANNELS if channel.compacted)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Topics written by others, whose undecodable records go to dead letters."""
        return tuple(self.name_of(channel) for channel in CHANNELS if channel.action == "receive")

    def dead_letter(self, topic: str) -> str:
        """The name of a topic's dead-letter topic."""
        return topic + self.dead_letter_suffix

    def specs(self) -> list[TopicSpec]:
        """What must be there, dead-letter topics included."""
        safety = {"min.insync.replicas": str(self.min_insync_replicas)}
        log = {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms), **safety}
        table = {"cleanup.policy": "compact", "delete.retention.ms": str(self.tombstone_retention_ms), **safety}
        letters = {
            "cleanup.policy": "delete",
            "retention.ms": str(self.dead_letter_retention_ms),
            "max.message.bytes": str(self.dead_letter_max_bytes),
            **safety,
        }
        return [
            *(TopicSpec(name, self.partitions, self.replication_factor, log) for name in self.logs),
            *(TopicSpec(name, self.partitions, self.replication_factor, table) for name in self.compacted),
            *(TopicSpec(self.dead_letter(name), 1, self.replication_factor, letters) for name in self.inputs),
        ]
