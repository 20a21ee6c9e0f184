"""What an updater writes a second, and how many events it takes from distinct users."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np

from benchmarks.scale_population import MOST_PAST, NOW_MS, Population
from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.config import GraphConfig
from graph_updater.publication.publisher import MAX_TRANSACTION_RECORDS
from graph_updater.state.updater_state import UpdaterState
from schemas.codec import MessageDecoder, encode, headers_for
from schemas.messages import Interaction

BATCH: Final = 1_000
ROUNDS: Final = 20
_ALPHAS: Final = (0.25, 0.25, 0.25, 0.25)
_HEADERS: Final = tuple(headers_for("msgpack"))


def figures(users: int, items: int) -> dict[str, float]:
    """Users with full histories; then batches in which no user comes twice, decoded, applied and written as states."""
    population, random = Population(users, items), np.random.default_rng(0)
    names = [f"item-{item:08d}" for item in range(items)]
    base = BaseEmbeddings(names, random.standard_normal((items, 64)).astype(np.float32), _ALPHAS)
    state = UpdaterState(GraphConfig(), base)
    for round_ in range(MOST_PAST):
        state.apply(events(population, random.permutation(users), round_))
    everyone = state.published.take_changes().users
    state.published.packed_users(everyone[:100], NOW_MS)  # compiles
    packed_s = []
    for start in range(0, len(everyone), MAX_TRANSACTION_RECORDS):
        part = everyone[start : start + MAX_TRANSACTION_RECORDS]
        packed_s.append(_seconds(lambda: state.published.packed_users(part, NOW_MS)) / len(part))  # noqa: B023 - at once
    some = everyone[:5_000]
    message_pack_s = _seconds(lambda: [encode(state.published.user_state(name, NOW_MS)) for name in some])
    decoder = MessageDecoder(Interaction)
    spent = []
    for round_ in range(MOST_PAST, MOST_PAST + ROUNDS):
        values = [encode(event) for event in events(population, random.permutation(users)[:BATCH], round_)]

        def one_batch(values: list[bytes] = values) -> None:
            state.apply([decoder.decode(value, _HEADERS) for value in values])
            changes = state.published.take_changes()
            state.published.packed_users(changes.users, NOW_MS)
            state.published.packed_items(changes.items, NOW_MS)

        spent.append(_seconds(one_batch))
    return {
        "states_per_second_encoded": 1 / float(np.median(packed_s)),
        "states_per_second_encoded_msgpack": len(some) / message_pack_s,
        "updater_events_per_second_without_broker": BATCH / float(np.median(spent)),
    }


def events(population: Population, users: np.ndarray, round_: int) -> list[Interaction]:
    """A click of each of these users; their items by a power law."""
    items = population.met_items(len(users)).tolist()
    return [
        Interaction(
            event_id=f"{user:08d}-{round_:04d}-0000-0000-000000000000",
            user_id=f"user-{user:010d}",
            item_id=f"item-{item:08d}",
            kind="click",
            event_time_ms=NOW_MS + 1_000 * round_ + at % 1_000,
        )
        for at, (user, item) in enumerate(zip(users.tolist(), items, strict=True))
    ]


def _seconds(work: Callable[[], object]) -> float:
    """Processor time: others use the machine, too."""
    started_s = time.thread_time()
    work()
    return time.thread_time() - started_s
