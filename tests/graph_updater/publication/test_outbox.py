"""What is kept until it is published."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from updater_parts import CLICKS, TOPICS

from graph_updater.publication.batch import MIXED, DeadLetter, Progress, StateBatch, space_note
from graph_updater.publication.outbox import Outbox
from graph_updater.publication.pending import LETTER_BYTES_AT_ONCE
from runtime.records import OutRecord, TopicPartition

OTHER = TopicPartition(TOPICS.items, 0)


def letter(offset, source=CLICKS, value=b""):
    """A dead letter of the record at this offset."""
    return DeadLetter(source, offset, OutRecord("dead", b"k", value))


def batch(offset, users=(), **more):
    """A batch that stands up to this offset."""
    return StateBatch({CLICKS: offset}, users=list(users), **more)


def parts(outbox, size):
    """Everything in it, part by part."""
    found = []
    while (part := outbox.next_part(size)) is not None:
        found.append(part)
    return found


def test_batches_are_published_together_each_id_once():
    """One part holds all batches, with the last one's offsets."""
    outbox = Outbox()
    outbox.add(batch(3, ["a", "b"], items=["x"], dead_letters=[letter(2)], event_times_ms=[1]))
    outbox.add(batch(5, ["b", "c"], items=["x", "y"], dead_letters=[letter(4)], event_times_ms=[2, 3]))

    (together,) = parts(outbox, 100)

    assert together.offsets == {CLICKS: 5}
    assert (sorted(together.users), sorted(together.items)) == (["a", "b", "c"], ["x", "y"])
    assert [dead.offset for dead in together.dead_letters] == [2, 4]
    assert together.event_times_ms == [1, 2, 3]
    assert len(outbox) == 0


def test_an_empty_outbox_has_no_parts():
    """There is nothing to publish."""
    assert Outbox().next_part(10) is None


def test_offsets_alone_are_a_part():
    """Records that changed nothing are published, too: their offsets are committed."""
    outbox = Outbox()
    outbox.add(batch(3))

    assert [part.offsets for part in parts(outbox, 10)] == [{CLICKS: 3}]


def test_what_is_published_stays_published_when_a_later_part_fails():
    """Only the failed part is published again, with what came meanwhile."""
    outbox = Outbox()
    outbox.add(batch(3, [f"u{n}" for n in range(6)], event_times_ms=[1]))
    done = outbox.next_part(4)
    failed = outbox.next_part(4)
    outbox.add(batch(4, ["late"]))
    outbox.put_back(failed)

    (rest,) = parts(outbox, 100)

    assert set(rest.users) == {f"u{n}" for n in range(6)} - set(done.users) | {"late"}
    assert (rest.offsets, rest.event_times_ms) == ({CLICKS: 4}, [1])


def test_new_changes_do_not_wait_behind_a_large_batch():
    """The next part holds them, and no part claims offsets before every state is out."""
    outbox = Outbox()
    outbox.add(batch(3, [f"u{n}" for n in range(100)]))
    first = outbox.next_part(10)
    outbox.add(batch(4, ["fresh", "u5"]))
    second = outbox.next_part(10)

    assert {"fresh", "u5"} <= set(second.users)
    assert "u1" in {*first.users, *second.users}
    rest = parts(outbox, 10)
    assert [bool(part.offsets) for part in [first, second, *rest]] == [False] * (len(rest) + 1) + [True]


def test_a_standby_keeps_what_the_leader_has_not_published():
    """Committed offsets drop the batches that they cover; one that reaches beyond stays whole."""
    outbox = Outbox()
    for offset in (3, 6, 9):
        outbox.add(batch(offset, [f"u{offset}"]))

    outbox.watch_leader(Progress({CLICKS: 7}))

    assert [part.users for part in parts(outbox, 10)] == [["u9"]]


def test_a_batch_is_covered_only_in_all_its_partitions():
    """The leader may have read the partitions in another order."""
    outbox = Outbox()
    outbox.add(StateBatch({CLICKS: 3, OTHER: 2}, users=["a"]))

    outbox.drop_covered(Progress({CLICKS: 9, OTHER: 1}))
    assert len(outbox) == 1
    outbox.drop_covered(Progress({CLICKS: 9}))
    assert len(outbox) == 1
    outbox.drop_covered(Progress({CLICKS: 3, OTHER: 2}))
    assert len(outbox) == 0


def test_what_was_begun_is_dropped_when_another_leader_published_it():
    """A leader deposed in the middle of a batch stands by like any other."""
    outbox = Outbox()
    outbox.add(batch(9, ["a", "b", "c"], dead_letters=[letter(8)]))
    outbox.put_back(outbox.next_part(2))

    outbox.watch_leader(Progress({CLICKS: 8}))
    assert len(outbox) == 1
    outbox.watch_leader(Progress({CLICKS: 9}))
    assert len(outbox) == 0
    assert outbox.letter_bytes == 0
    assert outbox.next_part(10) is None


def test_a_dead_letter_is_never_sent_twice():
    """Of a batch that is covered in part, the dead letters that were sent are left out, begun or not."""
    for begun in (False, True):
        outbox = Outbox()
        outbox.add(batch(9, ["a", "b"], dead_letters=[letter(2), letter(5), letter(8)]))
        if begun:
            outbox.put_back(outbox.next_part(1))

        outbox.drop_covered(Progress({CLICKS: 6}))

        assert [dead.offset for part in parts(outbox, 10) for dead in part.dead_letters] == [8]


def test_after_a_rebuild_changes_are_published_whatever_is_committed():
    """Offsets say nothing of how the state differs from the topics then; once all is published they do again."""
    outbox = Outbox(rebuilt=True)
    outbox.add(batch(5, ["a"]))
    outbox.drop_covered(Progress({CLICKS: 5}))
    assert [part.users for part in parts(outbox, 10)] == [["a"]]

    outbox.note_published()
    outbox.add(batch(5, ["b"]))
    outbox.drop_covered(Progress({CLICKS: 5}))
    assert len(outbox) == 0


def test_a_rebuilt_standby_publishes_nothing_where_a_leader_is_seen_at_work():
    """Offsets that stand still prove nothing: the leader may be dead. Offsets that advance do."""
    outbox = Outbox(rebuilt=True)
    outbox.add(batch(5, ["a"]))
    outbox.watch_leader(Progress({CLICKS: 5}))
    outbox.watch_leader(Progress({CLICKS: 5}))
    assert len(outbox) == 1

    outbox.watch_leader(Progress({CLICKS: 6}))
    assert len(outbox) == 0


def told(offset, *spaces):
    """What leaders have committed, with the spaces beside it; none: by an earlier release."""
    return Progress({CLICKS: offset}, frozenset(spaces))


def test_the_spaces_are_told_beside_the_offsets():
    """As they are written they are read; a text of another kind tells none."""
    assert Progress.of({CLICKS: (3, space_note("ours")), OTHER: (4, space_note(MIXED))}) == Progress(
        {CLICKS: 3, OTHER: 4}, frozenset({"ours", MIXED})
    )
    assert Progress.of({CLICKS: (3, ""), OTHER: (4, "note")}) == Progress({CLICKS: 3, OTHER: 4})
    assert space_note("") == ""


@pytest.mark.parametrize("rebuilt", [False, True])
def test_a_leader_of_another_space_leaves_everything_to_be_published(rebuilt):
    """However its offsets advance, the topics hold none of our states; its dead letters are sent, though."""
    outbox = Outbox("ours", rebuilt=rebuilt)
    outbox.add(batch(5, ["a"], dead_letters=[letter(4)]))
    outbox.add(batch(9, ["b"], dead_letters=[letter(8)]))

    for offset in (4, 5, 6):
        outbox.watch_leader(told(offset, "theirs"))

    assert outbox.lacks_everything
    assert len(outbox) == 1 + 1  # and that everything is due
    outbox.add_everything(batch(9, ["a", "b", "idle"]))
    outbox.drop_covered(told(9))
    (part,) = parts(outbox, 10)
    assert sorted(part.users) == ["a", "b", "idle"]
    assert part.dead_letters == []


def test_what_a_standby_keeps_beside_a_leader_of_another_space_is_bounded():
    """What that leader's offsets cover is dropped: everything will be published anyway."""
    outbox = Outbox("ours", rebuilt=True)
    for offset in range(100):
        outbox.watch_leader(told(offset, "theirs"))
        outbox.add(batch(offset, [f"u{offset}"]))

    assert len(outbox._batches) == 1


def test_a_leader_of_our_space_has_published_everything():
    """Its offsets prove it, whatever another one did before; what they do not cover is kept."""
    outbox = Outbox("ours")
    outbox.watch_leader(told(3, "theirs"))
    outbox.add(batch(5, ["a"]))
    outbox.add(batch(9, ["b"]))

    outbox.watch_leader(told(6, "ours"))

    assert not outbox.lacks_everything
    assert [part.users for part in parts(outbox, 10)] == [["b"]]


def test_states_of_two_spaces_in_the_topics_are_published_again():
    """A leader that was replacing them did not come to its end, whichever space it had."""
    outbox = Outbox("ours")
    outbox.watch_leader(told(3, MIXED))
    assert outbox.lacks_everything


def test_offsets_of_an_earlier_release_count_as_of_our_space():
    """They tell no space: what they cover is published, and nothing more becomes due."""
    outbox = Outbox("ours")
    outbox.add(batch(5, ["a"]))
    outbox.watch_leader(told(5))
    assert len(outbox) == 0


def test_a_change_of_space_makes_everything_due_and_keeps_what_waits():
    """Ids that have left need their tombstones, and letters are still to be sent; a leader of that space, seen at work,
    has published the states.
    """
    outbox = Outbox("former", rebuilt=True)
    outbox.add(batch(5, ["gone"], dead_letters=[letter(4)]))

    outbox.change_space("ours")

    assert outbox.space == "ours"
    assert outbox.lacks_everything
    outbox.watch_leader(told(4, "ours"))
    assert not outbox.lacks_everything
    (part,) = parts(outbox, 10)
    assert (part.users, len(part.dead_letters)) == (["gone"], 1)


def test_large_dead_letters_go_in_several_parts():
    """A transaction stays small however large the records were that could not be read."""
    outbox = Outbox()
    value = bytes(LETTER_BYTES_AT_ONCE // 2)
    outbox.add(batch(9, dead_letters=[letter(n, value=value) for n in range(5)]))

    assert outbox.letter_bytes > 5 * len(value)
    assert [len(part.dead_letters) for part in parts(outbox, 100)] == [2, 2, 1]
    assert outbox.letter_bytes == 0


@settings(max_examples=100, deadline=None)
@given(
    batches=st.lists(
        st.tuples(
            st.lists(st.sampled_from("abcdefgh"), max_size=8, unique=True),
            st.lists(st.sampled_from("pqrstuvw"), max_size=8, unique=True),
            st.lists(st.integers(0, 2), max_size=6),
        ),
        min_size=1,
        max_size=4,
    ),
    size=st.integers(1, 8),
    failures=st.lists(st.booleans(), max_size=20),
)
def test_parts_are_complete_and_their_offsets_tell_the_truth(batches, size, failures):
    """Whatever fails and whatever comes in between: nothing is missing, no letter comes twice, and offsets cover a
    record only once its letter, or every state it changed, is out.
    """
    places = [TopicPartition("interactions", partition) for partition in range(3)]
    outbox, ends, waiting = Outbox(), dict.fromkeys(places, 0), []
    changed_at, letters_out, committed, states_out, clock = {}, [], {}, {}, 0
    for users, items, sources in batches:
        dead = []
        for number in sources:
            dead.append(letter(ends[places[number]], places[number]))
            ends[places[number]] += 1
        ends = {place: end + 1 for place, end in ends.items()}
        waiting.append(StateBatch(dict(ends), users=users, items=items, dead_letters=dead))
    all_letters = [one for whole in waiting for one in whole.dead_letters]
    fails = iter(failures)
    while waiting or outbox:
        if waiting:
            clock += 1
            added = waiting.pop(0)
            changed_at |= {
                (kind, name): clock for kind, ids in (("u", added.users), ("i", added.items)) for name in ids
            }
            outbox.add(added)
        part = outbox.next_part(size)
        assert len(part.users) + len(part.items) + len(part.dead_letters) <= size
        if next(fails, False):
            outbox.put_back(part)
            continue
        states_out |= {("u", name): clock for name in part.users} | {("i", name): clock for name in part.items}
        letters_out += part.dead_letters
        if part.offsets:
            committed = part.offsets
            assert all(states_out.get(name, 0) >= at for name, at in changed_at.items())
            sent = {(one.source, one.offset) for one in letters_out}
            not_sent = [one for one in all_letters if (one.source, one.offset) not in sent]
            assert not any(one.is_covered_by(committed) for one in not_sent)
            assert all(one.is_covered_by(committed) for one in letters_out)
            assert len(sent) == len(letters_out)
    assert committed == ends
    assert len(letters_out) == sum(len(sources) for _, _, sources in batches)
