"""Which events become examples, and what their prompts know."""

from dataclasses import replace

import numpy as np
import pytest

from models.features import GRAPH_FEATURES
from models.prompt_rendering import render
from models.prompt_template import WORDS
from models.token_sequence import SoftKind
from training.examples import graph_end, make_examples
from training.progress import Silent


@pytest.fixture(scope="module")
def sets(log, graph, text, preset):
    """All examples of the log."""
    return make_examples(log, graph, text, preset, Silent())


def embedded(example):
    """Whether any user's or item's embedding is in the prompt."""
    return any(
        part.soft_values[part.soft_kinds != SoftKind.STATISTICS].any()
        for part in (example.prompt.prefix, *example.prompt.suffixes)
    )


def test_no_embedding_is_shown_within_the_slice_that_it_was_fitted_to(log, preset, sets):
    """Base embeddings know the labels of their slice, so prompts from that slice have no embeddings."""
    fitted_until = graph_end(log, preset)
    early = [example for example in sets.train if example.events.min() < fitted_until]
    late = [example for example in sets.train if example.events.min() >= fitted_until]
    assert not any(embedded(example) for example in early)
    assert sum(embedded(example) for example in late) > 0.9 * len(late)


def test_training_examples_cover_the_training_part_once(log, sets):
    """Every event of the first 80 % is in one training example, no later one is."""
    places = np.concatenate([example.events for example in sets.train])
    assert sorted(places.tolist()) == list(range(log.split().train_end))


def test_examples_are_told_in_the_words_of_the_preset(log, graph, text, preset):
    """Of training and validation alike: the bundle will carry the same words."""
    short = replace(log, interactions=log.interactions[:120])
    sets = make_examples(short, graph, text, replace(preset, template=WORDS), Silent())
    for example in (*sets.train, *sets.to_fit, *sets.to_test):
        assert render(example.prompt.prefix, text).startswith("Judge from what the user liked")
        assert render(example.prompt.suffixes[0], text).endswith("Will they like it? ⟨statistics⟩")


def test_held_out_halves_are_disjoint_and_made_as_of_each_event(log, sets):
    """Each event of the validation part is a request of its own in one of the halves."""
    split = log.split()
    halves = [[int(example.events[0]) for example in half] for half in (sets.to_fit, sets.to_test)]
    assert all(len(example) == 1 for example in (*sets.to_fit, *sets.to_test))
    assert sorted(halves[0] + halves[1]) == list(range(split.train_end, split.validation_end))
    assert abs(len(halves[0]) - len(halves[1])) <= 1


def user_counts(example):
    """The number of earlier events of its user that each prompt of the example tells."""
    return np.expm1(example.graph_features()[:, GRAPH_FEATURES.index("user_count")])


def earlier_events(log, place):
    """How many events of its user lie before an event of the log."""
    user = log.interactions[place].user_id
    return sum(event.user_id == user for event in log.interactions[:place])


def test_held_out_prompts_know_all_events_before_theirs(log, sets):
    """Held-out prompts lack no event, as in serving without lag."""
    for example in (*sets.to_fit, *sets.to_test):
        assert user_counts(example) == pytest.approx(earlier_events(log, example.events[0]), abs=1e-3)


def test_training_prompts_are_up_to_a_tick_behind(log, preset, sets):
    """Some histories are up to date, others lack a few events, fewer than a tick has."""
    lags = [earlier_events(log, example.events[-1]) - user_counts(example)[-1] for example in sets.train]
    assert min(lags) == pytest.approx(0, abs=1e-3)
    assert 2 < max(lags) < preset.tick
    assert max(len(example) for example in sets.train) > 1


def test_of_too_many_events_the_latest_become_examples(log, graph, text, preset):
    """Fewer examples do not mean shorter histories, neither in training nor in the held-out part."""
    capped = make_examples(log, graph, text, replace(preset, most_examples=100, most_held_out=20), Silent())
    held_out = [*capped.to_fit, *capped.to_test]
    end = log.split().validation_end
    assert sorted(int(example.events[0]) for example in held_out) == list(range(end - 20, end))
    for example in held_out:
        assert user_counts(example) == pytest.approx(earlier_events(log, example.events[0]), abs=1e-3)
    places = np.concatenate([example.events for example in capped.train])
    assert sorted(places.tolist()) == list(range(log.split().train_end - 100, log.split().train_end))
    assert max(len(example.prompt.prefix) for example in capped.train[:10]) > 10
