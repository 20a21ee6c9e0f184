"""Publishing while leading, following the leader while standing by."""

from __future__ import annotations

import pytest
from span_recorder import SAMPLED, SpanRecorder, header_of
from updater_parts import CLICKS, NOW_MS, TOPICS

import graph_updater.publication.publisher as publisher_module
from graph_updater.metrics import UpdaterMetrics
from graph_updater.publication.batch import MIXED, StateBatch, TracedInteraction, space_note
from graph_updater.publication.outbox import Outbox
from graph_updater.publication.publisher import Publisher, transact
from graph_updater.publication.standby import LeaderTerm
from graph_updater.publication.tracing import UpdateTracing
from runtime.clock import ManualClock
from runtime.errors import BrokerUnreachable, Fenced, NotAuthorized, TransactionFailed
from runtime.records import OutRecord, TopicPartition

OTHER = TopicPartition(TOPICS.items, 0)


class RecordingSink:
    """Stands where a `TransactionalSink` would: keeps what is committed, refuses what is too large."""

    def __init__(self, largest=100):
        self.committed = []
        self.offsets = {}
        self.notes = []
        self.stopped = False
        self.fails = False
        self.error = None
        self._largest = largest

    def transaction(self):
        return self

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc_info):
        return None

    def fits(self, record):
        return len(record.value) <= self._largest

    async def send_all(self, records):
        if self.error is not None:
            raise self.error
        if self.fails:
            raise TransactionFailed("the broker said no")
        self.committed += records

    async def commit_offsets(self, group_id, offsets, metadata):
        if self.fails:
            raise TransactionFailed("the broker said no")
        self.offsets[group_id] = offsets
        self.notes.append(set(metadata.values()))

    async def stop(self):
        self.stopped = True


class Broker:
    """Stands where `Leadership` and `TopicFollower` would: who leads, and what leaders have committed."""

    group_id = "group"

    def __init__(self):
        self.offsets = {CLICKS: 0}
        self.note = ""
        self.elected = None

    @property
    def term(self):
        return None if self.elected is None or self.elected.is_over else self.elected

    def elect(self):
        self.elected = LeaderTerm(RecordingSink())
        return self.elected._sink

    def assignment(self):
        return frozenset({CLICKS})

    async def committed_with_metadata(self, _partitions):
        return {place: (offset, self.note) for place, offset in self.offsets.items()}


class States:
    """A record per id, named after it."""

    def __init__(self, topic="states"):
        self._topic = topic
        self.all_asked_for = 0

    async def encode(self, batch):
        return [OutRecord(self._topic, name.encode(), b"state") for name in batch.users]

    async def everything(self):
        self.all_asked_for += 1
        return StateBatch({CLICKS: 6}, users=["early", "late", "idle"])


@pytest.fixture
def broker():
    """Nobody leads."""
    return Broker()


@pytest.fixture
def publisher(broker):
    """With two batches pending, up to offsets 3 and 6."""
    of = Publisher(broker, Outbox(), broker, States(), UpdaterMetrics(), ManualClock(NOW_MS))
    of.add(StateBatch({CLICKS: 3}, users=["early"]))
    of.add(StateBatch({CLICKS: 6}, users=["late"], event_times_ms=[NOW_MS - 2000]))
    return of


def keys(sink):
    """The ids written."""
    return [record.key.decode() for record in sink.committed]


async def test_a_standby_writes_nothing_and_drops_what_the_leader_published(broker, publisher):
    """It keeps what committed offsets do not cover."""
    assert not await publisher.flush()
    assert publisher.pending == 2
    broker.offsets[CLICKS] = 4
    assert not await publisher.flush()
    assert publisher.pending == 1
    assert not publisher.is_leading


async def test_a_leader_publishes_all_batches_with_the_last_offsets(broker, publisher):
    """Everything is written in one go, counted, and its freshness measured."""
    sink = broker.elect()
    assert await publisher.flush()
    assert keys(sink) == ["early", "late"]
    assert sink.offsets == {"group": {CLICKS: 6}}
    assert publisher.published == {CLICKS: 6}
    assert publisher.pending == 0
    assert publisher._metrics.value("exitstream_updater_published_total", kind="user") == 2
    assert publisher._metrics.value("exitstream_updater_freshness_seconds_sum") == 2.0


async def test_a_new_leader_begins_where_the_one_before_stopped(broker, publisher):
    """What the committed offsets cover is not published again."""
    broker.offsets[CLICKS] = 3
    sink = broker.elect()
    await publisher.flush()
    assert keys(sink) == ["late"]


async def test_a_term_has_begun_once_what_is_published_has_left_the_outbox(broker, publisher):
    """A batch that is added before would be dropped as published by the leader before."""
    assert publisher.begun_term is None
    broker.elect()
    assert (publisher.is_leading, publisher.begun_term) == (True, None)
    await publisher.flush()
    assert publisher.begun_term is broker.elected
    broker.elect()
    assert publisher.begun_term is None


async def test_a_failed_transaction_ends_the_term_and_loses_nothing(broker, publisher):
    """Nothing more is written in that term; the next one asks first whether the failed one had got through."""
    sink = broker.elect()
    sink.fails = True
    assert not await publisher.flush()
    assert not publisher.is_leading
    assert publisher.pending == 1
    with pytest.raises(Fenced):
        await transact(broker.elected, "group", [], {})

    broker.offsets[CLICKS] = 6
    again = broker.elect()
    assert await publisher.flush()
    assert again.committed == []
    assert publisher.pending == 0


async def test_a_leader_whose_confirmed_transactions_the_broker_lost_publishes_every_state(broker, publisher):
    """The group's offsets are back before those that were confirmed; nothing tells which states went with them."""
    broker.elect()
    assert await publisher.flush()
    broker.offsets[CLICKS] = 5
    broker.elect().fails = True
    assert not await publisher.flush()
    again = broker.elect()
    assert await publisher.flush()
    assert publisher._states.all_asked_for == 1
    assert sorted(keys(again)) == ["early", "idle", "late"]
    assert again.offsets == {"group": {CLICKS: 6}}
    broker.offsets[CLICKS] = 6
    third = broker.elect()
    assert await publisher.flush()
    assert keys(third) == []


async def test_committed_offsets_are_asked_for_once_per_term(broker, publisher):
    """Within a term this updater alone writes: what it has not written is pending, whatever the offsets say."""
    sink = broker.elect()
    await publisher.flush()
    broker.offsets[CLICKS] = 9
    publisher.add(StateBatch({CLICKS: 9}, users=["more"]))
    await publisher.flush()
    assert keys(sink) == ["early", "late", "more"]


async def test_a_large_batch_goes_on_where_a_failure_left_it(broker, monkeypatch):
    """What was committed in one term is not written again in the next, and new changes join the rest."""
    monkeypatch.setattr(publisher_module, "MAX_TRANSACTION_RECORDS", 3)
    of = Publisher(broker, Outbox(), broker, States(), UpdaterMetrics(), ManualClock(NOW_MS))
    of.add(StateBatch({CLICKS: 8}, users=[f"u{n}" for n in range(8)]))
    first = broker.elect()
    assert await of.flush()
    assert of.pending
    first.fails = True
    assert not await of.flush()
    of.add(StateBatch({CLICKS: 9}, users=["fresh"]))

    second = broker.elect()
    await of.flush()
    assert "fresh" in keys(second)
    while of.pending:
        assert await of.flush()

    assert len(keys(first)) == 3
    assert sorted([*keys(first), *keys(second)]) == sorted(["fresh", *(f"u{n}" for n in range(8))])
    assert second.offsets == {"group": {CLICKS: 9}}
    assert first.offsets == {}
    assert of.published == {CLICKS: 9}


async def test_an_error_that_ends_no_term_keeps_what_was_to_be_written(broker, publisher):
    """A broker that does not answer is the caller's to wait for; the next try has everything."""
    sink = broker.elect()
    sink.error = BrokerUnreachable("no answer in time")
    with pytest.raises(BrokerUnreachable):
        await publisher.flush()
    assert publisher.is_leading
    sink.error = None

    assert await publisher.flush()
    assert sorted(keys(sink)) == ["early", "late"]


async def test_whoever_may_not_write_tries_again_in_another_term(broker, publisher):
    """The transaction stays open at the broker until its id is taken over again; then everything is written."""
    sink = broker.elect()
    sink.error = NotAuthorized("not allowed to write")
    with pytest.raises(NotAuthorized):
        await publisher.flush()
    assert not publisher.is_leading
    sink.error = None

    sink = broker.elect()
    assert await publisher.flush()
    assert sorted(keys(sink)) == ["early", "late"]


@pytest.fixture
def ours(broker):
    """Of the space `ours`, with the same batches."""
    of = Publisher(broker, Outbox("ours"), broker, States(), UpdaterMetrics(), ManualClock(NOW_MS))
    of.add(StateBatch({CLICKS: 3}, users=["early"]))
    of.add(StateBatch({CLICKS: 6}, users=["late"]))
    return of


async def test_a_leader_publishes_every_state_where_another_space_was_published(broker, ours):
    """It says so beside the offsets before the first state is replaced, and tells its own space with the last."""
    broker.offsets, broker.note = {CLICKS: 6, OTHER: 2}, space_note("theirs")
    sink = broker.elect()

    assert await ours.flush()

    assert sorted(keys(sink)) == ["early", "idle", "late"]
    assert sink.notes == [{space_note(MIXED)}, {space_note("ours")}]
    assert sink.offsets == {"group": {CLICKS: 6, OTHER: 2}}
    assert ours.published == {CLICKS: 6}
    assert not ours.pending


async def test_between_the_first_and_the_last_of_all_states_no_space_is_told(broker, ours, monkeypatch):
    """Whoever leads next after a failure there finds that the topics hold two spaces, and begins again."""
    monkeypatch.setattr(publisher_module, "MAX_TRANSACTION_RECORDS", 2)
    broker.note = space_note("theirs")
    first = broker.elect()
    assert await ours.flush()
    first.fails = True
    assert not await ours.flush()
    assert first.notes == [{space_note(MIXED)}]

    broker.note = space_note(MIXED)
    second = broker.elect()
    while not await ours.flush() or ours.pending:
        pass

    assert {"early", "late", "idle"} == set(keys(second))
    assert second.notes == [{space_note(MIXED)}, {space_note("ours")}]


async def test_offsets_never_go_back_to_those_of_a_term_that_failed(broker, ours, monkeypatch):
    """Another leader came to the end of what that term had begun; its offsets stay."""
    monkeypatch.setattr(publisher_module, "MAX_TRANSACTION_RECORDS", 2)
    broker.offsets, broker.note = {CLICKS: 1, OTHER: 2}, space_note("theirs")
    first = broker.elect()
    assert await ours.flush()
    first.fails = True
    assert not await ours.flush()

    broker.offsets, broker.note = {CLICKS: 3, OTHER: 9}, space_note("ours")
    second = broker.elect()
    assert await ours.flush()

    assert not ours.pending
    assert second.offsets == {"group": {CLICKS: 6}}


async def test_a_leader_goes_on_where_its_own_space_was_published(broker, ours):
    """Nothing is published again, and its space is told with every commit."""
    broker.offsets[CLICKS], broker.note = 3, space_note("ours")
    sink = broker.elect()

    assert await ours.flush()

    assert keys(sink) == ["late"]
    assert sink.notes == [{space_note("ours")}]


async def test_a_failure_to_say_that_everything_is_replaced_ends_the_term(broker, ours):
    """No state is replaced before; the next term tries again."""
    broker.note = space_note("theirs")
    sink = broker.elect()
    sink.fails = True
    assert not await ours.flush()
    assert keys(sink) == []

    again = broker.elect()
    assert await ours.flush()
    assert sorted(keys(again)) == ["early", "idle", "late"]


async def test_a_state_too_large_does_not_hold_up_the_rest():
    """It is left out, told in the log; everything else and the offsets go."""
    sink, offsets = RecordingSink(), {CLICKS: 3}
    outbound = [OutRecord("t", b"k", b"x" * size) for size in (1, 101, 2)]

    await transact(LeaderTerm(sink), "group", outbound, offsets)

    assert [len(record.value) for record in sink.committed] == [1, 2]
    assert sink.offsets == {"group": offsets}


async def test_nothing_is_written_after_a_term():
    """Once it is over its sink is stopped and further writing fails as if fenced off."""
    sink = RecordingSink()
    term = LeaderTerm(sink)

    await term.end()

    assert sink.stopped
    assert term.is_over
    with pytest.raises(Fenced):
        await transact(term, "group", [OutRecord("t", b"k", b"v")], {})
    assert sink.committed == []


async def test_traces_end_with_the_transaction_that_publishes_their_states(broker):
    """One that fails leaves no span; the next one's records carry the spans that it ends."""
    recorder, clock = SpanRecorder("updater"), ManualClock(NOW_MS)
    tracing = UpdateTracing(recorder.tracer, TOPICS, "group", clock)

    of = Publisher(broker, Outbox(), broker, States(TOPICS.user_states), UpdaterMetrics(), clock, tracing)
    traced = TracedInteraction("u", "i", "e", CLICKS, 0, SAMPLED, NOW_MS)
    of.add(StateBatch({CLICKS: 1}, users=["u"], traced=[traced]))
    broker.elect().fails = True
    assert not await of.flush()
    assert recorder.spans() == []

    sink = broker.elect()
    assert await of.flush()
    [state] = sink.committed
    assert dict(state.headers)["traceparent"].startswith(header_of(recorder.span("update state")))
