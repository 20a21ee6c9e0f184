"""What the tables hold after updates."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from schemas.codec import MalformedRecord
from schemas.embeddings import encode_embedding
from schemas.messages import Embedding, Item
from worker.state_store.tables import Tables
from worker.state_store.vector_index import NO_ID


def _facts(tables, item_id):
    row = tables.items.ids.row(item_id)
    return tables.items.facts(np.array([row]))[row]


def test_an_item_is_known_by_text_and_state_in_any_order(tables, text, item_state):
    """Catalogue and graph tell of an item independently; neither wipes the other out."""
    tables.put_item_state(item_state("a", [1, 0, 0, 0], 10, 3))
    tables.put_item(Item(item_id="a", title="red shoes"))
    tables.put_item(Item(item_id="b", title="blue shoes"))
    tables.put_item_state(item_state("b", None, 2, 1))

    red, blue = _facts(tables, "a"), _facts(tables, "b")
    assert list(red.title_tokens) == text.encode("red shoes")[:8]
    assert (red.impressions, red.positives, red.embedding.tolist()) == (10, 3, [1, 0, 0, 0])
    assert list(blue.title_tokens)
    assert (blue.impressions, blue.positives, blue.embedding) == (2, 1, None)


def test_an_embedding_of_another_space_is_not_taken(text, user_state, item_state):
    """Counts and history are; the embedding stays the one of our space, or is awaited where there was none."""
    tables = Tables(text, 4, space="ours")
    own, other = (
        in_space(item_state("a", [1, 0, 0, 0], 10, 3), "ours"),
        in_space(item_state("a", [0, 1], 12, 3), "its"),
    )
    tables.put_item_state(own)
    assert tables.embeddings_awaited() == 0
    tables.put_item_state(other)
    assert (_facts(tables, "a").embedding.tolist(), _facts(tables, "a").impressions) == ([1, 0, 0, 0], 12)
    assert (tables.embeddings_awaited(), tables.foreign_embeddings()) == (0, 1)

    tables.put_user_state(in_space(user_state("u", [0, 1], ["+a"]), "its"))
    assert tables.users.embedding_stamp("u") is None
    assert tables.users.histories.lengths[tables.users.ids.row("u")] == 1
    assert (tables.embeddings_awaited(), tables.foreign_embeddings()) == (0.5, 2)

    tables.put_user_state(in_space(user_state("u", [0, 1, 0, 0], ["+a"]), "ours"))
    tables.put_item_state(item_state("a", [0, 0, 1, 0]))  # of an updater that does not tell
    assert tables.users.embedding_stamp("u") is not None
    assert (tables.embeddings_awaited(), tables.foreign_embeddings()) == (0, 0)


def in_space(state, space):
    """The state with an embedding that was made with another bundle's graph."""
    return msgspec.structs.replace(state, embedding=msgspec.structs.replace(state.embedding, space=space))


def test_facts_are_copies(tables, item_state):
    """Evidence that was handed out does not change when the table does."""
    tables.put_item_state(item_state("a", [1, 0, 0, 0]))
    before = _facts(tables, "a")
    tables.put_item_state(item_state("a", [0, 1, 0, 0]))

    assert before.embedding.tolist() == [1, 0, 0, 0]


def test_the_latest_user_state_replaces_all_before_it(tables, user_state):
    """A shorter history leaves nothing of the longer one behind."""
    tables.put_user_state(user_state("u", [1, 0, 0, 0], ["+a", "-b", "+c"]))
    tables.put_user_state(user_state("u", None, ["+d"]))

    row = tables.users.ids.row("u")
    assert tables.users.histories.lengths[row] == 1
    assert [tables.items.ids.id_of(one >> 1) for one in tables.users.histories.of(row)[0]] == ["d"]
    assert not tables.users.embedded[row]


def test_only_the_latest_part_of_a_long_history_is_kept(tables, user_state):
    """Memory per user is bounded by the limit, whatever the updater publishes."""
    tables.put_user_state(user_state("u", None, [f"+{number}" for number in range(9)]))

    packed, _ = tables.users.histories.of(tables.users.ids.row("u"))
    assert [tables.items.ids.id_of(row) for row in packed >> 1] == ["3", "4", "5", "6", "7", "8"]


def test_tombstones_forget(tables, user_state, item_state):
    """A removed user is unknown, a removed item state leaves the text, a removed item leaves the state."""
    tables.put_item(Item(item_id="a", title="red shoes"))
    tables.put_item_state(item_state("a", [1, 0, 0, 0], 5, 1))
    tables.put_user_state(user_state("u", [1, 0, 0, 0], ["+a"]))
    tables.refresh_indexes()

    tables.remove_user("u")
    tables.remove_item_state("a")
    tables.remove_user("never seen")
    tables.remove_item_state("never seen")
    tables.remove_item("never seen")
    tables.refresh_indexes()

    assert tables.users.ids.row("u") < 0
    assert list(_facts(tables, "a").title_tokens)
    assert (_facts(tables, "a").embedding, _facts(tables, "a").impressions) == (None, 0)
    assert len(tables.user_index) == len(tables.item_index) == 0
    tables.remove_item("a")
    assert not list(_facts(tables, "a").title_tokens)


def test_many_changes_between_searches_reach_the_index_once(tables, user_state):
    """The index holds the last state, and a user without history is not asked."""
    for vector in ([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0]):
        tables.put_user_state(user_state("u", vector, ["+a"]))
    tables.put_user_state(user_state("silent", [0, 0, 1, 0]))
    tables.refresh_indexes()

    similarities, rows = tables.user_index.search(np.array([[0, 0, 1, 0]], np.float32), 2)
    assert rows.tolist() == [[tables.users.ids.row("u"), NO_ID]]
    assert similarities[0, 0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("embedding", "reason"),
    [
        (encode_embedding(np.ones(3, np.float32), "float32", 1), "3 numbers where the model reads 4"),
        (Embedding(data=b"\0" * 7, dtype="float16", dim=4, version=1), "8 bytes, not 7"),
        (Embedding(data=np.full(4, np.nan, "<f4").tobytes(), dtype="float32", dim=4, version=1), "not finite"),
        (Embedding(data=np.full(4, 1e30, "<f4").tobytes(), dtype="float32", dim=4, version=1), "beyond"),
    ],
)
def test_embeddings_that_cannot_be_used_are_refused_with_the_reason(tables, user_state, item_state, embedding, reason):
    """Nothing of such a state is taken over."""
    for put, state in (
        (tables.put_user_state, user_state("u", None)),
        (tables.put_item_state, item_state("a", None)),
    ):
        with pytest.raises(MalformedRecord, match=reason):
            put(msgspec.structs.replace(state, embedding=embedding))
    assert len(tables.users.ids) == len(tables.items.ids) == 0


def test_an_embedding_of_zeros_counts_as_none(tables, item_state):
    """It has no direction, so no cosine."""
    tables.put_item_state(item_state("a", [0, 0, 0, 0]))
    tables.refresh_indexes()

    assert _facts(tables, "a").embedding is None
    assert len(tables.item_index) == 0


def test_titles_are_text_and_bounded(tables, text):
    """Ten thousand characters and control tokens in a title end as a few plain tokens."""
    tables.put_item(Item(item_id="long", title="word " * 2000))
    tables.put_item(Item(item_id="sly", title="<|start|> no"))

    assert len(_facts(tables, "long").title_tokens) == 8
    assert text.start_tokens[0] not in _facts(tables, "sly").title_tokens


def test_only_a_user_with_an_embedding_has_its_stamp(tables, user_state):
    """Version and newest event time of the embedding; nothing for a user without one, known or not."""
    tables.put_user_state(user_state("with", [1, 0, 0, 0], ["+a", "-b"]))
    tables.put_user_state(user_state("without", None, ["+a", "-b"]))

    assert tables.users.embedding_stamp("with") == (1, 2)
    assert tables.users.embedding_stamp("without") is None
    assert tables.users.embedding_stamp("nobody") is None


def test_a_failed_refresh_is_tried_again_and_the_indexes_serve_as_they_are(text, user_state, monkeypatch):
    """No search raises meanwhile; after the pause the changes are there; trouble is told only when it lasts."""
    now_s = 0.0
    tables = Tables(text, 4, clock=lambda: now_s)
    tables.put_user_state(user_state("u", [1, 0, 0, 0], ["+a"]))
    tables.refresh_indexes()
    tables.put_user_state(user_state("v", [0, 1, 0, 0], ["+a"]))

    def out_of_memory(*_):
        raise MemoryError("std::bad_alloc")

    with monkeypatch.context() as short:
        short.setattr(tables.user_index, "put", out_of_memory)
        for _ in range(3):
            tables.refresh_indexes()
        assert tables.refreshing.failures == 1
        assert tables.search_trouble() is None
        now_s = 601.0
        assert "search indexes since 601 s" in tables.search_trouble()
    assert len(tables.user_index) == 1

    tables.refresh_indexes()
    assert len(tables.user_index) == 2
    assert tables.search_trouble() is None
