"""Batches as records."""

from __future__ import annotations

import pytest
from updater_parts import NOW_MS, TOPICS, click, engine, records, state

from graph_updater.publication.batch import StateBatch
from graph_updater.publication.encoder import StateEncoder
from runtime.clock import ManualClock
from schemas.codec import CONTENT_TYPES, FORMAT_HEADER
from schemas.messages import UserState
from schemas.packed_states import CONTENT_TYPE, StateDecoder


@pytest.mark.parametrize("wire_format", ["msgpack", "json", "packed"])
def test_states_travel_in_the_format_of_the_settings(wire_format):
    """The header says which, the time of publication is the clock's, the key is the id."""
    of = state()
    driver = engine(of)
    driver.absorb(records([click("Zoë", "i1")]))
    encoder = StateEncoder(TOPICS, wire_format, ManualClock(NOW_MS + 9))

    encoded = encoder.records(of.published, driver.collect().batch)
    (record,) = (one for one in encoded if one.topic == TOPICS.user_states)

    assert record.key == "Zoë".encode()
    assert dict(record.headers)[FORMAT_HEADER] == {**CONTENT_TYPES, "packed": CONTENT_TYPE}[wire_format]
    assert StateDecoder(UserState).decode(record.value, record.headers).published_time_ms == NOW_MS + 9


@pytest.mark.parametrize("state_format", ["msgpack", "packed"])
def test_a_state_that_has_left_is_a_tombstone(state_format):
    """Also if it left after the batch was collected."""
    of = state()
    encoder = StateEncoder(TOPICS, state_format, ManualClock(NOW_MS))
    of.apply([click("u", "i1")])
    of.published.take_changes()

    encoded = encoder.records(of.published, StateBatch(offsets={}, users=["gone", "u"], items=["gone"]))

    assert [(one.key, one.value is None) for one in encoded] == [(b"gone", True), (b"u", False), (b"gone", True)]
