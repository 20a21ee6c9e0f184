"""Evaluates a bundle with one kind of evidence left out of its prompts at a time, as if it were missing in serving.

The model is not trained anew: what is told is how much it relies on each, not what a model without it could reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from msgspec.structs import replace as changed

from evaluation.auc_difference import AucDifference, auc_difference
from evaluation.left_out import NOTHING, LeftOutPoint
from evaluation.metrics import auc, log_loss
from event_data.event_log import EventLog
from models.bundle import Bundle
from models.evidence import CandidateEvidence, Evidence, ItemFacts, PastItem, SimilarItem
from training.clicks import is_click
from training.evaluate import MOST_EVENTS, Evaluation, first_tested
from training.progress import Reporter, Silent
from training.replay import Replay
from training.served_scores import ServedScores

UNKNOWN: Final = "\0unknown"
"""An id that no log has."""
Without = Callable[[Replay, str, str], Evidence]
"""The evidence of a user and an item without something."""


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
    ways = {NOTHING: _all, **evidence_without(log)}
    with (reporter or Silent()).step("evidence left out", len(tested) * len(ways)) as advance:
        scores = {name: ServedScores(bundle, advance) for name in ways}
        for event in tested:
            for name, without in ways.items():
                scores[name].add(replay.prompt_of(without(replay, event.user_id, event.item_id)))
            replay.advance([event])
        ctrs = {name: told.ctrs() for name, told in scores.items()}
    labels = np.array([is_click(event) for event in tested])
    users = [event.user_id for event in tested]

    def difference(name: str) -> AucDifference:
        return auc_difference(labels, ctrs[name], ctrs[NOTHING], users)

    points = [
        LeftOutPoint(name, auc(labels, told), log_loss(labels, told), difference(name)) for name, told in ctrs.items()
    ]
    return replace(evaluation, left_out=tuple(points))


def evidence_without(log: EventLog) -> dict[str, Without]:
    """What can be left out of the evidence of a log's events, by name."""
    graded = any(event.grade is not None for event in log.interactions)
    ways: dict[str, Without] = {
        "titles": _edited(_without_titles),
        "embeddings": _edited(_without_embeddings),
        "the most similar of the user's past": _edited(_without_retrieved_past),
        "similar users and similar items": _edited(_without_similar),
        "what items of the same attributes and words did": _edited(_without_shared),
        "grades": _edited(_without_grades),
        "everything about the user": lambda replay, _user, item: replay.evidence(UNKNOWN, [item]),
        "everything about the item": lambda replay, user, _item: replay.evidence(user, [UNKNOWN]),
    }
    if not graded:
        del ways["grades"]
    return ways


def _all(replay: Replay, user_id: str, item_id: str) -> Evidence:
    return replay.evidence(user_id, [item_id])


def _edited(edit: Callable[[Evidence], Evidence]) -> Without:
    return lambda replay, user_id, item_id: edit(_all(replay, user_id, item_id))


def _without_titles(evidence: Evidence) -> Evidence:
    return _with_items(evidence, lambda item: changed(item, title_tokens=()))


def _without_embeddings(evidence: Evidence) -> Evidence:
    """Neither in soft tokens nor in statistics. What was retrieved with them stays."""
    told = _with_items(evidence, lambda item: changed(item, embedding=None))
    return changed(told, user=changed(told.user, embedding=None))


def _without_retrieved_past(evidence: Evidence) -> Evidence:
    return _with_candidates(evidence, lambda candidate: changed(candidate, past=()))


def _without_similar(evidence: Evidence) -> Evidence:
    return _with_candidates(evidence, lambda candidate: changed(candidate, similar_users=(), similar_items=()))


def _without_shared(evidence: Evidence) -> Evidence:
    return _with_candidates(evidence, lambda candidate: changed(candidate, shared=None, attributes=()))


def _without_grades(evidence: Evidence) -> Evidence:
    return _with_candidates(evidence, lambda candidate: changed(candidate, graded=None))


def _with_candidates(evidence: Evidence, edit: Callable[[CandidateEvidence], CandidateEvidence]) -> Evidence:
    return changed(evidence, candidates=[edit(candidate) for candidate in evidence.candidates])


def _with_items(evidence: Evidence, edit: Callable[[ItemFacts], ItemFacts]) -> Evidence:
    """Every item of the evidence edited."""

    def past(one: PastItem) -> PastItem:
        return changed(one, item=edit(one.item))

    def near(one: SimilarItem) -> SimilarItem:
        return changed(one, item=edit(one.item))

    def candidate(one: CandidateEvidence) -> CandidateEvidence:
        return changed(
            one,
            item=edit(one.item),
            past=[past(each) for each in one.past],
            similar_items=[near(each) for each in one.similar_items],
        )

    user = changed(evidence.user, recent=[past(one) for one in evidence.user.recent])
    return _with_candidates(changed(evidence, user=user), candidate)
