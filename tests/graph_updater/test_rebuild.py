"""Where a rebuild begins, how far it replays, and what it tells of records that are gone."""

from __future__ import annotations

from structlog.testing import capture_logs
from updater_parts import CLICKS

from graph_updater.metrics import UpdaterMetrics
from graph_updater.rebuild import replay_until, tell_gaps, without
from runtime.records import TopicPartition

OTHER = TopicPartition("interactions", 1)
GAP = "exitstream_updater_gap_records_total"


def test_the_replay_ends_where_the_published_states_end():
    """Records up to the committed offsets are known to the topics; a partition without an offset has none of these."""
    assert replay_until({CLICKS: 3, OTHER: 0}, {CLICKS: 90, OTHER: 90}, {CLICKS: 50, OTHER: None}) == {
        CLICKS: 50,
        OTHER: 0,
    }


def test_committed_offsets_outside_of_the_topic_are_cut_to_it():
    """Before the earliest record there is nothing to replay; a topic cut off at its end is replayed whole."""
    assert replay_until({CLICKS: 30, OTHER: 5}, {CLICKS: 90, OTHER: 20}, {CLICKS: 10, OTHER: 700}) == {
        CLICKS: 30,
        OTHER: 20,
    }


def test_without_committed_offsets_everything_is_replayed_and_that_is_told():
    """Nobody knows what the published states include, so counts are the larger of both."""
    with capture_logs() as logs:
        assert replay_until({CLICKS: 3}, {CLICKS: 90}, {CLICKS: None}) == {CLICKS: 90}

    assert "no committed offsets" in logs[0]["event"]


def test_records_that_nobody_read_are_a_gap():
    """Counted from the later of snapshot and published states, and told with their place."""
    metrics = UpdaterMetrics()

    with capture_logs() as logs:
        tell_gaps({CLICKS: 10, OTHER: 10}, {CLICKS: 40, OTHER: 40}, {CLICKS: 25, OTHER: 40}, metrics)

    assert metrics.value(GAP, topic="interactions") == 15
    assert [(line["partition"], line["offset"], line["going_on_from"]) for line in logs] == [(str(CLICKS), 25, 40)]


def test_a_topic_that_ends_before_the_snapshot_is_told():
    """It was cut off or replaced; it is read anew, which is no gap."""
    metrics = UpdaterMetrics()

    with capture_logs() as logs:
        tell_gaps({CLICKS: 100}, {CLICKS: 0}, {CLICKS: None}, metrics)

    assert "ends before the snapshot's offset" in logs[0]["event"]
    assert not metrics.value(GAP, topic="interactions")


def test_a_first_start_has_no_gap():
    """What expired before anybody looked was never promised."""
    with capture_logs() as logs:
        tell_gaps({}, {CLICKS: 40}, {CLICKS: None}, UpdaterMetrics())

    assert logs == []


def test_offsets_committed_before_a_topic_was_made_again_count_nothing():
    """All records of the new topic are read as ever; the other topic's offsets stay."""
    items = TopicPartition("items", 0)
    committed = without({CLICKS: 50, items: 7}, frozenset({"interactions"}))

    assert replay_until({CLICKS: 0, items: 2}, {CLICKS: 90, items: 9}, committed) == {CLICKS: 0, items: 7}
