"""Settings of the worker: the shared groups and its own section `[worker]`, environment `EXITSTREAM_WORKER__…`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from models.calibration import Criterion
from programs.settings import ExitstreamSettings
from programs.topics import TopicSettings
from runtime.settings import KafkaSettings, SettingsSection, TelemetrySettings
from runtime.settings_sources import load_settings
from worker.budget import ControllerSettings
from worker.engine.records import EngineSettings, Precision
from worker.limits import IndexSettings, TableLimits

_ENGINE, _CONTROLLER, _TABLES = EngineSettings(), ControllerSettings(), TableLimits()


class EngineSection(SettingsSection):
    """Inference, `[worker.engine]`; what each means is told by `worker.engine.records.EngineSettings`."""

    precision: Precision = _ENGINE.precision
    criterion: Criterion | None = Field(_ENGINE.criterion, description="None: the bundle's own")
    max_batch_tokens: int = Field(_ENGINE.max_batch_tokens, ge=1)
    device: str = _ENGINE.device
    prefix_cache_bytes: int = Field(_ENGINE.prefix_cache_bytes, ge=0)
    headroom: float = Field(_ENGINE.headroom, ge=1)
    patience_s: float = Field(_ENGINE.patience_s, gt=0)
    warm_up_rounds: int = Field(_ENGINE.warm_up_rounds, ge=1)

    def settings(self) -> EngineSettings:
        """The same for the engine."""
        return EngineSettings(**self.model_dump())


class ControllerSection(SettingsSection):
    """The exit threshold under load, `[worker.controller]`; see `worker.budget`."""

    base_threshold: float | None = Field(None, ge=0, le=1, description="None: as calibrated")
    floor_threshold: float | None = Field(None, ge=0, le=1, description="None: as calibrated; base's value fixes it")
    headroom: float = Field(_CONTROLLER.headroom, ge=0, le=1)
    rise_time_s: float = Field(_CONTROLLER.rise_time_s, gt=0)
    band: float = Field(_CONTROLLER.band, ge=0, le=0.5)

    def settings(self) -> ControllerSettings:
        """The same for the controller."""
        return ControllerSettings(headroom=self.headroom, rise_time_s=self.rise_time_s, band=self.band)


class TablesSection(SettingsSection):
    """What is kept of users and items, `[worker.tables]`."""

    history_length: int = Field(_TABLES.history_length, ge=1, le=10_000)
    exact_search_limit: int = Field(_TABLES.index.exact_limit, ge=1, description="beyond: inverted lists")
    least_recall: float = Field(_TABLES.index.least_recall, gt=0, le=1)
    update_batch: int = Field(200, ge=1, description="updates applied between two steps of inference")

    def limits(self) -> TableLimits:
        """The same for the tables."""
        index = IndexSettings(exact_limit=self.exact_search_limit, least_recall=self.least_recall)
        return TableLimits(history_length=self.history_length, index=index)


class WorkerSection(SettingsSection):
    """The program around them."""

    bundle: Path = Field(Path("bundle"), description="folder of the trained model")
    group_id: str = Field("exitstream-worker", min_length=1, description="workers of one group share the requests")
    threads: int | None = Field(None, ge=1, description="of torch and FAISS; None: the container's share of CPUs")

    budget_ms: int = Field(200, ge=0, le=3_600_000, description="where neither request nor record header names one")
    reading_margin_ms: float = Field(15.0, ge=0, description="kept back for readers; what writing takes is learned")
    max_clock_skew_ms: float = Field(1_000.0, ge=0, description="how far ahead of ours a requester's clock may be")
    max_age_ms: float = Field(86_400_000.0, ge=0, description="the oldest that a request is believed to be")

    fresh_first: bool = Field(True, description="what is older than budget_ms is read beside; not with exactly_once")
    max_in_flight: int = Field(4_096, ge=1, description="requests taken in and not answered; beyond: reading rests")
    poll_records: int = Field(500, ge=1)
    part_candidates: int = Field(64, ge=1, description="a request with more is scored in parts of so many")
    fair_candidates: int = Field(256, ge=1, description="of one request; those beyond wait until nobody else does")
    feed_tokens: int = Field(2_048, ge=1, description="kept inside the engine; outside, order can still change")
    graph_batch: int = Field(512, ge=1, description="requests answered from the graph at once")

    neighbours: int = Field(4, ge=0, description="pieces of evidence told per candidate in the scores")
    request_log: Literal["off", "debug", "info"] = Field("info", description="level of the line per request")
    request_log_per_s: int = Field(50, ge=1, description="lines beyond are counted, not written")

    engine: EngineSection = EngineSection()
    controller: ControllerSection = ControllerSection()
    tables: TablesSection = TablesSection()


class WorkerSettings(ExitstreamSettings):
    """Everything that `exitstream worker` can be told."""

    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    worker: WorkerSection = WorkerSection()

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
