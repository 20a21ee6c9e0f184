"""Tables of a worker beside plain dictionaries: changes to both, and whether they agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from models.text import Text
from programs.topics import TopicSettings
from runtime.kafka import partition_of
from runtime.records import Record
from schemas.codec import encode, headers_for
from schemas.messages import Embedding, Item, ItemState, PastInteraction, UserState
from schemas.packed_states import PACKED_HEADERS, pack_state
from worker.state_store.state_reader import StateReader
from worker.state_store.tables import Tables

TOPICS = TopicSettings()
READER = StateReader(TOPICS, 100_000)
DIM = 4
LENGTH = 6
PARTITIONS = 3
USERS = st.sampled_from(["u1", "u2", "ü", "item", "x" * 300])
_ITEMS = st.sampled_from(["i1", "i2", "ß", "item", "y" * 300, "only in histories"])
_EMBEDDINGS = st.one_of(
    st.none(),
    st.builds(
        lambda numbers, dtype, version, space: Embedding(
            data=np.array(numbers, dtype).tobytes(), dtype=dtype, dim=len(numbers), version=version, space=space
        ),
        st.lists(st.integers(-50, 50), min_size=DIM, max_size=DIM),
        st.sampled_from(["float16", "float32"]),
        st.integers(1, 99),
        st.sampled_from(["ours", "theirs", "a longer one", ""]),
    ),
)
PAST = st.lists(
    st.builds(
        PastInteraction,
        item_id=_ITEMS,
        event_time_ms=st.integers(0, 999),
        positive=st.booleans(),
        event_id=st.just("e"),
        grade=st.integers(0, 255),
    ),
    max_size=9,
)
COMMON = {
    "embedding": _EMBEDDINGS,
    "impressions": st.integers(0, 9),
    "positives": st.integers(0, 9),
    "grades": st.integers(0, 99),
    "last_event_time_ms": st.integers(0, 999),
    "published_time_ms": st.just(0),
}
_STATES = st.one_of(
    st.builds(UserState, user_id=USERS, recent=PAST, **COMMON),
    st.builds(ItemState, item_id=_ITEMS, **COMMON),
    st.builds(Item, item_id=_ITEMS, title=st.sampled_from(["", "red"])),
)
_REMOVALS = st.tuples(st.sampled_from([UserState, ItemState, Item]), st.one_of(USERS, _ITEMS))
BATCHES = st.lists(st.lists(st.one_of(_STATES, _REMOVALS), max_size=9), max_size=7)
_FIELDS = {
    UserState: ("user_id", TOPICS.user_states),
    ItemState: ("item_id", TOPICS.item_states),
    Item: ("item_id", TOPICS.items),
}


def record(change, packed=True):
    """A state packed or as MessagePack, or a tombstone."""
    kind, name = change if isinstance(change, tuple) else (type(change), "")
    field, topic = _FIELDS[kind]
    key = (name or getattr(change, field)).encode()
    partition = partition_of(key, PARTITIONS)
    if isinstance(change, tuple):
        return Record(topic, partition, 0, key, None)
    if packed and kind is not Item:
        return Record(topic, partition, 0, key, pack_state(change), PACKED_HEADERS)
    return Record(topic, partition, 0, key, encode(change), tuple(headers_for("msgpack")))


class TableModel:
    """What tables should hold, one change at a time."""

    def __init__(self) -> None:
        self.states: dict[type, dict[str, UserState | ItemState | Item]] = {UserState: {}, ItemState: {}, Item: {}}
        self.embeddings: dict[tuple[type, str], list[float]] = {}
        self.news: list[int] = []

    def apply(self, change) -> None:
        """One change."""
        if isinstance(change, tuple):
            self.states[change[0]].pop(change[1], None)
            self.embeddings.pop(change, None)
            return
        kind, name = type(change), getattr(change, _FIELDS[type(change)][0])
        self.states[kind][name] = change
        embedding = getattr(change, "embedding", None)
        if embedding is None or not embedding.data.strip(b"\0"):
            if embedding is None or embedding.space in {"ours", ""}:
                self.embeddings.pop((kind, name), None)
        elif embedding.space in {"ours", ""}:
            self.embeddings[kind, name] = np.frombuffer(embedding.data, embedding.dtype).astype(float).tolist()

    def give_up(self, partition: int) -> None:
        """All users of a partition."""
        for name in [name for name in self.states[UserState] if partition_of(name.encode(), PARTITIONS) == partition]:
            self.apply((UserState, name))

    def items(self) -> set[str]:
        """Items that the catalogue, a state or a kept history tells of."""
        told = {*self.states[Item], *self.states[ItemState]}
        for state in self.states[UserState].values():
            told |= {past.item_id for past in state.recent[-LENGTH:]}
        return told


def empty_tables() -> Tables:
    """Of histories of six interactions."""
    return Tables(Text(Tokenizer(models.BPE())), DIM, space="ours", history_length=LENGTH)


def check(tables: Tables, model: TableModel) -> None:
    """Fails where tables do not hold what the model does."""
    users, items = tables.users, tables.items
    assert len(users.ids) == len(model.states[UserState])
    for name, state in model.states[UserState].items():
        row = users.ids.row(name)
        assert users.ids.id_of(row) == name
        entries, grades = users.histories.of(row)
        past = state.recent[-LENGTH:]
        assert [items.ids.id_of(entry >> 1) for entry in entries.tolist()] == [one.item_id for one in past]
        assert (entries & 1).tolist() == [one.positive for one in past]
        assert grades.tolist() == [one.grade for one in past]
        assert users.counts[row].tolist() == [state.impressions, state.positives, state.grades]
        assert users.event_times_ms[row] == state.last_event_time_ms
        assert users.partitions[row] == partition_of(name.encode(), PARTITIONS)
        _check_embedding(users, row, model.embeddings.get((UserState, name)))
    assert len(items.ids) == len(model.items())
    for name in model.items():
        row = items.ids.row(name)
        state = model.states[ItemState].get(name)
        counts = [0, 0, 0] if state is None else [state.impressions, state.positives, state.grades]
        assert items.counts[row].tolist() == counts
        _check_embedding(items, row, model.embeddings.get((ItemState, name)))
    assert items.totals[0] == sum(state.impressions for state in model.states[ItemState].values())


def _check_embedding(columns, row: int, expected: Sequence[float] | None) -> None:
    assert columns.embedded[row] == (expected is not None)
    if expected is not None:
        assert columns.embeddings[row].tolist() == expected


def last_of_each(batch):
    """Of one id only the last change of a batch is seen; which topic comes first makes no difference."""
    keys = [change if isinstance(change, tuple) else (type(change), id_of(change)) for change in batch]
    return dict(zip(keys, batch, strict=True)).values()


def id_of(change) -> str:
    """The id that a state or an item is about."""
    return getattr(change, _FIELDS[type(change)][0])


def user_of(name: str, *past: PastInteraction) -> UserState:
    """The state of a user with this history."""
    return UserState(
        user_id=name,
        embedding=None,
        recent=list(past),
        impressions=1,
        positives=1,
        last_event_time_ms=0,
        published_time_ms=0,
    )
