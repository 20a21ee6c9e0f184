"""What the report says in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from evaluation.left_out import NOTHING, LeftOutPoint
from training.evaluate import Evaluation, Quality

AUC_WORDS: Final = (
    "AUC: take one event that was clicked and one that was not; how often does the model give the clicked one the "
    "higher score? 0.5 is guessing, 1 is perfect. One point of AUC is 0.01. Running means, the bar to clear, "
    "score an event by the past click rates of its user and its item alone. Log loss also asks whether the rates "
    "are right (lower is better). Calibration error is how far predicted and observed click rates are apart on "
    "average (0.02 is two percentage points)."
)
FRONTIER_WORDS: Final = (
    "The model has several exits, one after some of its layers. A candidate leaves at the first exit that is "
    "confident enough; the threshold says how much is enough. Each dot is one threshold, measured on these "
    "events: further left is less work, higher is better ranking. Without load a worker uses the base threshold; "
    "under load it moves to the left. The vertical axis shows a small range of the AUC, so that differences can "
    "be seen at all."
)
EXIT_WORDS: Final = (
    "Share of candidates that leave after each of these layers at the base threshold. The last row is full depth: "
    "nothing was saved for those. If nearly everything leaves at the first exit, deeper layers told nothing new."
)
RELIABILITY_WORDS: Final = (
    "Events are sorted by the predicted click rate and cut into 15 groups of equally many. Each dot is one group: "
    "to the right is what was predicted, upwards what happened. On the dashed line both agree; above it the model "
    "was too low, below it too high. The vertical stroke is the 95 % interval of the observed rate: if it touches "
    "the line, chance alone may explain the distance. Expect about one stroke in twenty not to touch it even if "
    "the model is right."
)
EXIT_RELIABILITY_WORDS: Final = (
    "The same, but each exit with only those events that left there at the base threshold. These are the answers "
    "that are sent. With few events the strokes are long, and the picture tells little."
)
FRESHNESS_WORDS: Final = (
    "Embeddings, counts and histories can follow every event, or be computed anew only now and then, as many "
    "systems do. The same events were scored with state as of the last refresh; intervals are of event time. "
    "The distance from frozen to per event is what fresh state is worth to this model on this data."
)

LEFT_OUT_WORDS: Final = (
    "The same events scored by the same model, with one kind of evidence kept from it. What the AUC loses is how much "
    "the model relies on it. The model is not trained anew, so one that had never known it may do better than that. "
    "If the interval holds zero, chance alone may explain the change."
)


def headline(evaluation: Evaluation, *, seen: bool) -> str:
    """The result in two or three sentences.

    Args:
        evaluation: the figures.
        seen: whether the model may have been trained on these events.
    """
    served, full = evaluation.served, evaluation.heads[-1]
    unseen = "" if seen else " that the model was not trained on"
    work = f"Leaving early executed {share(evaluation.token_layer_share)} of the work of full depth"
    if not math.isfinite(served.auc):
        return f"On {evaluation.events:,} events{unseen}, all or none are clicks: ranking cannot be measured. {work}."
    return (
        f"On {evaluation.events:,} events{unseen}, it scored a clicked one above one that was not clicked in "
        f"{served.auc:.1%} of all pairs; running means of users and items do so in {evaluation.baseline_auc:.1%}. "
        f"{work} and changed the AUC by {points(served.auc - full.auc)} "
        f"and the log loss by {served.log_loss / full.log_loss - 1:+.2%}."
    )


def ways(evaluation: Evaluation) -> Iterator[tuple[str, Quality]]:
    """Every way to score, with its quality."""
    yield "as served, base threshold", evaluation.served
    for layer, quality in zip(evaluation.exit_layers, evaluation.heads, strict=True):
        yield f"head after layer {layer} alone", quality
    yield "graph score alone", evaluation.graph


def freshness_words(evaluation: Evaluation) -> str:
    """What state as of each event adds to frozen state."""
    frozen, fresh = evaluation.freshness[0].auc, evaluation.freshness[-1].auc
    return f"AUC per event against frozen: {points(fresh - frozen) if math.isfinite(fresh) else 'undefined'}"


def lost(point: LeftOutPoint) -> str:
    """How the AUC changes without this evidence."""
    if point.left_out == NOTHING or not math.isfinite(point.difference.difference):
        return ""
    changed = point.difference
    return f"{points(changed.difference)} [{changed.low * 100:+.2f}, {changed.high * 100:+.2f}]"


def points(difference: float) -> str:
    """A difference of AUC in points of 0.01."""
    return f"{difference * 100:+.2f} points"


def share(part: float) -> str:
    """A share; small ones with a decimal."""
    return f"{part:.0%}" if part >= 0.1 else f"{part:.1%}"
