"""Examples by replay never see the future."""

from dataclasses import replace
from itertools import repeat

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models.features import FEATURES, graph_features
from models.prompt_template import WORDS
from schemas.messages import Interaction, Item
from training.replay import Replay, replay_examples


def tokens_and_numbers(prompt):
    """All model input of a prompt."""
    return [
        (part.token_ids.tobytes(), part.soft_positions.tobytes(), part.soft_kinds.tobytes(), part.soft_values.tobytes())
        for part in (prompt.prefix, *prompt.suffixes)
    ]


def other_future(events, start):
    """The same users and items, but from `start` on every label is the opposite and times move on."""
    return [
        *events[:start],
        *(
            msgspec.structs.replace(event, positive=not event.positive, event_time_ms=event.event_time_ms + 1)
            for event in events[start:]
        ),
    ]


@pytest.mark.parametrize("tick", [1, 5])
@given(data=st.data())
@settings(
    max_examples=6,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # a start that fails says enough: shrinking it would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_feature_sees_its_own_or_a_later_event(log, new_replay, tick, data):
    """Whatever happens from some event on, all prompts up to and including that event's stay the same, bit by bit."""
    events = log.interactions[:240]
    start = data.draw(st.integers(0, len(events) // tick - 1)) * tick
    first, second = (
        list(replay_examples(new_replay(), history, repeat(tick))) for history in (events, other_future(events, start))
    )
    for one, other in zip(first, second, strict=True):
        if one.events.min() < start + tick:
            assert tokens_and_numbers(one.prompt) == tokens_and_numbers(other.prompt)


def test_events_of_the_past_are_seen(log, new_replay):
    """The counterpart: a different past does change later prompts, so the test above would notice a leak."""
    events = log.interactions[:240]
    first, second = (
        [tokens_and_numbers(example.prompt) for example in replay_examples(new_replay(), history, repeat(1))]
        for history in (events, other_future(events, 100))
    )
    assert first[:101] == second[:101]
    assert first[200:] != second[200:]


def test_labels_of_a_tick_do_not_reach_the_ticks_own_prompts(log, new_replay):
    """All requests of a tick are made before any of its events is applied, also those that follow each other."""
    events = log.interactions[:64]
    whole = list(replay_examples(new_replay(), events, repeat(64)))
    assert all(not example.prompt.statistics(len(FEATURES)).any() for example in whole)


def test_every_event_is_one_candidate_with_its_own_label(log, new_replay):
    """Grouping by user keeps every event once, with its label."""
    events = log.interactions[:200]
    examples = list(replay_examples(new_replay(), events, repeat(7), first_event=1_000))
    places = np.concatenate([example.events for example in examples])
    labels = np.concatenate([example.labels for example in examples])
    assert sorted(places.tolist()) == list(range(1_000, 1_200))
    assert all(label == events[place - 1_000].positive for place, label in zip(places, labels, strict=True))
    assert all(len(example.prompt.suffixes) == len(example) for example in examples)


def test_without_another_number_the_first_event_is_the_logs_first(log, new_replay):
    """Events are counted from 0; their indices are int64, their labels float32, as training batches want them."""
    examples = list(replay_examples(new_replay(), log.interactions[:20], repeat(7)))
    assert sorted(np.concatenate([example.events for example in examples]).tolist()) == list(range(20))
    assert {(example.labels.dtype, example.events.dtype) for example in examples} == {
        (np.dtype(np.float32), np.dtype(np.int64))
    }


def test_a_prompt_is_that_of_the_user_and_the_items_of_its_events(log, new_replay):
    """Each example's prompt is the one that the worker would make for its user and its items at that moment."""
    replay = new_replay()
    replay.advance(log.interactions[:300])
    tick = log.interactions[300:320]
    assert len({event.user_id for event in tick}) > 1
    before = {}
    for event in tick:
        before.setdefault(event.user_id, []).append(event.item_id)
    expected = [tokens_and_numbers(replay.prompt(user, items)) for user, items in before.items()]
    histories = {prompt[0] for prompt in expected}
    assert len(histories) == len(before)  # each user's prefix is another
    made = [tokens_and_numbers(example.prompt) for example in replay_examples(replay, tick, repeat(20))]
    assert made == expected


def test_a_long_history_is_taken_in_to_its_end(log, new_replay, monkeypatch):
    """However many batches a history makes, all of its events count."""
    monkeypatch.setattr("training.replay.APPLIED_AT_ONCE", 20)
    replay = new_replay()
    replay.advance(log.interactions[:190])
    users = {event.user_id for event in log.interactions[:190]}
    assert sum(replay.evidence(user, []).user.impressions for user in users) == 190


def test_a_history_taken_in_at_once_equals_one_taken_in_event_by_event(log, new_replay):
    """Bulk loading is only faster: counts and histories come out the same, embeddings up to the engine's epsilon."""
    events = log.interactions[:300]
    at_once, one_by_one = new_replay(), new_replay()
    at_once.advance(events)
    for event in events:
        one_by_one.advance([event])
    for user, item in {event.user_id: event.item_id for event in events}.items():
        first, second = (replay.evidence(user, [item]) for replay in (at_once, one_by_one))
        histories = [[(past.item.item_id, past.positive) for past in each.user.recent] for each in (first, second)]
        assert histories[0] == histories[1]
        assert first.candidates[0].item.impressions == second.candidates[0].item.impressions
        if first.user.embedding is not None:
            assert cosine(first.user.embedding, second.user.embedding) > 0.997


def cosine(first, second):
    """Cosine similarity."""
    return first @ second / (np.linalg.norm(first) * np.linalg.norm(second))


def test_graph_features_are_what_the_worker_computes_without_a_prompt(log, new_replay):
    """The graph score is fitted to the graph features of the evidence, candidate by candidate."""
    replay = new_replay()
    replay.advance(log.interactions[:300])
    tick = log.interactions[300:310]
    evidence = {event.user_id: replay.evidence(event.user_id, []).user for event in tick}
    items = {event.item_id: replay.evidence("", [event.item_id]).candidates[0].item for event in tick}
    for example in replay_examples(replay, tick, repeat(10)):
        shown = [items[tick[place].item_id] for place in example.events]
        user = evidence[tick[example.events[0]].user_id]
        expected = graph_features(
            user.embedding,
            (user.impressions, user.positives),
            np.stack([item.embedding for item in shown]),
            np.array([(item.impressions, item.positives) for item in shown], np.float32),
        )
        np.testing.assert_array_equal(example.graph_features(), expected)


def test_a_replay_for_a_bundle_makes_its_prompts(tiny_bundle):
    """In the bundle's words and limits, token by token those that its worker makes."""
    bundle = replace(tiny_bundle, template=WORDS)
    replay = Replay.for_bundle([Item(item_id="i1", title="title number 1")], bundle)
    expected = bundle.prompt_builder().build(replay.evidence("u", ["i1"]))
    assert tokens_and_numbers(replay.prompt("u", ["i1"])) == tokens_and_numbers(expected)


@pytest.mark.parametrize("length", [5, 60])
def test_training_keeps_histories_as_long_as_the_bundle_will_tell(log, new_replay, length):
    """Longer than what a prompt shows, and than the usual one: statistics count all of it, and nothing before it."""
    replay = new_replay(history_length=length)
    replay.advance(_clicks_of("ann", log, 70))
    users = replay.tables.users
    history, _ = users.histories.of(users.ids.row("ann"))

    assert len(history) == length
    kept = [replay.tables.items.ids.id_of(packed >> 1) for packed in history.tolist()]
    assert kept == [event.item_id for event in _clicks_of("ann", log, 70)[-length:]]


def _clicks_of(user, log, count):
    return [
        Interaction(event_id=f"e{at}", user_id=user, item_id=log.items[at % 9].item_id, kind="click", event_time_ms=at)
        for at in range(count)
    ]


def test_what_is_sent_as_a_grade_arrives_in_the_prompt(log, new_replay):
    """From the interaction through the updater's state and the worker's tables: the very numbers, for the user, the
    item and the spread; without any, a click has 1 and the rest 0.
    """
    first, second, third = (item.item_id for item in log.items[:3])
    sent = [("ann", first, 0.8), ("ann", second, 0.2), ("bob", first, 1.0), ("bob", third, None)]
    events = [
        Interaction(
            event_id=f"e{at}",
            user_id=user,
            item_id=item,
            kind="rating",
            event_time_ms=at,
            positive=grade is None,
            grade=grade,
        )
        for at, (user, item, grade) in enumerate(sent)
    ]
    replay = new_replay()
    replay.advance(events)
    told = dict(zip(FEATURES, replay.prompt("ann", [first]).statistics(len(FEATURES))[0].tolist(), strict=True))
    mean = (1 + 0.8 + 0.2 + 1.0 + 1.0) / (2 + 4)
    assert told["user_grade"] == pytest.approx((1.0 + 4 * mean) / (2 + 4) - mean, abs=1e-6)
    surprises = 0.8 - (1.8 + 4 * mean) / (2 + 4), 0.2 - (0.2 + 4 * mean) / (1 + 4)
    assert told["history_grade"] == pytest.approx(sum(surprises) / (2 + 3), abs=1e-6)
    assert told["grade_spread"] == pytest.approx(((2 * 0.3**2 + 3 * 0.25**2) / (2 + 3)) ** 0.5 - 0.25, abs=1e-6)
