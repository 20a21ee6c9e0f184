"""Settings of the updater: the shared sections and its own, `[updater]` (`EXITSTREAM_UPDATER__…`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from graph_updater.graph.config import GraphConfig
from graph_updater.graph.shard import Shard
from programs.settings import HISTORY_LENGTH_REMOVED, ExitstreamSettings
from programs.topics import TopicSettings
from runtime.settings import Address, KafkaSettings, SettingsSection, TelemetrySettings
from runtime.settings_sources import load_settings


class UpdaterSection(SettingsSection):
    """The program around the graph."""

    bundle: Address = Field(
        "bundle", min_length=1, description="the trained model: its folder, a bundle store, or STORE@VERSION"
    )
    bundle_check_s: float = Field(
        10.0,
        ge=0,
        description="how often to ask whether the bundle has another version, to go over to it; 0: only at the start",
    )
    group_id: str = Field(
        "exitstream-updater", min_length=1, description="updaters of one group elect a leader; the others stand by"
    )
    flush_ms: int = Field(50, ge=1, description="how often changes are published")
    batch_records: int = Field(1_000, ge=1, le=100_000, description="most records applied at once")
    max_event_lead_ms: int = Field(
        3_600_000,
        ge=0,
        description="an interaction dated further ahead of its record, or of our clock, becomes a dead letter",
    )
    state_format: Literal["packed", "as_records"] = Field(
        "packed",
        description="packed: columns of bytes, the quickest to write and to read; as_records: as kafka.wire_format",
    )
    state_bytes_per_s: int = Field(
        0,
        ge=0,
        description="most bytes of states published a second, on average, before Kafka compresses them: after each "
        "publication changes wait as long as that asks, and those of one id become one; 0: no limit",
    )
    leader_timeout_ms: int = Field(
        6_000,
        ge=1_000,
        description="silence after which a standby takes over; by default brokers refuse less than 6000",
    )
    shards: int = Field(
        1,
        ge=1,
        description="updaters that share the users, each with those of some partitions of the interactions; others may "
        "stand by beside each of them",
    )
    shard: int = Field(
        0, ge=0, description="which of them this one is, from 0: partition p belongs to the shard p modulo shards"
    )
    parts_interval_ms: int = Field(
        1_000,
        ge=0,
        description="how often shards tell each other how items have moved with their users; what interactions with an "
        "item change is told with every publication",
    )
    snapshots: str = Field("updater-snapshots", min_length=1, description="folder or any fsspec address")
    snapshot_interval_s: float = Field(30.0, gt=0)
    snapshots_kept: int = Field(3, ge=2, description="snapshots kept; older ones are used if the newest is corrupt")
    graph: GraphConfig = GraphConfig()

    @model_validator(mode="after")
    def _check_shard(self) -> Self:
        if self.shard >= self.shards:
            raise ValueError(f"shard {self.shard} is none of {self.shards}: they count from 0")
        return self

    @property
    def own_shard(self) -> Shard:
        """Whose users this updater has."""
        return Shard(self.shard, self.shards)

    @property
    def own_group(self) -> str:
        """The updaters of which one leads: those of the same shard."""
        return self.group_of(self.own_shard)

    def group_of(self, shard: Shard) -> str:
        """The updaters of a shard."""
        return f"{self.group_id}.{shard.name}" if shard.is_one_of_several else self.group_id

    @property
    def groups(self) -> dict[str, Shard]:
        """The groups of all shards."""
        shards = [Shard(number, self.shards) for number in range(self.shards)]
        return {self.group_of(shard): shard for shard in shards}

    @property
    def former_groups(self) -> re.Pattern[str]:
        """Names of the groups that the same updaters have with another number of shards."""
        one = "" if self.shards == 1 else "|"
        return re.compile(rf"{re.escape(self.group_id)}(\.\d+-of-(?!{self.shards}$)\d+{one})")

    @property
    def own_snapshots(self) -> str:
        """Where their snapshots are."""
        return f"{self.snapshots.rstrip('/')}/{self.own_shard.name}" if self.shards > 1 else self.snapshots


class UpdaterSettings(ExitstreamSettings):
    """All settings of `exitstream updater`."""

    removed: ClassVar[Mapping[str, str]] = {"updater.graph.history_length": HISTORY_LENGTH_REMOVED}

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    updater: UpdaterSection = UpdaterSection()

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.updater.flush_ms >= self.kafka.transaction_timeout_ms:
            raise ValueError("updater.flush_ms must be below kafka.transaction_timeout_ms")
        return self

    @property
    def election(self) -> KafkaSettings:
        """Kafka settings for the election, with a shorter session time-out than a worker's."""
        return self.kafka.model_copy(update={"session_timeout_ms": self.updater.leader_timeout_ms})


def load(config: Path | None = None) -> UpdaterSettings:
    """The settings from a TOML file and the environment.

    Raises:
        SettingsError: on anything unknown, malformed or contradictory.
    """
    return load_settings(UpdaterSettings, config)
