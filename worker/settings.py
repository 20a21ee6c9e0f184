"""Settings of the worker: the shared sections and its own `[worker]`, in the environment `EXITSTREAM_WORKER__…`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from programs.settings import HISTORY_LENGTH_REMOVED, ExitstreamSettings
from programs.topics import TopicSettings
from runtime.settings import Address, KafkaSettings, SettingsSection, TelemetrySettings
from runtime.settings_sources import load_settings
from worker.budget.controller import ControllerSettings
from worker.engine.settings import EngineSettings
from worker.outcomes.settings import OutcomeSettings
from worker.state_store.settings import TableSettings

AnswerFormat = Literal["as_asked", "msgpack", "json"]


class WorkerSection(SettingsSection):
    """The program around queue, engine and tables, `[worker]`."""

    bundle: Address = Field(
        "bundle", min_length=1, description="the trained model: its folder, a bundle store, or STORE@VERSION"
    )
    bundle_check_s: float = Field(
        10.0, ge=0, description="how often it is asked for a newer version, which is then swapped in; 0: never"
    )
    group_id: str = Field("exitstream-worker", min_length=1, description="workers of one group share the requests")
    shadow_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="makes this worker a shadow: it scores this share of the requests for comparison, as the group "
        "GROUP_ID-shadow, into topics.shadow_scores",
    )
    threads: int | None = Field(None, ge=1, description="of torch and FAISS; None: the container's share of CPUs")

    budget_ms: int = Field(200, ge=0, le=3_600_000, description="where neither request nor record header names one")
    reading_margin_ms: float = Field(15.0, ge=0, description="kept back for readers; what writing takes is learned")
    max_clock_skew_ms: float = Field(1_000.0, ge=0, description="how far ahead of ours a requester's clock may be")
    max_age_ms: float = Field(86_400_000.0, ge=0, description="the oldest that a request is believed to be")

    fresh_first: bool = Field(
        True, description="requests older than budget_ms are read beside newer ones; not with exactly_once"
    )
    max_candidates: int = Field(
        10_000, ge=1, description="a request with more becomes a dead letter: its scores would not fit into a record"
    )
    max_in_flight: int = Field(4_096, ge=1, description="requests accepted and not answered; beyond, reading pauses")
    poll_records: int = Field(500, ge=1)

    answer_format: AnswerFormat = Field(
        "as_asked", description="of the scores; as_asked: each request is answered in the format in which it came"
    )
    neighbours: int = Field(4, ge=0, description="pieces of evidence told per candidate in the scores")
    request_log: Literal["off", "debug", "info"] = Field("info", description="level of the line per request")
    request_log_per_s: int = Field(50, ge=1, description="lines beyond are counted, not written")

    engine: EngineSettings = EngineSettings()
    controller: ControllerSettings = ControllerSettings()
    tables: TableSettings = TableSettings()
    outcomes: OutcomeSettings = OutcomeSettings()


class WorkerSettings(ExitstreamSettings):
    """Everything that `exitstream worker` can be told."""

    renamed: ClassVar[Mapping[str, str]] = {
        "worker.part_candidates": "worker.engine.part_candidates",
        "worker.fair_candidates": "worker.engine.fair_candidates",
        "worker.feed_tokens": "worker.engine.prepare_ahead_tokens",
        "worker.graph_batch": "worker.engine.graph_batch",
        "worker.engine.headroom": "worker.engine.safety_factor",
        "worker.controller.calm_threshold": "worker.controller.base_threshold",
        "worker.controller.headroom": "worker.controller.deadline_reserve",
    }

    removed: ClassVar[Mapping[str, str]] = {"worker.tables.history_length": HISTORY_LENGTH_REMOVED}

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    worker: WorkerSection = WorkerSection()

    @property
    def is_shadow(self) -> bool:
        """Whether this worker only compares: nobody is served from its scores."""
        return self.worker.shadow_share is not None

    @property
    def group(self) -> str:
        """The consumer group; shadows have one of their own, so that they take no requests from those who serve."""
        return f"{self.worker.group_id}-shadow" if self.is_shadow else self.worker.group_id

    @property
    def scores_topic(self) -> str:
        """Where scores go."""
        return self.topics.shadow_scores if self.is_shadow else self.topics.ctr_scores

    def required_topics(self) -> list[str]:
        """What must be there before the worker can start."""
        scores = self.topics.ctr_scores if self.is_shadow else self.topics.shadow_scores
        unused = (scores, self.topics.item_parts)
        return [spec.name for spec in self.topics.specs() if spec.name not in unused]

    @model_validator(mode="after")
    def _check_thresholds(self) -> Self:
        base, floor = self.worker.controller.base_threshold, self.worker.controller.floor_threshold
        if base is not None and floor is not None and floor > base:
            raise ValueError(f"worker.controller.floor_threshold {floor} lies above base_threshold {base}")
        return self


def load(config: Path | None = None) -> WorkerSettings:
    """The settings from a TOML file and the environment.

    Raises:
        SettingsError: on anything unknown, malformed or contradictory.
    """
    return load_settings(WorkerSettings, config)
