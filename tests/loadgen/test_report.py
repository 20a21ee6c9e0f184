"""A report says what was answered, how well, how fast and how."""

import pytest

from loadgen.plan import Impression, Plan
from loadgen.report import Answers, make_report
from schemas.messages import CandidateScore, ImpressionScores, Interaction


def _impression(number, labels):
    events = [
        Interaction(
            event_id=f"{number}-{place}",
            user_id="u",
            item_id=f"i{place}",
            kind="rating",
            event_time_ms=number,
            positive=label,
        )
        for place, label in enumerate(labels)
    ]
    return Impression(request_id=f"r{number}", user_id="u", events=events)


def _scores(impression, ctrs, created=1_000, budget=200):
    return ImpressionScores(
        request_id=impression.request_id,
        user_id="u",
        status="ok",
        scores=[
            CandidateScore(item_id=item, ctr=ctr, made_by="final", exit_layer=4, confidence=1.0)
            for item, ctr in zip(impression.item_ids, ctrs, strict=True)
        ],
        model_version="m",
        created_time_ms=created,
        deadline_ms=created + budget,
        scored_time_ms=created + 50,
        exit_threshold=0.9,
    )


@pytest.fixture
def played():
    """Two impressions, the second of which is never answered."""
    impressions = [_impression(0, [True, False, True]), _impression(1, [False])]
    return Plan(name="test", items=[], history=[], impressions=impressions), impressions


def test_unanswered_requests_are_lost(played):
    """A request without scores counts as lost and is left out of the quality figures."""
    plan, impressions = played
    answers = Answers()
    answers.add(_scores(impressions[0], [0.9, 0.1, 0.8]), read_ms=1_100.0)
    report = make_report(plan, impressions, answers)
    assert (report.requests, report.answered, report.lost, report.candidates) == (2, 1, 1, 3)
    assert report.auc == pytest.approx(1.0)


def test_scores_are_matched_by_item_whatever_their_order(played):
    """Scores in another order than the candidates' still meet their own labels."""
    plan, impressions = played
    answers = Answers()
    scores = _scores(impressions[0], [0.9, 0.1, 0.8])
    answers.add(
        ImpressionScores(
            **{**{f: getattr(scores, f) for f in scores.__struct_fields__}, "scores": scores.scores[::-1]}
        ),
        1_100.0,
    )
    assert make_report(plan, impressions[:1], answers).auc == pytest.approx(1.0)


def test_a_second_record_for_a_request_is_a_duplicate(played):
    """Duplicates are counted, and the first answer stands."""
    plan, impressions = played
    answers = Answers()
    for read_ms in (1_150.0, 1_900.0):
        answers.add(_scores(impressions[0], [0.9, 0.1, 0.8]), read_ms)
    report = make_report(plan, impressions[:1], answers)
    assert report.duplicated == 1
    assert report.latency_ms["p50"] == pytest.approx(150.0)


def test_latency_counts_until_the_scores_could_be_read(played):
    """An answer read after its deadline is outside the budget, whenever it was made."""
    plan, impressions = played
    answers = Answers()
    answers.add(_scores(impressions[0], [0.9, 0.1, 0.8]), read_ms=1_250.0)
    assert make_report(plan, impressions[:1], answers).within_budget_share == 0.0
