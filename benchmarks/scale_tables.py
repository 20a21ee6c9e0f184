"""What a worker's tables take: memory, time to fill, and how long a slice of updates keeps inference waiting."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

import faiss
import numpy as np
from tokenizers import Tokenizer, models

from benchmarks.scale_population import Population
from models.text import Text
from programs.topics import TopicSettings
from runtime.process.allocator import return_freed_memory
from runtime.process.memory import resident_memory
from runtime.records import Record
from schemas.codec import encode, headers_for
from schemas.messages import UserState
from schemas.packed_states import PACKED_HEADERS, StateDecoder
from worker.state_feed import StateFeed
from worker.state_store.settings import TableSettings
from worker.state_store.state_reader import StateReader
from worker.state_store.tables import Tables

_TOPICS: Final = TopicSettings()
_HELD: Final = 20_000
"""Records made ahead, outside what is timed."""
_UPDATED: Final = 60_000
_AS_MESSAGE_PACK: Final = 20_000


def figures(population: Population) -> dict[str, float]:
    """Fills tables with a population, then updates some of its users."""
    faiss.omp_set_num_threads(1)
    tables = Tables(Text(Tokenizer(models.BPE())), population.dim, space=population.space)
    reader = StateReader(_TOPICS, 1_048_576)
    item_s = _applied(reader, tables, _records(_TOPICS.item_states, population.item_states()))
    tables.refresh_indexes()
    before = _settled_memory()
    user_s = _applied(reader, tables, _records(_TOPICS.user_states, population.user_states()))
    in_tables = (_settled_memory() - before) / population.users
    started_s = time.thread_time()
    while tables.search_awaited() is not None:
        pass
    trained_s = time.thread_time() - started_s
    in_all = (_settled_memory() - before) / population.users
    updates = list(_records(_TOPICS.user_states, population.user_states(0, min(_UPDATED, population.users))))
    slices = _slices(reader, tables, updates)
    return {
        "bytes_per_user": in_all,
        "bytes_per_user_without_index": in_tables,
        "fill_states_per_second": population.users / user_s,
        "fill_item_states_per_second": population.items / item_s,
        "index_training_s": trained_s,
        "update_states_per_second": len(updates) / sum(slices),
        "stall_ms_p50": 1_000 * float(np.median(slices)),
        "stall_ms_p99": 1_000 * float(np.quantile(slices, 0.99)),
        "fill_states_per_second_msgpack": _message_pack_rate(population),
    }


def _message_pack_rate(population: Population) -> float:
    """States a second where an updater writes MessagePack."""
    decoder, headers = StateDecoder(UserState), tuple(headers_for("msgpack"))
    count = min(_AS_MESSAGE_PACK, population.users)
    records = [
        Record(_TOPICS.user_states, 0, offset, key, encode(decoder.decode(value, PACKED_HEADERS)), headers)
        for offset, (key, value) in enumerate(population.user_states(0, count))
    ]
    tables = Tables(Text(Tokenizer(models.BPE())), population.dim, space=population.space)
    return count / _applied(StateReader(_TOPICS, 1_048_576), tables, records)


def _records(topic: str, states: Iterable[tuple[bytes, bytes]]) -> Iterator[Record]:
    for offset, (key, value) in enumerate(states):
        yield Record(topic, 0, offset, key, value, PACKED_HEADERS)


def _applied(reader: StateReader, tables: Tables, records: Iterable[Record]) -> float:
    """Processor seconds of applying records as a worker does that starts."""
    spent_s, records = 0.0, iter(records)
    while held := list(islice(records, _HELD)):
        started_s = time.thread_time()
        for start in range(0, len(held), StateFeed.least_fill_batch):
            applied = reader.apply(tables, held[start : start + StateFeed.least_fill_batch])
            assert not any(applied.refused.values())
        spent_s += time.thread_time() - started_s
    return spent_s


def _slices(reader: StateReader, tables: Tables, records: list[Record]) -> list[float]:
    """Processor seconds of each slice of updates of known users, as a worker applies them that serves."""
    size, spent = TableSettings().update_batch, []
    for start in range(0, len(records), size):
        part = records[start : start + size]
        started_s = time.thread_time()
        reader.apply(tables, part)
        spent.append(time.thread_time() - started_s)
        tables.refresh_indexes()
    return spent


def _settled_memory() -> int:
    gc.collect()
    return_freed_memory()
    return resident_memory()
