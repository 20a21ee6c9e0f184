"""States as records."""

from __future__ import annotations

import pytest
from updater_parts import NOW_MS, TOPICS, click, engine, records, state

from graph_updater.publishing import StateEncoder, transact
from graph_updater.standby import Reign
from runtime.clock import ManualClock
from runtime.errors import Fenced
from runtime.records import OutRecord, TopicPartition
from schemas.codec import CONTENT_TYPES, FORMAT_HEADER, MessageDecoder
from schemas.messages import UserState


@pytest.mark.parametrize("wire_format", ["msgpack", "json"])
def test_states_travel_in_the_format_of_the_settings(wire_format):
    """The header says which, the time of publication is the clock's, the key is the id."""
    of = state()
    driver = engine(of)
    driver.absorb(records([click("Zoë", "i1")]))
    encoder = StateEncoder(TOPICS, wire_format, ManualClock(NOW_MS + 9))

    (record,) = (one for one in encoder.records(of, driver.collect().parcel) if one.topic == TOPICS.user_states)

    assert record.key == "Zoë".encode()
    assert dict(record.headers)[FORMAT_HEADER] == CONTENT_TYPES[wire_format]
    assert MessageDecoder(UserState).decode(record.value, record.headers).published_time_ms == NOW_MS + 9


class RecordingSink:
    """Stands where a `TransactionalSink` would: keeps what is committed, refuses what is too large."""

    def __init__(self, largest=100):
        self.committed = []
        self.offsets = {}
        self.stopped = False
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
        self.committed += records

    async def commit_offsets(self, group_id, offsets):
        self.offsets[group_id] = offsets

    async def stop(self):
        self.stopped = True


async def test_a_state_too_large_does_not_hold_up_the_rest():
    """It is left out, told in the log; everything else and the offsets go."""
    sink, frontier = RecordingSink(), {TopicPartition("interactions", 0): 3}
    outbound = [OutRecord("t", b"k", b"x" * size) for size in (1, 101, 2)]

    await transact(Reign(sink), "group", outbound, frontier)

    assert [len(record.value) for record in sink.committed] == [1, 2]
    assert sink.offsets == {"group": frontier}


async def test_nothing_is_written_after_a_reign():
    """Once it is over its sink is stopped and further writing fails as if fenced off."""
    sink = RecordingSink()
    reign = Reign(sink)

    await reign.end()

    assert sink.stopped
    with pytest.raises(Fenced):
        await transact(reign, "group", [OutRecord("t", b"k", b"v")], {})
    assert sink.committed == []
