"""What shards tell each other, as it is read."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace
from updater_parts import NOW_MS, TOPICS, base, click, engine, record

from graph_updater.graph.config import GraphConfig
from graph_updater.graph.shard import Shard
from graph_updater.intake import Intake
from graph_updater.part_intake import PartIntake
from graph_updater.state.shared_items import PartRecord
from graph_updater.state.updater_state import UpdaterState
from runtime.clock import ManualClock
from runtime.records import Record
from schemas.codec import MalformedRecord, encode, headers_for
from schemas.messages import ItemPart

SHAPE = (2, 4)
PART = ItemPart(
    item_id="i1",
    shard=1,
    shards=2,
    space="s",
    degree=2.0,
    edges=2,
    landmark_ms=-1,
    sums=np.arange(8, dtype="<f4").tobytes(),
    impressions=3,
    positives=2,
    grades=510,
    last_event_time_ms=NOW_MS,
    mentioned=True,
)


def read(part, key="1-of-2/i1"):
    """What a reader of shard 0 makes of a record."""
    value = None if part is None else encode(part)
    record = Record(TOPICS.item_parts, 0, 0, key.encode(), value, tuple(headers_for("msgpack")))
    found, rejects = part_intake().read([record])
    if rejects:
        raise MalformedRecord(rejects[0].reason)
    return found[0] if found else None


def part_intake():
    """Of shard 0."""
    return PartIntake(TOPICS.item_parts, Shard(0, 2), "s", SHAPE, 10_000)


def test_a_part_and_its_end_are_read():
    """Under the key of the shard and the item."""
    assert read(PART) == PartRecord(1, "i1", PART)
    assert read(None) == PartRecord(1, "i1", None)


@pytest.mark.parametrize("key", ["0-of-4/i1", "i1", "", "2-of-2/i1"])
def test_records_of_other_layouts_are_of_no_concern(key):
    """They are of former numbers of shards, and nothing tells what they hold."""
    assert read(PART, key) is None
    assert read(None, key) is None


def test_of_a_part_of_another_space_the_counts_are_taken():
    """A shard with another bundle tells sums that cannot be added to these; what it told before in ours stays."""
    intake = part_intake()
    value = encode(replace(PART, space="other"))
    headers = tuple(headers_for("msgpack"))
    ((read,), _) = intake.read([Record(TOPICS.item_parts, 0, 0, b"1-of-2/i1", value, headers)])
    assert read.is_foreign
    assert intake.foreign == 1
    state = UpdaterState(GraphConfig(epsilon=0.0), base(), Shard(0, 2))
    state.receive_parts([PartRecord(1, "i1", replace(PART, impressions=1))])
    before = state.item_embeddings(["i1"])
    state.receive_parts([read])
    assert state.published.item_state("i1", 0).impressions == 3
    np.testing.assert_array_equal(state.item_embeddings(["i1"]), before)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sums": b""}, "32 are needed"),
        ({"sums": np.full(8, np.nan, "<f4").tobytes()}, "no number"),
        ({"sums": np.full(8, -np.inf, "<f4").tobytes()}, "no number"),
        ({"sums": np.full(8, 1e20, "<f4").tobytes()}, "too large"),
        ({"degree": float("nan")}, "not a valid ItemPart"),
        ({"degree": 0.0}, "with 2 edges"),
        ({"edges": 0}, "with 0 edges"),
        ({"item_id": "i2"}, "tells of 'i2'"),
        ({"shard": 0}, "a part that shard 0 of 2 tells"),
        ({"impressions": -1}, "not a valid ItemPart"),
    ],
)
def test_what_cannot_be_used_is_refused(changes, said):
    """One number that is none would spread to every embedding."""
    with pytest.raises(MalformedRecord, match=said):
        read(replace(PART, **changes))


def test_a_refused_part_is_told_and_stops_nothing():
    """The rest of the poll is taken in; no dead letter is written, for the other shard tells it again."""
    clock, shard = ManualClock(NOW_MS), Shard(0, 2)
    state = UpdaterState(GraphConfig(), base(), shard)
    driver = engine(state)
    parts = PartIntake(TOPICS.item_parts, shard, "", SHAPE, 10_000)
    driver._intake = Intake(TOPICS.items, max_bytes=10_000, max_event_lead_ms=60_000, clock=clock, parts=parts)
    headers = tuple(headers_for("msgpack"))
    bad = Record(TOPICS.item_parts, 0, 0, b"1-of-2/i1", b"rubbish", headers)
    wrong = encode(replace(PART, space="", item_id="i3", sums=np.full(8, np.nan, "<f4").tobytes()))
    worse = Record(TOPICS.item_parts, 0, 3, b"1-of-2/i3", wrong, headers)
    good = Record(TOPICS.item_parts, 0, 1, b"1-of-2/i1", encode(replace(PART, space="")), headers)
    batch = driver.absorb([bad, worse, good, record(click("u", "i1"), 2)])
    assert ([reject.record.offset for reject in batch.refused_parts], batch.rejects) == ([0, 3], [])
    assert state.published.item_state("i1", 0).impressions == 4


def test_items_that_cannot_be_read_are_refused_by_one_shard():
    """All read the catalogue; one writes the dead letter."""
    headers = tuple(headers_for("msgpack"))
    bad = Record(TOPICS.items, 0, 0, b"i1", b"rubbish", headers)
    clock = ManualClock(NOW_MS)
    for rejects_items in (True, False):
        intake = Intake(TOPICS.items, max_bytes=10_000, max_event_lead_ms=0, clock=clock, rejects_items=rejects_items)
        assert len(intake.read([bad]).rejects) == rejects_items
