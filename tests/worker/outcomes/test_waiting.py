"""Which score an interaction belongs to, and when a score is judged."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.messages import PastInteraction
from worker.outcomes.waiting import WaitingScores

WAIT_S = 10


def answer(user_id, scored_time_ms, scores, made_by=1, model_version="m"):
    """What is read of an answered request; scores by item, made by the same or one each."""
    return SimpleNamespace(
        request=SimpleNamespace(user_id=user_id),
        item_ids=list(scores),
        ctr=np.array(list(scores.values()), np.float64),
        made_by=np.array(np.broadcast_to(made_by, len(scores)), np.int8),
        scored_time_ms=scored_time_ms,
        model_version=model_version,
    )


def past(*entries):
    """A history: `past((5, "+a"), (7, "-b"))`."""
    return [
        PastInteraction(item_id=said[1:], event_time_ms=at, positive=said[0] == "+", event_id=f"{at}{said}")
        for at, said in entries
    ]


def judged_of(waiting, now_s=WAIT_S):
    """What is due, as plain values: scores with their outcomes, and how many have none."""
    judged = waiting.judge(now_s)
    scores = [pair for one in judged for pair in zip(one.ctr.tolist(), one.positive.tolist(), strict=True)]
    return sorted(scores), sum(one.expired for one in judged)


def test_a_score_is_judged_by_what_its_user_did_with_the_item_afterwards():
    """Clicked, passed over, nothing done, done before it was scored, and done by somebody else."""
    waiting = WaitingScores(WAIT_S, 100)
    waiting.note(answer("u", 1000, {"a": 0.5, "b": 0.25, "c": 0.75, "d": 0.125}, made_by=2), 0)
    waiting.learn("u", past((1000, "+c"), (1001, "+a"), (1002, "-b"), (1003, "+other")))
    waiting.learn("v", past((1001, "+d")))
    [judged] = waiting.judge(WAIT_S)

    assert dict(zip(judged.ctr.tolist(), judged.positive.tolist(), strict=True)) == {0.5: True, 0.25: False}
    assert judged.made_by.tolist() == [2, 2]
    assert judged.expired == 2


def test_a_score_keeps_its_outcome_and_its_maker_in_whatever_order_outcomes_come():
    """Of one request the last candidate may be the first that something is known of."""
    waiting = WaitingScores(WAIT_S, 100)
    waiting.note(answer("u", 1000, {"a": 0.5, "b": 0.25, "c": 0.75}, made_by=[0, 1, 2]), 0)
    waiting.learn("u", past((1001, "-c"), (1002, "+b")))
    [judged] = waiting.judge(WAIT_S)

    found = zip(judged.ctr.tolist(), judged.positive.tolist(), judged.made_by.tolist(), strict=True)
    assert sorted(found) == [(0.25, True, 1), (0.75, False, 2)]


def test_nothing_is_judged_before_its_wait_is_over_and_everything_once():
    """Positives do not come before negatives: a young window would hold too many of them."""
    waiting = WaitingScores(WAIT_S, 100)
    waiting.note(answer("u", 1000, {"a": 0.5}), 0)
    waiting.note(answer("u", 2000, {"b": 0.25}), 1)
    waiting.learn("u", past((2001, "+a"), (2001, "-b")))

    assert judged_of(waiting, WAIT_S - 0.001) == ([], 0)
    assert judged_of(waiting, WAIT_S) == ([(0.5, True)], 0)
    assert judged_of(waiting, WAIT_S + 1) == ([(0.25, False)], 0)
    assert judged_of(waiting, WAIT_S + 100) == ([], 0)


def test_scores_of_two_models_are_judged_apart():
    """Those of one user too; each model is told with its own, in whatever order their requests were answered."""
    waiting = WaitingScores(WAIT_S, 100)
    for number, model_version in enumerate(("old", "new", "old")):
        waiting.note(answer("u", 1000 + number, {f"i{number}": 0.25 * number}, model_version=model_version), 0)
    waiting.learn("u", past((2000, "+i0"), (2000, "-i1")))
    judged = {one.model_version: one for one in waiting.judge(WAIT_S)}

    assert (judged["old"].ctr.tolist(), judged["old"].positive.tolist(), judged["old"].expired) == ([0.0], [True], 1)
    assert (judged["new"].ctr.tolist(), judged["new"].positive.tolist(), judged["new"].expired) == ([0.25], [False], 0)


def test_judged_scores_are_arrays_of_their_types_also_without_any():
    """Whoever counts them indexes with them."""
    waiting = WaitingScores(WAIT_S, 100)
    waiting.note(answer("u", 1000, {"a": 0.5}, model_version="without"), 0)
    waiting.note(answer("v", 1000, {"a": 0.5}, model_version="with"), 0)
    waiting.learn("v", past((1001, "+a")))
    for judged, count in zip(waiting.judge(WAIT_S), (0, 1), strict=True):
        assert [(array.dtype, len(array)) for array in (judged.ctr, judged.positive, judged.made_by)] == [
            (np.float64, count),
            (np.bool_, count),
            (np.int8, count),
        ]


def test_a_users_later_score_still_waits_when_an_earlier_one_is_judged():
    """What is learnt in between belongs to the later one."""
    waiting = WaitingScores(WAIT_S, 100)
    waiting.note(answer("u", 1000, {"a": 0.5}), 0)
    waiting.note(answer("u", 2000, {"a": 0.25}), 1)

    assert judged_of(waiting, WAIT_S) == ([], 1)
    waiting.learn("u", past((2001, "+a")))
    assert judged_of(waiting, WAIT_S + 1) == ([(0.25, True)], 0)


def test_answers_may_come_in_another_order_than_they_were_scored():
    """What was done between the two belongs to the one that was scored before it, though it came last."""
    waiting = WaitingScores(WAIT_S, 100)
    waiting.note(answer("u", 2000, {"a": 0.5}), 0)
    waiting.note(answer("u", 1000, {"a": 0.25}), 0)
    waiting.learn("u", past((1500, "+a")))

    assert judged_of(waiting) == ([(0.25, True)], 1)


def test_a_click_after_its_impression_makes_the_score_positive():
    """Also where the impression is known first, in a state of its own, and whatever comes after the click."""
    waiting = WaitingScores(WAIT_S, 100)
    waiting.note(answer("u", 1000, {"a": 0.5}), 0)
    waiting.learn("u", past((1001, "-a")))
    waiting.learn("u", past((1001, "-a"), (1005, "+a")))
    waiting.learn("u", past((1005, "+a"), (1009, "-a")))

    assert judged_of(waiting) == ([(0.5, True)], 0)


def test_an_interaction_belongs_to_the_latest_score_before_it():
    """Of a pair that was scored twice, what was done in between (up to the very moment)
    judges the first and what was done later the second.
    """
    waiting = WaitingScores(WAIT_S, 100)
    waiting.note(answer("u", 1000, {"a": 0.5}), 0)
    waiting.note(answer("u", 2000, {"a": 0.25}), 0)
    waiting.learn("u", past((1500, "-a"), (2000, "+a"), (2500, "-a")))

    assert judged_of(waiting) == ([(0.25, False), (0.5, True)], 0)


def test_without_room_answers_are_skipped_until_there_is_some():
    """Those that wait keep their place: giving them up before their time would judge none at all."""
    waiting = WaitingScores(WAIT_S, 3)
    waiting.note(answer("u", 1000, {"a": 0.5, "b": 0.5}), 0)
    waiting.note(answer("v", 1000, {"a": 0.5, "b": 0.5}), 0)
    waiting.note(answer("w", 1000, {"a": 0.5}), 1)
    assert (waiting.candidates, waiting.skipped) == (3, 2)
    waiting.note(answer("v", 1000, {"a": 0.5}), 1)
    assert (waiting.candidates, waiting.skipped) == (3, 3)

    assert judged_of(waiting) == ([], 2)
    waiting.note(answer("v", 1000, {"a": 0.5, "b": 0.5}), WAIT_S)
    assert (waiting.candidates, waiting.skipped) == (3, 3)


def test_nothing_is_kept_of_what_was_judged():
    """Neither of users nor of requests, also those without candidates."""
    waiting = WaitingScores(WAIT_S, 100)
    for number in range(30):
        waiting.note(answer(f"u{number % 3}", number, {"a": 0.5} if number % 2 else {}), number)
    waiting.judge(1000)

    assert waiting.candidates == 0
    assert not waiting._by_user
    assert not waiting._in_order


@dataclass
class PlainScore:
    """A score in the reference."""

    user_id: str
    item_id: str
    scored_ms: int
    due_s: int
    ctr: float


class PlainJoin:
    """The reference: a list of scores, and everything that each user was ever said to have done."""

    def __init__(self):
        self.scores: list[PlainScore] = []
        self.told: list[tuple[PlainScore, bool]] = []

    def note(self, answer, now_s):
        for item_id, ctr in zip(answer.item_ids, answer.ctr.tolist(), strict=True):
            score = PlainScore(answer.request.user_id, item_id, answer.scored_time_ms, now_s + WAIT_S, ctr)
            self.scores.append(score)

    def learn(self, user_id, recent):
        for event in recent:
            theirs = [
                score
                for score in self.scores
                if (score.user_id, score.item_id) == (user_id, event.item_id) and score.scored_ms < event.event_time_ms
            ]
            if theirs:
                self.told.append((max(theirs, key=lambda score: score.scored_ms), event.positive))

    def judge(self, now_s):
        due = [score for score in self.scores if score.due_s <= now_s]
        self.scores = [score for score in self.scores if score.due_s > now_s]
        outcomes = {id(score): [positive for one, positive in self.told if one is score] for score in due}
        judged = sorted((score.ctr, any(outcomes[id(score)])) for score in due if outcomes[id(score)])
        return judged, len(due) - len(judged)


USERS = st.sampled_from("uv")
ITEMS = st.sampled_from("abc")
TIMES = st.integers(0, 6)
"""Few, so that what is scored and done is often in between."""
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("note"), USERS, TIMES, st.lists(ITEMS, unique=True, max_size=3)),
        st.tuples(st.just("learn"), USERS, st.lists(st.tuples(TIMES, ITEMS, st.booleans()), min_size=1, max_size=4)),
        st.tuples(st.just("judge"), st.integers(0, WAIT_S)),
    ),
    min_size=5,
    max_size=40,
)


@settings(max_examples=300)
@given(STEPS)
def test_the_join_is_that_of_the_plain_reference(steps):
    """For any order of answers, histories and judgements, clocks that differ included."""
    waiting, plain = WaitingScores(WAIT_S, 1_000), PlainJoin()
    now_s, number = 0, 0
    for kind, *step in steps:
        if kind == "note":
            who, at, items = step
            number += 1
            # Scored at different times: of two scores of one time either could be meant.
            scores = {item: number + place / 10 for place, item in enumerate(items)}
            noted = answer(who, 100 * at + number, scores)
            waiting.note(noted, now_s)
            plain.note(noted, now_s)
        elif kind == "learn":
            who, events = step
            recent = past(*((100 * at, f"{'+' if positive else '-'}{item}") for at, item, positive in events))
            waiting.learn(who, recent)
            plain.learn(who, recent)
        else:
            now_s += step[0]
            assert judged_of(waiting, now_s) == plain.judge(now_s)
    assert judged_of(waiting, now_s + WAIT_S) == plain.judge(now_s + WAIT_S)
