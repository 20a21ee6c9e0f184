"""Passes over the fixed set, its AUC and the time to recover, from plain answers."""

import pytest

from benchmarks.overload_figures import longest, pair_counts, recovery_s, scored_at, whole_passes
from loadgen.open_loop import Answer, Arrival
from loadgen.plan import Impression
from schemas.messages import CandidateScore, ImpressionScores, Interaction


def page(name, labels):
    """An impression of the user `name` with these outcomes."""
    events = [
        Interaction(
            event_id=f"{name}{place}",
            user_id=name,
            item_id=f"i{place}",
            kind="rating",
            event_time_ms=0,
            positive=label,
        )
        for place, label in enumerate(labels)
    ]
    return Impression(request_id=name, user_id=name, events=events)


def answer(impression, ctrs, due_s=0.0, scored_s=0.0, threshold=0.9, start_ms=5_000):
    """Its answer; no CTRs: none came."""
    arrival = Arrival(due_s, impression)
    if ctrs is None:
        return Answer(arrival, None, None)
    created_ms = start_ms + round(1000 * due_s)
    scores = ImpressionScores(
        request_id=impression.request_id,
        user_id=impression.user_id,
        status="ok",
        scores=[
            CandidateScore(item_id=item, ctr=ctr, made_by="final", exit_layer=4, confidence=1.0)
            for item, ctr in zip(impression.item_ids, ctrs, strict=True)
        ],
        model_version="m",
        created_time_ms=created_ms,
        deadline_ms=created_ms + 200,
        scored_time_ms=start_ms + round(1000 * scored_s),
        exit_threshold=threshold,
    )
    return Answer(arrival, scores, 50.0)


PAGES = (page("a", [True, False]), page("b", [False, True]))


def test_every_level_sends_the_set_a_whole_number_of_times():
    """The number of requests is that of whole passes, and never less than one pass."""
    assert [whole_passes(requests, 400) for requests in (0, 399, 590, 610, 4_000)] == [1, 1, 1, 2, 10]


def test_answers_are_paired_by_place_in_the_set_pass_by_pass():
    """Each pass gives its own AUC over the whole set; they are averaged."""
    perfect = [answer(PAGES[0], [0.9, 0.1]), answer(PAGES[1], [0.2, 0.8])]
    reversed_ = [answer(PAGES[0], [0.1, 0.9]), answer(PAGES[1], [0.8, 0.2])]
    assert pair_counts(perfect, PAGES).auc() == pytest.approx(1.0)
    assert pair_counts([*perfect, *reversed_], PAGES).auc() == pytest.approx(0.5)


def test_a_pass_that_is_not_whole_is_left_out():
    """A few pages more would weigh more than the others."""
    answers = [answer(PAGES[0], [0.9, 0.1]), answer(PAGES[1], [0.2, 0.8]), answer(PAGES[0], [0.1, 0.9])]
    assert pair_counts(answers, PAGES).auc() == pytest.approx(1.0)


def test_an_unanswered_request_costs_its_pairs():
    """It wins nothing: of four pairs only the one within the answered page is won."""
    answers = [answer(PAGES[0], [0.9, 0.1]), answer(PAGES[1], None)]
    assert pair_counts(answers, PAGES).auc() == pytest.approx(1 / 4)


def test_a_request_counts_when_it_was_scored_not_when_it_was_due():
    """A request due at 1.0 s and scored at 1.4 s is back at base at 1.4 s."""
    assert scored_at([answer(PAGES[0], [0.9, 0.1], due_s=1.0, scored_s=1.4, threshold=0.8)]) == [(1.4, 0.8)]
    assert scored_at([answer(PAGES[0], None)]) == []


def test_recovery_lasts_until_the_first_request_after_which_all_are_at_base():
    """One request at base between two below does not end it."""
    scored = [(2.1, 0.5), (2.2, 0.9), (2.3, 0.6), (2.5, 0.86), (2.6, 0.9)]
    assert recovery_s(scored, base=0.9, end_s=2.0, until_s=5.0) == pytest.approx(0.5)


def test_recovery_does_not_depend_on_the_order_of_answers():
    """Requests are looked at in the order in which they were scored."""
    scored = [(2.6, 0.9), (2.3, 0.6), (2.5, 0.9)]
    assert recovery_s(scored, base=0.9, end_s=2.0, until_s=5.0) == pytest.approx(0.5)


def test_what_belongs_to_the_burst_or_to_the_next_one_does_not_count():
    """Only what is scored between a burst's end and the next change of load is its aftermath."""
    scored = [(1.9, 0.9), (2.4, 0.9), (5.0, 0.1)]
    assert recovery_s(scored, base=0.9, end_s=2.0, until_s=5.0) == pytest.approx(0.4)


def test_a_worker_that_ends_below_base_has_not_recovered():
    """The last request of the aftermath decides."""
    assert recovery_s([(2.1, 0.9), (4.9, 0.85)], base=0.9, end_s=2.0, until_s=5.0) is None
    assert recovery_s([], base=0.9, end_s=2.0, until_s=5.0) is None


def test_the_longest_recovery_is_unknown_if_one_never_ended():
    """A worker that recovered once and then did not has no longest recovery."""
    assert longest([0.2, 0.4]) == 0.4
    assert longest([0.2, None]) is None
    assert longest([]) is None
