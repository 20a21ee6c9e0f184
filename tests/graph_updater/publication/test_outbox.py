"""What is kept until it is published."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from updater_parts import CLICKS, TOPICS

from graph_updater.publication.outbox import DeadLetter, Outbox, StateBatch
from runtime.records import OutRecord, TopicPartition

OTHER = TopicPartition(TOPICS.items, 0)


def letter(offset):
    """A dead letter of the record at this offset."""
    return DeadLetter(CLICKS, offset, OutRecord("dead", b"k", b"%d" % offset))


def batch(offset, users=(), **more):
    """A batch that stands up to this offset."""
    return StateBatch({CLICKS: offset}, users=list(users), **more)


def test_batches_are_published_together_each_id_once():
    """Contents are those of all batches, in order, up to the last one's offsets."""
    outbox = Outbox()
    outbox.add(batch(3, ["a", "b"], items=["x"], dead_letters=[letter(2)], event_times_ms=[1]))
    outbox.add(batch(5, ["b", "c"], items=["x", "y"], dead_letters=[letter(4)], event_times_ms=[2, 3]))

    together = outbox.contents()

    assert together.offsets == {CLICKS: 5}
    assert (together.users, together.items) == (["a", "b", "c"], ["x", "y"])
    assert [dead.offset for dead in together.dead_letters] == [2, 4]
    assert together.event_times_ms == [1, 2, 3]


def test_what_came_meanwhile_stays_when_contents_are_published():
    """Only what was published leaves."""
    outbox = Outbox()
    outbox.add(batch(3, ["a"]))
    published = outbox.contents()
    outbox.add(batch(4, ["b"]))

    outbox.published(published)

    assert outbox.contents().users == ["b"]


def test_an_empty_outbox_has_no_contents():
    """There is nothing to publish."""
    assert Outbox().contents() is None


def test_a_standby_keeps_what_the_leader_has_not_published():
    """CommittedOffsets offsets drop the batches that they cover; one that reaches beyond stays whole."""
    outbox = Outbox()
    for offset in (3, 6, 9):
        outbox.add(batch(offset, [f"u{offset}"]))

    outbox.watch_leader({CLICKS: 7, OTHER: None})

    assert outbox.contents().users == ["u9"]


def test_a_batch_is_covered_only_in_all_its_partitions():
    """The leader may have read the partitions in another order."""
    outbox = Outbox()
    outbox.add(StateBatch({CLICKS: 3, OTHER: 2}, users=["a"]))

    outbox.drop_covered({CLICKS: 9, OTHER: 1})
    assert len(outbox) == 1
    outbox.drop_covered({CLICKS: 9})
    assert len(outbox) == 1
    outbox.drop_covered({CLICKS: 3, OTHER: 2})
    assert len(outbox) == 0


def test_a_dead_letter_is_never_sent_twice():
    """Of a batch that is covered in part, the dead letters that were sent are left out."""
    outbox = Outbox()
    outbox.add(batch(9, ["a"], dead_letters=[letter(2), letter(5), letter(8)]))

    outbox.drop_covered({CLICKS: 6})

    assert [dead.offset for dead in outbox.contents().dead_letters] == [8]


def test_full_republish_is_published_once_after_a_rebuild():
    """The wish ends with the batch that fulfilled it, not with one made for other reasons."""
    outbox = Outbox(full_republish=True)
    outbox.add(batch(1, ["a"]))
    outbox.published(outbox.contents())
    assert outbox.full_republish

    outbox.add(batch(1, ["a", "b"], full_republish=True))
    outbox.published(outbox.contents())
    assert not outbox.full_republish


def test_full_republish_need_not_be_published_where_a_leader_is_seen_at_work():
    """Offsets that stand still prove nothing: the leader may be dead. Offsets that advance do."""
    outbox = Outbox(full_republish=True)
    outbox.watch_leader({CLICKS: 5})
    outbox.watch_leader({CLICKS: 5})
    assert outbox.full_republish

    outbox.watch_leader({CLICKS: 6})
    assert not outbox.full_republish


def test_a_full_republish_is_kept_whatever_is_committed():
    """Committed offsets say nothing of what the topics hold; merged with other batches it still is a full one."""
    outbox = Outbox(full_republish=True)
    outbox.add(batch(5, ["a", "b"], full_republish=True))
    outbox.drop_covered({CLICKS: 9})
    outbox.add(batch(6, ["a"]))

    merged = outbox.contents()
    assert merged.users == ["a", "b"]
    assert merged.full_republish
    outbox.published(merged)
    assert not outbox.full_republish


def test_a_small_batch_is_not_split():
    """One transaction is enough for it."""
    small = StateBatch({CLICKS: 7}, users=["a"], items=["b"], dead_letters=[letter(3)])

    assert small.split(3) == [small]


@settings(max_examples=60, deadline=None)
@given(
    users=st.lists(st.text(min_size=1), max_size=20, unique=True),
    items=st.lists(st.text(min_size=1), max_size=20, unique=True),
    letters=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50)), max_size=12, unique=True),
    size=st.integers(1, 8),
)
def test_a_split_batch_is_complete_and_its_offsets_tell_the_truth(users, items, letters, size):
    """Nothing is missing, parts are small, and after each the offsets cover exactly the dead letters sent, once all
    states are.
    """
    places = [TopicPartition("interactions", partition) for partition in range(3)]
    dead = [
        DeadLetter(places[partition], offset, OutRecord("dead", b"k", b"")) for partition, offset in sorted(letters)
    ]
    whole = StateBatch(dict.fromkeys(places, 60), users=users, items=items, dead_letters=dead)

    parts = whole.split(size)

    assert all(len(part.users) + len(part.items) + len(part.dead_letters) <= size for part in parts)
    assert [name for part in parts for name in part.users] == users
    assert [name for part in parts for name in part.items] == items
    assert [one for part in parts for one in part.dead_letters] == dead
    assert parts[-1].offsets == whole.offsets
    sent = 0
    for number, part in enumerate(parts):
        sent += len(part.dead_letters)
        states_to_come = any(later.users or later.items for later in parts[number + 1 :])
        assert not (part.offsets and states_to_come)
        if part.offsets:
            assert [one.is_covered_by(part.offsets) for one in dead] == [True] * sent + [False] * (len(dead) - sent)
