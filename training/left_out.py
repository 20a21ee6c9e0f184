"""Evaluates a bundle with one kind of evidence kept from the model at a time.

The kind is taken out of the prompt's words and soft tokens, and the statistics made of it are set to zero, which is
what each of them has where nothing is known. The model is not trained anew: what is told is how much it relies on each
kind, not what a model without it could reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from msgspec.structs import replace as changed

from evaluation.auc_difference import auc_difference
from evaluation.left_out import NOTHING, LeftOutPoint
from evaluation.metrics import auc, log_loss
from event_data.event_log import EventLog
from models.bundle import Bundle
from models.evidence import CandidateEvidence, Evidence, blinded, with_items
from models.features import FEATURES, SHARED_FEATURES
from models.prompt import Prompt
from models.token_sequence import SoftKind
from training.clicks import is_click
from training.evaluate import MOST_EVENTS, Evaluation, first_tested
from training.progress import Reporter, Silent
from training.replay import Replay
from training.served_scores import ServedScores

UNKNOWN: Final = "\0unknown"
"""An id that no log has."""
USER: Final = "everything about the user"
ITEM: Final = "everything about the item"
"""As if it were seen for the first time: no kind of its own, but nothing to be found by its id."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of evidence.

    Attributes:
        without: takes it out of what is told in words and soft tokens.
        statistics: the `FEATURES` that are made of it.
    """

    without: Callable[[Evidence], Evidence]
    statistics: tuple[str, ...]

    def left_out(self, replay: Replay, evidence: Evidence) -> Prompt:
        """The prompt of the evidence without this kind."""
        prompt = replay.prompt_of(self.without(evidence))
        columns = np.array([FEATURES.index(name) for name in self.statistics], np.int64)
        for suffix in prompt.suffixes:
            rows = np.flatnonzero(suffix.soft_kinds == SoftKind.STATISTICS)
            read = columns[columns < suffix.soft_values.shape[1]]  # an older model has fewer
            suffix.soft_values[rows[:, None], read] = 0.0
        return prompt


def with_left_out(
    evaluation: Evaluation,
    bundle: Bundle,
    log: EventLog,
    reporter: Reporter | None = None,
    most_events: int = MOST_EVENTS,
) -> Evaluation:
    """The evaluation, and the same events scored without each kind of evidence.

    Args:
        evaluation: of this bundle on this log.
        bundle: the model.
        log: events in time order.
        reporter: shows how far it has come.
        most_events: as for `evaluate`.
    """
    first = first_tested(log, most_events)
    tested = log.interactions[first:]
    replay = Replay.for_bundle(log.items, bundle)
    replay.advance(log.interactions[:first])
    names = (NOTHING, *KINDS, USER, ITEM)
    with (reporter or Silent()).step("evidence left out", len(tested) * len(names)) as advance:
        scores = ServedScores(bundle, advance)
        for event in tested:
            for prompt in prompts_without(replay, event.user_id, event.item_id).values():
                scores.add(prompt)
            replay.advance([event])
        ctrs = dict(zip(names, scores.ctrs().reshape(len(tested), len(names)).T, strict=True))
    labels = np.array([is_click(event) for event in tested])
    users = [event.user_id for event in tested]
    points = [
        LeftOutPoint(
            name, auc(labels, told), log_loss(labels, told), auc_difference(labels, told, ctrs[NOTHING], users)
        )
        for name, told in ctrs.items()
    ]
    return replace(evaluation, left_out=tuple(points))


def prompts_without(replay: Replay, user_id: str, item_id: str) -> dict[str, Prompt]:
    """The prompts of a user and an item at this moment, by what is left out of them."""
    evidence = replay.evidence(user_id, [item_id])
    return {
        NOTHING: replay.prompt_of(evidence),
        **{name: kind.left_out(replay, evidence) for name, kind in KINDS.items()},
        USER: replay.prompt(UNKNOWN, [item_id]),
        ITEM: replay.prompt(user_id, [UNKNOWN]),
    }


def _without_words(evidence: Evidence) -> Evidence:
    told = with_items(evidence, lambda item: changed(item, title_tokens=()))
    return _with_candidates(told, lambda candidate: changed(candidate, attributes=()))


def _without_latest(evidence: Evidence) -> Evidence:
    return changed(evidence, user=changed(evidence.user, recent=()))


def _without_past(evidence: Evidence) -> Evidence:
    return _with_candidates(evidence, lambda candidate: changed(candidate, past=()))


def _without_similar(evidence: Evidence) -> Evidence:
    return _with_candidates(evidence, lambda candidate: changed(candidate, similar_users=(), similar_items=()))


def _without_graph(evidence: Evidence) -> Evidence:
    return blinded(_without_past(_without_similar(evidence)))


def _without_shared(evidence: Evidence) -> Evidence:
    return _with_candidates(evidence, lambda candidate: changed(candidate, attributes=()))


def _as_it_is(evidence: Evidence) -> Evidence:
    return evidence


def _with_candidates(evidence: Evidence, edit: Callable[[CandidateEvidence], CandidateEvidence]) -> Evidence:
    return changed(evidence, candidates=[edit(candidate) for candidate in evidence.candidates])


_PAST: Final = ("past_vote", "past_surprise", "past_similarity", "past_known", "similar_grade")
_SIMILAR: Final = ("neighbour_vote", "neighbour_count", "similar_item_rate")
_HISTORY: Final = (
    *("history_surprise", "recent_surprise", "recent_rate", "recent_count"),
    *("history_grade", "recent_grade", "grade_spread", "user_rate_spread"),
)
_COUNTS: Final = (
    *("user_rate", "item_rate", "user_count", "item_count", "user_known", "item_known"),
    *("user_grade", "item_grade", "user_rate_counted", "item_rate_counted", "user_rate_spread"),
)
_SHARED: Final = (
    *SHARED_FEATURES,
    *("attribute_grade", "attribute_grade_surprise", "title_grade", "title_count", "past_grade"),
)
KINDS: Final[Mapping[str, Kind]] = {
    "words of titles and attributes": Kind(_without_words, ()),
    "the user's latest events": Kind(_without_latest, _HISTORY),
    "the most similar of the user's past": Kind(_without_past, _PAST),
    "similar users and similar items": Kind(_without_similar, _SIMILAR),
    "the graph: these two, and embeddings": Kind(_without_graph, ("affinity", "cosine", *_PAST, *_SIMILAR)),
    "what items of the same attributes and words did": Kind(_without_shared, _SHARED),
    "click rates and counts": Kind(_as_it_is, _COUNTS),
    "all statistics": Kind(_as_it_is, FEATURES),
}
"""By name. An item's mean grade is shrunk towards that of its attributes; it is counted among rates."""
