"""What goes into the engine, what comes out, and its settings: plain data, no torch.

Depth counts heads: a request at depth d has passed d of them. Stage d is the layers between head d - 1 and head d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.calibration import Criterion
from models.prompt import Prompt
from schemas.messages import MadeBy, QualityFloor

Precision = Literal["float32", "int8", "bfloat16"]
"""Number format of the weights; int8 keeps float32 between the linear layers and needs a CPU."""

MADE_BY: Final[tuple[MadeBy, ...]] = get_args(MadeBy)
"""`EngineResult.made_by` holds indices into this."""
CONFIDENT, FINAL, DEADLINE, GRAPH = (MADE_BY.index(made) for made in ("confident", "final", "deadline", "graph"))


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the engine runs.

    Args:
        precision: number format of the weights.
        criterion: what an exit is decided by; None takes the calibration's own.
        max_batch_tokens: the most tokens that pass a stage together; a larger request is cut into parts that do not
            delay others more than their share.
        device: a torch device, `cpu` or `cuda`.
        prefix_cache_bytes: memory for prefixes of earlier requests; 0 keeps none.
        headroom: factor on a stage's predicted time when asking whether it would still end before a deadline.
        patience_s: a request is overtaken for at most this long after it came, whatever its deadline.
        warm_up_rounds: how often warm-up runs each stage at each size; the median is believed.
    """

    precision: Precision = "float32"
    criterion: Criterion | None = None
    max_batch_tokens: int = 8192
    device: str = "cpu"
    prefix_cache_bytes: int = 64 * 1_048_576
    headroom: float = 1.2
    patience_s: float = 60.0
    warm_up_rounds: int = 3


@dataclass(frozen=True, slots=True)
class Work:
    """One request to score; `deadline_s` on the engine's (monotonic) clock."""

    key: int
    prompt: Prompt
    deadline_s: float
    quality_floor: QualityFloor = "graph"


@dataclass(frozen=True, slots=True)
class EngineResult:
    """The answer to one `Work`, candidates in the order of its suffixes.

    Where no head could be reached in time, `exit_layer` is 0, `made_by` says `graph`, and `ctr` is NaN: the graph score
    is the caller's.
    """

    key: int
    ctr: NDArray[np.float64]  # (n,)
    exit_layer: NDArray[np.int32]  # (n,) decoder layers that were run
    confidence: NDArray[np.float64]  # (n,)
    made_by: NDArray[np.int8]  # (n,) indices into MADE_BY
    token_layers_run: int
    """How often a token has really passed a layer for it; a token that only gave keys and values has not."""
    token_layers_full: int
    """The same if nothing left early and the prefix cache were empty."""
    infer_s: float
    """Seconds of the stages that it was part of."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What is in the engine, a row per request (or part of a large one), in the order in which they will be run."""

    depth: NDArray[np.int64]  # (m,) heads passed
    prefix_tokens: NDArray[np.int64]  # (m,) of the next stage; 0 where the prefix cache is known to have them
    suffix_tokens: NDArray[np.int64]  # (m,) of the candidates that are left
    deadline_s: NDArray[np.float64]  # (m,)


@dataclass(frozen=True, slots=True)
class Trace:
    """Every head's view of every candidate of one prompt, at full depth."""

    logits: NDArray[np.float64]  # (n, heads) raw
    ctr: NDArray[np.float64]  # (n, heads)
    confidence: NDArray[np.float64]  # (n, heads)


@dataclass(slots=True)
class EngineCounters:
    """Running totals since the start, for metrics and benchmarks."""

    steps: int = 0
    requests: int = 0
    token_layers_run: int = 0
    token_layers_full: int = 0
    step_s: float = 0.0
    """Seconds inside `step`."""
    model_s: float = 0.0
    """Of these, seconds inside embedding, layers and heads (warm-up and traces count here too)."""
    prefix_hits: int = 0
    prefix_misses: int = 0
