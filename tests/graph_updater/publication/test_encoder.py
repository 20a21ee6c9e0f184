"""Batches as records."""

from __future__ import annotations

import pytest
from updater_parts import NOW_MS, TOPICS, click, engine, records, state

from graph_updater.publication.encoder import StateEncoder
from runtime.clock import ManualClock
from schemas.codec import CONTENT_TYPES, FORMAT_HEADER, MessageDecoder
from schemas.messages import UserState


@pytest.mark.parametrize("wire_format", ["msgpack", "json"])
def test_states_travel_in_the_format_of_the_settings(wire_format):
    """The header says which, the time of publication is the clock's, the key is the id."""
    of = state()
    driver = engine(of)
    driver.absorb(records([click("Zoë", "i1")]))
    encoder = StateEncoder(TOPICS, wire_format, ManualClock(NOW_MS + 9))

    encoded = encoder.records(of.published, driver.collect().batch)
    (record,) = (one for one in encoded if one.topic == TOPICS.user_states)

    assert record.key == "Zoë".encode()
    assert dict(record.headers)[FORMAT_HEADER] == CONTENT_TYPES[wire_format]
    assert MessageDecoder(UserState).decode(record.value, record.headers).published_time_ms == NOW_MS + 9
