"""How the engine runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from models.calibration import Criterion
from runtime.settings import SettingsSection

Precision = Literal["float32", "int8", "bfloat16"]
"""Number format of the weights; int8 keeps float32 between the linear layers and needs a CPU."""


class EngineSettings(SettingsSection):
    """The queue and inference, `[worker.engine]`."""

    precision: Precision = Field("float32", description="number format of the weights; int8 needs a CPU")
    criterion: Criterion | None = Field(None, description="what decides an exit; None: as calibrated")
    device: str = Field("cpu", description="a torch device, cpu or cuda")
    max_batch_tokens: int = Field(8_192, ge=1, description="most tokens that pass a stage together")
    max_step_s: float = Field(
        0.25,
        gt=0,
        description="time that one step should not exceed, as predicted: batches stay smaller, long prompts are cut",
    )
    prefix_cache_bytes: int = Field(
        256 * 1_048_576, ge=0, description="memory for keys and values of earlier requests' prefixes; 0: none"
    )
    safety_factor: float = Field(1.2, ge=1, description="on predicted times, when asking whether a stage ends in time")
    patience_s: float = Field(60.0, gt=0, description="a request is overtaken for at most this long")
    warm_up_rounds: int = Field(
        3, ge=1, description="measurements of each stage at each size at the start, as far as five seconds allow"
    )

    part_candidates: int = Field(64, ge=1, description="a request with more candidates is scored in parts of this size")
    fair_candidates: int = Field(256, ge=1, description="candidates of one request beyond these wait for all others")
    prepare_ahead_tokens: int = Field(
        2_048,
        ge=1,
        description="prompts are built ahead up to so many tokens; the order of the rest can still change",
    )
    graph_batch: int = Field(512, ge=1, description="parts scored from the graph in one step")
