"""What one run of a stage gave and took, and how that falls to the parts of the batch. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.prompt import Prompt
from worker.engine.part import Part
from worker.engine.prompt_source import Floats
from worker.engine.timeline import Interval, StageRun


class BatchRun(NamedTuple):
    """One stage for parts of equal depth."""

    logits: Floats
    """(candidates,) one part's behind the other's."""
    tokens: list[int]
    """(parts,) computed."""
    ran: Interval


def by_part(values: Floats, parts: Sequence[Part]) -> list[Floats]:
    """What was computed for several parts' candidates one behind the other, (candidates,), for each by itself."""
    return np.split(values, np.cumsum([len(part) for part in parts])[:-1])


def note_run(part: Part, tokens: int, full_layers: int, answers: int, ran: Interval) -> int:
    """Notes with a part's request that a stage has run.

    Args:
        part: as it was before.
        tokens: computed for it.
        full_layers: of the stage, which all of these pass.
        answers: candidates whose last tokens have passed the layer before the head; 0 for a chunk of the prefix.
        ran: when.

    Returns:
        Token-layers run.
    """
    token_layers = tokens * full_layers + answers
    part.job.token_layers_run += token_layers
    part.job.infer_s += ran.seconds
    if part.job.timeline is not None:
        places = part.places if answers else part.places[:0]
        part.job.timeline.stages.append(StageRun(part.depth, ran, places, tokens))
    return token_layers


def full_token_layers(prompt: Prompt, exit_layers: Sequence[int]) -> int:
    """Token-layers of a prompt at full depth; of the layer before a head only the answers' tokens run."""
    return (exit_layers[-1] - 1) * prompt.tokens + len(exit_layers) * len(prompt.suffixes)
