"""Where candidates exit at a threshold, and how many token-layers that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.calibration import ExitCalibration
from training.replay import Example

Floats = NDArray[np.float64]


def confidences(calibration: ExitCalibration, logits: Floats) -> Floats:
    """Confidence (candidates, heads) of every head, from raw logits (candidates, heads)."""
    return np.stack(
        [calibration.confidence(head, logits[:, : head + 1]) for head in range(calibration.heads)],
        axis=1,
    )


def exit_heads(confidence: Floats, threshold: float) -> NDArray[np.int64]:
    """The head (candidates,) at which each candidate leaves: the first that reaches the threshold, else the last."""
    reached = confidence >= threshold
    reached[:, -1] = True
    return np.asarray(reached.argmax(axis=1))


def answers_at(ctrs: Floats, heads: NDArray[np.int64]) -> Floats:
    """From ctrs (candidates, heads), the value (candidates,) at each candidate's head."""
    return np.asarray(np.take_along_axis(ctrs, heads[:, None], axis=1)[:, 0])


@dataclass(frozen=True, slots=True)
class TokenCosts:
    """Lengths of prefixes and suffixes, from which the costs of exits follow."""

    suffix_tokens: NDArray[np.int64]  # (candidates,)
    prefix_tokens: NDArray[np.int64]  # (examples,)
    first_candidate: NDArray[np.int64]  # (examples,) row of each example's first candidate

    @classmethod
    def of(cls, examples: Sequence[Example]) -> TokenCosts:
        """Of examples."""
        counts = [len(example) for example in examples]
        return cls(
            suffix_tokens=np.concatenate([example.prompt.suffix_lengths for example in examples]),
            prefix_tokens=np.array([len(example.prompt.prefix) for example in examples]),
            first_candidate=np.cumsum([0, *counts[:-1]]),
        )

    @classmethod
    def joined(cls, parts: Sequence[TokenCosts]) -> TokenCosts:
        """Of several groups of examples, one after the other."""
        starts = np.cumsum([0, *(len(part.suffix_tokens) for part in parts[:-1])])
        return cls(
            suffix_tokens=np.concatenate([part.suffix_tokens for part in parts]),
            prefix_tokens=np.concatenate([part.prefix_tokens for part in parts]),
            first_candidate=np.concatenate(
                [part.first_candidate + start for part, start in zip(parts, starts, strict=True)]
            ),
        )

    def share(self, exit_layers: Sequence[int], heads: NDArray[np.int64]) -> float:
        """Token-layers computed, as a share of those at full depth, counted as the engine counts them.

        A prefix goes as deep as its deepest candidate; in the layer before a head only the last tokens are computed.
        """
        layers = np.asarray(exit_layers)[heads]  # (candidates,)
        deepest = np.maximum.reduceat(layers, self.first_candidate)  # (examples,)
        executed = (self.suffix_tokens * (layers - 1)).sum() + (self.prefix_tokens * (deepest - 1)).sum()
        full = (exit_layers[-1] - 1) * (self.suffix_tokens.sum() + self.prefix_tokens.sum())
        return float((executed + (heads + 1).sum()) / (full + len(exit_layers) * len(heads)))
