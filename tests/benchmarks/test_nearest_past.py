"""Past items nearest to a candidate, by words and by embeddings."""

import numpy as np
import pytest

from benchmarks.nearest_past import (
    NearestPast,
    embedding_similarities,
    read_text_similarities,
    text_similarities,
)
from benchmarks.retrieval_times import SOURCES, retrieval_times
from event_data.event_log import EventLog
from event_data.synthetic import SyntheticSize, synthetic_log
from graph_updater.graph.base_embeddings import BaseEmbeddings
from models.prompt import PromptLimits
from models.text import Text
from schemas.messages import Interaction, Item
from training.replay import Replay

TITLES = {"a": "Cold Comet", "b": "Cold Heist", "c": "Warm Heist", "d": None}
TEXT = Text.train(["Cold Comet", "Warm Heist"], 300)
LIMITS = PromptLimits(past_items=3)


def replay_of(log, dim=8):
    """The log's beginning, on random embeddings."""
    vectors = np.random.default_rng(0).normal(size=(len(log.items), dim)).astype(np.float32)
    base = BaseEmbeddings([item.item_id for item in log.items], vectors, (0.5, 0.25, 0.25))
    replay = Replay(log.items, base, TEXT, LIMITS)
    replay.advance(log.interactions)
    return replay


@pytest.fixture(scope="module")
def titled():
    """A user who clicked `a`, then met `b`, `d` and `a` again."""
    events = [
        Interaction(
            event_id=f"e{at}", user_id="u", item_id=item_id, kind="click", event_time_ms=at + 1, positive=positive
        )
        for at, (item_id, positive) in enumerate([("a", True), ("b", False), ("d", True), ("a", False)])
    ]
    log = EventLog("titles", [Item(item_id=item_id, title=title) for item_id, title in TITLES.items()], events)
    return log, replay_of(log)


@pytest.mark.parametrize("similarities", [text_similarities, read_text_similarities])
def test_items_that_share_words_are_near_and_others_are_not(titled, similarities):
    """Nearest first; of an item met twice the latest outcome; without a common word none is near."""
    log, replay = titled
    past = NearestPast(replay.tables, similarities(replay.tables, log.items))
    near_b, near_c, near_d, unknown = past.of("u", ["b", "c", "d", "nobody's"], 3)
    assert [(one.item.item_id, one.positive) for one in near_b] == [("b", False), ("a", False)]
    assert near_b[0].similarity == pytest.approx(1.0)
    assert 0 < near_b[1].similarity < 1
    assert [one.item.item_id for one in near_c] == ["b"]
    assert near_d == unknown == []
    assert past.of("stranger", ["a"], 3) == [[]]
    assert len(past.of("u", ["b"], 1)[0]) == 1


def test_a_catalogue_without_a_word_has_nothing_near(titled):
    """No vocabulary is no error."""
    log, replay = titled
    silent = text_similarities(replay.tables, [Item(item_id=item.item_id) for item in log.items])
    assert NearestPast(replay.tables, silent).of("u", ["a"], 3) == [[]]


def test_by_embedding_they_are_those_that_the_worker_finds():
    """The same items in the same order with the same cosines, but for those that are not above 0."""
    log = synthetic_log(SyntheticSize(users=20, items=30, sessions=60, shown=8))
    replay = replay_of(log)
    past = NearestPast(replay.tables, embedding_similarities(replay.tables))
    item_ids = [item.item_id for item in log.items[:10]]
    for user_id in ("user-1", "user-2", "user-3"):
        found = past.of(user_id, item_ids, LIMITS.past_items)
        expected = [candidate.past for candidate in replay.evidence(user_id, item_ids).candidates]
        for ours, theirs in zip(found, expected, strict=True):
            near = [(one.item.item_id, one.positive) for one in theirs if one.similarity > 0]
            assert [(one.item.item_id, one.positive) for one in ours] == near


def test_every_source_is_timed():
    """In microseconds per request."""
    log = synthetic_log(SyntheticSize(users=20, items=30, sessions=40, shown=8))
    times = retrieval_times(log, replay_of(log), LIMITS, requests=3, rounds=1)
    assert set(times) == set(SOURCES)
    assert min(times.values()) > 0
