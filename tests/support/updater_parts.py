"""Small worlds for the updater's tests: base embeddings, events, records, an engine."""

from __future__ import annotations

import numpy as np

from graph_updater.engine import UpdaterEngine
from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.config import GraphConfig
from graph_updater.intake import Intake
from graph_updater.publication.encoder import StateEncoder
from graph_updater.state.updater_state import UpdaterState
from programs.topics import TopicSettings
from runtime.clock import ManualClock
from runtime.dead_letters import DeadLetters
from runtime.records import Record, TopicPartition
from schemas.codec import encode, headers_for
from schemas.messages import Interaction, Item

NOW_MS = 1_700_000_000_000
TOPICS = TopicSettings()
CLICKS = TopicPartition(TOPICS.interactions, 0)


def base(items=6, dim=4, seed=3):
    """Base embeddings of items `i0`, `i1`, …; two layers; an item's text stands for the number of its letters."""
    vectors = np.random.default_rng(seed).normal(size=(items, dim)).astype(np.float32)
    return BaseEmbeddings(
        item_ids=[f"i{number}" for number in range(items)],
        item_vectors=vectors,
        alphas=(1 / 3, 1 / 3, 1 / 3),
        text_map=lambda title, _: np.full(dim, len(title or ""), np.float32),
    )


def state(**config):
    """An exact engine of its own."""
    return UpdaterState(GraphConfig(**{"epsilon": 0.0, "embedding_dtype": "float32", **config}), base())


def engine(of=None, clock=None, offsets=None, **config):
    """An engine for the default topics."""
    clock = clock or ManualClock(NOW_MS)
    return UpdaterEngine(
        of or state(**config),
        Intake(TOPICS.items, max_bytes=10_000, max_event_lead_ms=3_600_000, clock=clock),
        DeadLetters("updater", TOPICS.dead_letter_suffix, clock),
        StateEncoder(TOPICS, "msgpack", clock),
        offsets or {},
    )


def click(user, item, number=0, **changes):
    """An interaction of the given user and item, `number` ms after the beginning of time."""
    fields = {"event_id": f"{user}-{item}-{number}", "kind": "click", "event_time_ms": NOW_MS + number}
    return Interaction(user_id=user, item_id=item, **{**fields, **changes})


def later(number, first=0):
    """Records of as many interactions of another user, `number` ms after the beginning, as move stream time there."""
    return records([click("new", "i2", number + each) for each in range(8)], first)


def record(message, offset=0, partition=0, timestamp_ms=NOW_MS):
    """A record as it is read: of a message, or of raw bytes in the interactions' topic."""
    if isinstance(message, bytes | None):
        return Record(TOPICS.interactions, partition, offset, b"key", message, timestamp_ms=timestamp_ms)
    topic, key = (
        (TOPICS.items, message.item_id) if isinstance(message, Item) else (TOPICS.interactions, message.user_id)
    )
    headers = tuple(headers_for("msgpack"))
    return Record(topic, partition, offset, key.encode(), encode(message), headers, timestamp_ms)


def records(messages, first=0):
    """Records of messages, at offsets that follow each other."""
    return [record(message, offset) for offset, message in enumerate(messages, first)]


def embeddings(of, users, items):
    """The present embeddings of these users and items: (ids, dim)."""
    return np.vstack([of.user_embeddings(users), of.item_embeddings(items)])
