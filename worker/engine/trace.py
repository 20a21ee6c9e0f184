"""Every head's view of every candidate: for calibration and explanations, outside the queue."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from models.calibration import ExitCalibration
from models.prompt import Prompt
from worker.engine.part import Part
from worker.engine.prompt_source import Floats
from worker.engine.queue import first_fitting
from worker.engine.transformer.runner import StageRunner


@dataclass(frozen=True, slots=True)
class Trace:
    """Every head's view of every candidate of one prompt, at full depth."""

    logits: Floats  # (n, heads) raw
    ctr: Floats  # (n, heads)
    confidence: Floats  # (n, heads)


def trace_steps(
    runner: StageRunner, calibration: ExitCalibration, prompt: Prompt, max_batch_tokens: int
) -> Generator[int, None, Trace]:
    """Runs a prompt through all stages, in batches of at most so many tokens. Other work of the same thread may be done
    between two steps.

    Yields:
        Behind each stage of each batch, the number of the head that was passed.
    """
    heads = range(calibration.heads)
    logits = [np.zeros((0, len(heads)))]
    rest = prompt
    while rest.suffixes:
        fitting = first_fitting(rest, max_batch_tokens)
        part = Part.of(Prompt(rest.prefix, rest.suffixes[:fitting]))
        for head in heads:
            part.pass_head(runner.run([part])[0])
            yield head
        logits.append(part.logits)
        rest = Prompt(rest.prefix, rest.suffixes[fitting:])
    paths = np.concatenate(logits)
    return Trace(
        logits=paths,
        ctr=np.stack([calibration.ctr(head, paths[:, head]) for head in heads], axis=1),
        confidence=np.stack([calibration.confidence(head, paths[:, : head + 1]) for head in heads], axis=1),
    )
