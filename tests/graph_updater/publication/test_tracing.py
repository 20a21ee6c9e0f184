"""The trace of an interaction: from its reading to the states that it changed."""

from __future__ import annotations

import msgspec
import pytest
from span_recorder import SAMPLED, SPAN, TRACE, UNSAMPLED, SpanRecorder, header_of, parent_id, span_id, trace_id
from updater_parts import CLICKS, NOW_MS, TOPICS, click, engine, record

from graph_updater.engine import _TRACED_EVENTS
from graph_updater.intake import Intake
from graph_updater.publication.batch import Progress, StateBatch, TracedInteraction
from graph_updater.publication.outbox import Outbox
from graph_updater.publication.pending import MOST_TRACED
from graph_updater.publication.tracing import MOST_LINKS, UpdateTracing
from runtime.clock import ManualClock
from runtime.records import OutRecord


def sent(number):
    """A sampled trace context, another for each number."""
    return (("traceparent", f"00-{number + 1:032x}-{number + 1:016x}-01".encode()),)


def traced(user="u", item="i", number=0, context=None):
    """An interaction as the intake notes it."""
    return TracedInteraction(user, item, f"e{number}", CLICKS, number, context or sent(number), NOW_MS)


def state_record(topic, key):
    """A state about to be published."""
    return OutRecord(topic, key, b"state", (("content-type", b"application/msgpack"),))


@pytest.fixture
def recorder():
    """Keeps the spans."""
    return SpanRecorder("updater")


@pytest.fixture
def tracing(recorder):
    """Over the default topics, two seconds after the interactions were read."""
    return UpdateTracing(recorder.tracer, TOPICS, "group", ManualClock(NOW_MS + 2_000))


def test_a_span_lasts_from_reading_to_publication(recorder, tracing):
    """In the sender's trace; publication is a step of its own."""
    tracing.begin([traced(context=SAMPLED)]).end(NOW_MS + 2_500)

    update, publish = recorder.span("update state"), recorder.span("publish")
    assert (trace_id(update), parent_id(update)) == (TRACE, SPAN)
    assert (update.start_time, update.end_time) == (NOW_MS * 1_000_000, (NOW_MS + 2_500) * 1_000_000)
    assert (publish.start_time, publish.end_time) == ((NOW_MS + 2_000) * 1_000_000, update.end_time)
    assert parent_id(publish) == span_id(update)
    assert update.attributes["exitstream.event_id"] == "e0"


def test_the_states_of_its_user_and_its_item_carry_its_trace(recorder, tracing):
    """Beside their own headers; other records stay as they are."""
    updates = tracing.begin([traced("u", "i")])
    others = [state_record(TOPICS.user_states, b"i"), state_record("interactions.dead-letter", b"u")]
    user, item, *rest = updates.labelled(
        [state_record(TOPICS.user_states, b"u"), state_record(TOPICS.item_states, b"i"), *others]
    )
    updates.end(NOW_MS)

    for labelled in (user, item):
        headers = dict(labelled.headers)
        assert headers["traceparent"].startswith(header_of(recorder.span("update state")))
        assert headers["content-type"] == b"application/msgpack"
    assert rest == others


def test_a_state_carries_the_newest_trace_which_is_linked_to_the_others(recorder, tracing):
    """Of those that changed the same user or item, and no others."""
    updates = tracing.begin([traced("u", "i", 0), traced("v", "j", 1), traced("u", "k", 2)])
    [user] = updates.labelled([state_record(TOPICS.user_states, b"u")])
    updates.end(NOW_MS)

    first, other, newest = recorder.spans("update state")
    assert dict(user.headers)["traceparent"].startswith(header_of(newest))
    assert [link.context.span_id for link in newest.links] == [first.context.span_id]
    assert not other.links


def test_links_are_bounded(recorder, tracing):
    """To the newest ones."""
    tracing.begin([traced("u", "i", number) for number in range(50)]).end(NOW_MS)

    *others, newest = recorder.spans("update state")
    assert [link.context.span_id for link in newest.links] == [one.context.span_id for one in others[-MOST_LINKS:]]


def test_a_publication_that_fails_leaves_no_spans(recorder, tracing):
    """The next attempt makes its own."""
    tracing.begin([traced()]).labelled([])

    assert recorder.spans() == []


def test_a_fault_of_tracing_costs_no_states(tracing, monkeypatch):
    """They are published without a trace."""
    monkeypatch.setattr(tracing._tracer, "start", None)
    records = [state_record(TOPICS.user_states, b"u")]

    assert tracing.begin([traced()]).labelled(records) == records


def traced_engine(*, with_traces=True):
    """An engine whose intake notes traces."""
    of, clock = engine(), ManualClock(NOW_MS + 60_000)
    of._intake = Intake(TOPICS.items, max_bytes=10_000, max_event_lead_ms=60_000, clock=clock, with_traces=with_traces)
    return of


def traced_record(offset, context):
    """A click with this trace context."""
    plain = record(click("u", "i1", offset), offset)
    return msgspec.structs.replace(plain, headers=(*plain.headers, *context))


def absorbed(*contexts, with_traces=True):
    """The batch of an engine that read a click with each of these contexts."""
    of = traced_engine(with_traces=with_traces)
    of.absorb([traced_record(offset, context) for offset, context in enumerate(contexts)])
    return of.collect().batch


def test_interactions_whose_senders_trace_them_are_noted_with_their_place():
    """Those without a trace, or with one that is not recorded, are not."""
    batch = absorbed((), SAMPLED, UNSAMPLED)

    assert batch.traced == [TracedInteraction("u", "i1", "u-i1-1", CLICKS, 1, SAMPLED, NOW_MS + 60_000)]


def test_where_traces_are_off_none_is_noted():
    """Whatever the records say."""
    assert absorbed(SAMPLED, with_traces=False).traced == []


def test_each_interaction_is_in_one_batch():
    """The batches after it have only their own."""
    of = traced_engine()
    for offset in range(2):
        of.absorb([traced_record(offset, SAMPLED)])
        assert [one.offset for one in of.collect().batch.traced] == [offset]


def test_of_many_in_a_batch_the_newest_are_noted():
    """Their states' readers see the newest trace anyway."""
    batch = absorbed(*map(sent, range(_TRACED_EVENTS + 20)))

    assert [one.offset for one in batch.traced] == list(range(20, _TRACED_EVENTS + 20))


def test_a_trace_goes_with_the_part_that_publishes_its_user():
    """Other parts have those of theirs, and together they have all."""
    outbox = Outbox()
    users = [f"u{number}" for number in range(8)]
    outbox.add(StateBatch({CLICKS: 8}, users, traced=[traced(user, "i", n) for n, user in enumerate(users)]))
    found = []
    while (part := outbox.next_part(3)) is not None:
        assert [one.user_id for one in part.traced] == sorted(part.users)
        found += part.traced

    assert len(found) == len(users)


def test_a_part_that_is_put_back_brings_its_traces_back():
    """In their order, before those that came meanwhile."""
    outbox = Outbox()
    outbox.add(StateBatch({CLICKS: 1}, ["u"], traced=[traced(number=0)]))
    outbox.put_back(outbox.next_part(10))
    outbox.add(StateBatch({CLICKS: 2}, ["u"], traced=[traced(number=1)]))

    assert [one.offset for one in outbox.next_part(10).traced] == [0, 1]


def test_what_another_leader_published_leaves_no_traces_behind():
    """Its spans are that leader's to make."""
    outbox = Outbox()
    outbox.add(StateBatch({CLICKS: 1}, ["u"], traced=[traced(number=0)]))
    outbox.put_back(outbox.next_part(10))
    outbox.drop_covered(Progress({CLICKS: 1}))
    outbox.add(StateBatch({CLICKS: 2}, ["u"], traced=[traced(number=1)]))

    assert [one.offset for one in outbox.next_part(10).traced] == [1]


def test_the_traces_of_an_outage_are_bounded():
    """The newest are kept."""
    outbox = Outbox()
    for offset in range(MOST_TRACED + 5):
        outbox.add(StateBatch({CLICKS: offset}, ["u"], traced=[traced(number=offset)]))

    kept = outbox.next_part(10).traced
    assert (len(kept), kept[-1].offset) == (MOST_TRACED, MOST_TRACED + 4)
