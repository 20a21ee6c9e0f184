"""Evidence that is kept from a model: that and nothing else, as of the same time."""

from dataclasses import replace

import msgspec
import pytest

from evaluation.left_out import NOTHING
from training.evaluate import evaluate
from training.left_out import evidence_without, with_left_out


def items(evidence):
    """The candidate and the latest of the user's past, which are told whatever is retrieved."""
    return [evidence.candidates[0].item, *(past.item for past in evidence.user.recent)]


KINDS = {
    "titles": lambda told: [item.title_tokens for item in items(told) if item.title_tokens],
    "embeddings": lambda told: [
        vector.tolist()
        for vector in (told.user.embedding, *(item.embedding for item in items(told)))
        if vector is not None
    ],
    "the most similar of the user's past": lambda told: [
        (past.item.item_id, past.positive) for past in told.candidates[0].past
    ],
    "similar users and similar items": lambda told: [voter.user_id for voter in told.candidates[0].similar_users],
    "what items of the same attributes and words did": lambda told: [
        *([] if told.candidates[0].shared is None else told.candidates[0].shared.tolist()),
        *told.candidates[0].attributes,
    ],
    "grades": lambda told: [] if told.candidates[0].graded is None else told.candidates[0].graded.tolist(),
}


@pytest.fixture
def graded_log(log):
    """With a grade for every event."""
    events = [msgspec.structs.replace(event, grade=1.0 if event.positive else 0.2) for event in log.interactions]
    return replace(log, interactions=events)


@pytest.fixture
def replay(new_replay, graded_log):
    """As of the seven hundredth event, with votes of others and items that stand in for a candidate."""
    replay = new_replay(similar_users_shown=4, similar_items=2)
    replay.advance(graded_log.interactions[:700])
    return replay


def whole(replay, log):
    """The evidence of a later event that holds every kind, and whose it is."""
    for event in log.interactions[700:]:
        evidence = replay.evidence(event.user_id, [event.item_id])
        if all(kind(evidence) for kind in KINDS.values()):
            return evidence, event
    raise AssertionError("no event has evidence of every kind")


@pytest.mark.parametrize("left_out", KINDS)
def test_one_kind_is_gone_and_all_others_are_as_they_were(replay, graded_log, left_out):
    """In the evidence, and so in the prompt, which is made of nothing else."""
    evidence, event = whole(replay, graded_log)
    without = evidence_without(graded_log)[left_out](replay, event.user_id, event.item_id)
    assert KINDS[left_out](without) == []
    for name, kind in KINDS.items():
        assert name == left_out or kind(without) == kind(evidence), name
    assert replay.prompt_of(without).tokens <= replay.prompt_of(evidence).tokens


def test_titles_and_embeddings_are_gone_from_what_was_retrieved_as_well(replay, graded_log):
    """Past items and stand-ins are items like any other."""
    _, event = whole(replay, graded_log)
    for name, gone in (
        ("titles", lambda item: not item.title_tokens),
        ("embeddings", lambda item: item.embedding is None),
    ):
        (candidate,) = evidence_without(graded_log)[name](replay, event.user_id, event.item_id).candidates
        retrieved = [one.item for one in (*candidate.past, *candidate.similar_items)]
        assert retrieved
        assert all(map(gone, retrieved))


def test_a_user_or_an_item_can_be_new(replay, graded_log):
    """Nothing is known of the one, and all of the other."""
    evidence, event = whole(replay, graded_log)
    ways = evidence_without(graded_log)
    user = ways["everything about the user"](replay, event.user_id, event.item_id)
    assert (user.user.impressions, user.user.embedding, list(user.user.recent)) == (0, None, [])
    assert user.candidates[0].item.item_id == event.item_id
    item = ways["everything about the item"](replay, event.user_id, event.item_id)
    assert (item.candidates[0].item.impressions, item.candidates[0].item.title_tokens) == (0, ())
    assert KINDS["titles"](item) == KINDS["titles"](evidence)[1:]


def test_grades_are_left_out_only_where_there_are_any(log, graded_log):
    """A log of clicks has no such row."""
    assert set(evidence_without(graded_log)) - set(evidence_without(log)) == {"grades"}


@pytest.mark.slow
def test_with_all_evidence_it_is_the_evaluation(tiny_bundle, log):
    """And each difference is that to it, with an interval around."""
    evaluation = evaluate(tiny_bundle, log)
    first, *others = with_left_out(evaluation, tiny_bundle, log).left_out
    assert first.left_out == NOTHING
    assert first.auc == pytest.approx(evaluation.served.auc, abs=1e-6)
    assert first.log_loss == pytest.approx(evaluation.served.log_loss, rel=1e-5)
    assert [point.left_out for point in others] == list(evidence_without(log))
    for point in others:
        assert point.difference.difference == pytest.approx(point.auc - first.auc, abs=1e-9)
        assert point.difference.low <= point.difference.difference <= point.difference.high
    assert len({point.log_loss for point in others}) > len(others) // 2  # each kind is told to the model
