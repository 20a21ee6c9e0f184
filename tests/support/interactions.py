"""Small worlds of users and items for the state machine's tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.config import GraphConfig
from graph_updater.state.updater_state import UpdaterState
from schemas.messages import Interaction

ALPHAS = (0.25, 0.25, 0.25, 0.25)
SIZE = 6
TRAINED = [f"item-{number}" for number in range(5)]


def trained_base(**more):
    """Five items with a trained embedding."""
    vectors = np.random.default_rng(2).normal(size=(len(TRAINED), SIZE)).astype(np.float32)
    return BaseEmbeddings(TRAINED, vectors, ALPHAS, **more)


def exact_state(base=None, history_length=50, **config):
    """A state machine without approximation in what it computes and publishes."""
    base = base or trained_base(history_length=history_length)
    return UpdaterState(GraphConfig(**{"epsilon": 0.0, "embedding_dtype": "float32", **config}), base)


def interaction(user, item, time_ms, kind="click", **more):
    """An interaction whose event id is made of the rest."""
    fields = {"event_id": f"{user}>{item}@{time_ms}:{kind}", **more}
    return Interaction(user_id=user, item_id=item, event_time_ms=time_ms, kind=kind, **fields)


streams = st.lists(
    st.builds(
        interaction,
        st.sampled_from(["anna", "Ωmega", "item-1"]),  # a user may be called like an item
        st.sampled_from([*TRAINED, "new-1", "new-2"]),
        st.integers(0, 200),
        st.sampled_from(["click", "click", "purchase", "impression", "dislike", "removal"]),
        weight=st.sampled_from([1.0, 2.0]),
        grade=st.sampled_from([None, 0.0, 0.4, 1.0]),
    ),
    max_size=40,
)


def pass_time(state, time_ms):
    """As many events as stream time needs for witnesses, of somebody else, then a look at who is idle."""
    state.apply([interaction("witness", "item-4", time_ms + number, "view") for number in range(8)])
    state.release_idle()


def feed(state, stream, batch=5):
    """Applies the stream in batches."""
    for begin in range(0, len(stream), batch):
        state.apply(stream[begin : begin + batch])
