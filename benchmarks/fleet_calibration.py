"""Measures, in a few seconds on one core, what a user, a state and an event cost, through the product's own code."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

import faiss
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models

from graph_updater.graph.base_embeddings import BaseEmbeddings
from graph_updater.graph.config import GraphConfig
from graph_updater.state.updater_state import UpdaterState
from models.text import Text
from programs.topics import TopicSettings
from runtime.process.allocator import return_freed_memory
from runtime.process.memory import resident_memory
from runtime.records import Record
from schemas.codec import MessageDecoder, encode, headers_for
from schemas.embeddings import encode_embedding
from schemas.messages import Interaction, ItemState, PastInteraction, UserState
from schemas.packed_states import PACKED_HEADERS, pack_state
from worker.state_store.inverted_lists import CLUSTERING_ROUNDS, LEAST_PER_LIST, LISTS_PER_ROOT, MOST_PER_LIST
from worker.state_store.settings import TableSettings
from worker.state_store.state_reader import StateReader
from worker.state_store.tables import Tables
from worker.state_store.vector_index import VectorIndex

DIM: Final = 64
HISTORY: Final = 50
USERS: Final = 60_000
GRAPH_USERS: Final = 4_000
GRAPH_ITEMS: Final = 5_000
BATCH: Final = 1_000
"""Events between two publications: 20,000 a second, published every 50 ms."""
SEARCHED: Final = 400_000
"""Vectors in a timed search: more than fit into a processor's cache."""
_WRITTEN_AT_ONCE: Final = 2_048
_NOW_MS: Final = 1_700_000_000_000
_HEADERS: Final = tuple(headers_for("msgpack"))


def measured() -> dict[str, float]:
    """The costs that docs/figures does not tell, by the names of `fleet_costs.Costs`."""
    faiss.omp_set_num_threads(1)
    return worker_costs(USERS) | search_costs(SEARCHED) | updater_costs(GRAPH_USERS, GRAPH_ITEMS)


def worker_costs(users: int) -> dict[str, float]:
    """Tables filled with users and with a quarter as many items, then every user's state once more.

    The second time counts: the index then replaces entries, as it does while a worker serves.
    """
    random = np.random.default_rng(0)
    items = max(1, users // 4)
    tables = Tables(Text(Tokenizer(models.BPE())), DIM, TableSettings(exact_search_limit=users - 1))
    reader = StateReader(TopicSettings(), 1_048_576)
    item_records = list(_item_records(items, random))
    base = _settled_memory()
    item_s = _seconds(partial(_apply, reader, tables, item_records))
    item_bytes = _settled_memory() - base
    held = sum(len(record.value or b"") for record in item_records)
    del item_records
    base, user_s, sent = _settled_memory(), [0.0, 0.0], 0
    user_bytes = 0
    for again in range(2):
        for start in range(0, users, _WRITTEN_AT_ONCE):
            records = list(_user_records(start, min(users, start + _WRITTEN_AT_ONCE), items, random))
            user_s[again] += _seconds(partial(_apply, reader, tables, records))
            sent += sum(len(record.value or b"") for record in records)
        del records
        if not again:
            user_bytes = _settled_memory() - base
    return {
        "worker_user_bytes": user_bytes / users,
        "worker_item_bytes": item_bytes / items,
        "user_state_apply_s": user_s[1] / users,
        "item_state_apply_s": item_s / items,
        "user_state_bytes": sent / (2 * users),
        "item_state_bytes": held / items,
    }


def _settled_memory() -> int:
    """Resident bytes of what is in use."""
    gc.collect()
    return_freed_memory()
    return resident_memory()


def search_costs(vectors: int) -> dict[str, float]:
    """Exact search for similar users over many vectors, and the training of inverted lists on some of them."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((vectors, DIM), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = VectorIndex(DIM, TableSettings(exact_search_limit=10 * vectors))
    index.put(np.arange(vectors), rows)
    index.search(rows[:1], 129)
    search_s = min(_seconds(lambda: index.search(rows[at : at + 1], 129)) for at in range(10))  # noqa: B023
    some = min(vectors, 30_000)
    small = VectorIndex(DIM, TableSettings(exact_search_limit=some - 1))
    train_s = _seconds(lambda: small.put(np.arange(some), rows[:some]))
    return {"search_s_per_user": search_s / vectors, "train_s_per_flop": train_s / training_flops(some)}


def training_flops(users: float) -> float:
    """Multiplications and additions that inverted lists take: k-means, then finding each user's list."""
    lists = list_count(users)
    points = min(users, MOST_PER_LIST * lists)
    return 2.0 * DIM * lists * (CLUSTERING_ROUNDS * points + users)


def list_count(users: float) -> float:
    """Inverted lists of the users' search index, as `worker.state_store.inverted_lists` chooses them."""
    return max(1.0, min(LISTS_PER_ROOT * math.sqrt(users), users / LEAST_PER_LIST))


def updater_costs(users: int, items: int) -> dict[str, float]:
    """Users with full histories and items drawn by Zipf's law; then batches in which no user comes twice."""
    random = np.random.default_rng(0)
    chances = 1 / np.arange(1, items + 1)
    chances /= chances.sum()
    names = [f"item-{item:08d}" for item in range(items)]
    base = BaseEmbeddings(names, random.standard_normal((items, DIM)).astype(np.float32), (0.25, 0.25, 0.25, 0.25))
    state = UpdaterState(GraphConfig(), base)
    for round_ in range(HISTORY):
        state.apply(_events(round_, random.permutation(users), random.choice(items, users, p=chances)))
    everyone = state.published.take_changes().users
    state.published.packed_users(everyone[:BATCH], _NOW_MS)  # compiles, and takes in the ids of all
    batch = min(BATCH, users)
    timed = _Timed()
    for round_ in range(HISTORY, HISTORY + 12):
        who, what = random.permutation(users)[:batch], random.choice(items, batch, p=chances)
        timed.add(state, [encode(event) for event in _events(round_, who, what)], len(np.unique(what)))
    return timed.costs()


class _Timed:
    """Adds up what batches of events cost in which no user comes twice."""

    def __init__(self) -> None:
        self._decoder = MessageDecoder(Interaction)
        self._events = self._users = self._items = self._turned_users = self._turned_items = 0
        self._event_s = self._user_s = self._item_s = 0.0

    def add(self, state: UpdaterState, values: Sequence[bytes], items: int) -> None:
        """One batch of encoded events, which name so many different items."""
        started_s = time.process_time()
        state.apply([self._decoder.decode(value, _HEADERS) for value in values])
        changes = state.published.take_changes()
        self._event_s += time.process_time() - started_s
        self._events += len(values)
        self._users += len(changes.users)
        self._items += len(changes.items)
        self._turned_users += len(changes.users) - len(values)
        self._turned_items += len(changes.items) - items
        self._user_s += _seconds(lambda: state.published.packed_users(changes.users, _NOW_MS))
        self._item_s += _seconds(lambda: state.published.packed_items(changes.items, _NOW_MS))

    def costs(self) -> dict[str, float]:
        """Per event and per state."""
        return {
            "event_s": self._event_s / self._events,
            "user_state_encode_s": self._user_s / self._users,
            "item_state_encode_s": self._item_s / self._items,
            "turned_users_per_event": self._turned_users / self._events,
            "turned_items_per_event": self._turned_items / self._events,
        }


def _apply(reader: StateReader, tables: Tables, records: Sequence[Record]) -> None:
    """In slices, as the worker does between two steps of inference; each slice also goes to the search index."""
    size = TableSettings().update_batch
    for start in range(0, len(records), size):
        applied = reader.apply(tables, records[start : start + size])
        assert not any(applied.refused.values())
        tables.refresh_indexes()


def _item_records(items: int, random: np.random.Generator) -> Iterator[Record]:
    for item in range(items):
        state = ItemState(
            item_id=f"item-{item:08d}",
            embedding=encode_embedding(random.standard_normal(DIM), "float16", 1),
            impressions=5,
            positives=1,
            last_event_time_ms=_NOW_MS,
            published_time_ms=_NOW_MS,
        )
        yield Record(TopicSettings().item_states, 0, item, state.item_id.encode(), pack_state(state), PACKED_HEADERS)


def _user_records(start: int, stop: int, items: int, random: np.random.Generator) -> Iterator[Record]:
    for user in range(start, stop):
        past = [
            PastInteraction(
                item_id=f"item-{item:08d}",
                event_time_ms=_NOW_MS + at,
                positive=at % 5 == 0,
                event_id=_event_id(user, at),
            )
            for at, item in enumerate(random.integers(items, size=HISTORY).tolist())
        ]
        state = UserState(
            user_id=f"user-{user:010d}",
            embedding=encode_embedding(random.standard_normal(DIM), "float16", 1),
            recent=past,
            impressions=HISTORY,
            positives=HISTORY // 5,
            last_event_time_ms=_NOW_MS + HISTORY,
            published_time_ms=_NOW_MS,
        )
        yield Record(TopicSettings().user_states, 0, user, state.user_id.encode(), pack_state(state), PACKED_HEADERS)


def _events(round_: int, users: NDArray[np.int64], items: NDArray[np.int64]) -> list[Interaction]:
    return [
        Interaction(
            event_id=_event_id(user, round_),
            user_id=f"user-{user:010d}",
            item_id=f"item-{item:08d}",
            kind="click",
            event_time_ms=_NOW_MS + 1_000 * round_ + at % 1_000,
        )
        for at, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True))
    ]


def _event_id(user: int, number: int) -> str:
    """As long as a UUID."""
    return f"{user:024d}-{number:011d}"


def _seconds(work: Callable[[], object]) -> float:
    """Processor time: others use the machine, too."""
    started_s = time.process_time()
    work()
    return time.process_time() - started_s
