"""The record of a job's scores."""

from __future__ import annotations

import pytest

from schemas.codec import MessageDecoder
from schemas.messages import ImpressionScores
from worker.publishing import Publisher


@pytest.fixture
async def job(desk):
    """An answered request for three candidates."""
    answered = []
    desk.pipeline._log.write = answered.append
    await desk.answer(desk.request("i3", "i1", "nothing", request_id="ü"))
    return answered[0]


@pytest.mark.parametrize("wire_format", ["msgpack", "json"])
async def test_the_record_can_be_read_by_its_headers(job, desk, wire_format):
    """Keyed by request id, in either format."""
    record = Publisher("ctr-scores", wire_format, neighbours=4).record(job)
    scores = MessageDecoder(ImpressionScores).decode(record.value, record.headers)

    assert (record.topic, record.key, scores.model_version) == ("ctr-scores", "ü".encode(), desk.model.version)
    assert [score.item_id for score in scores.scores] == ["i3", "i1", "nothing"]


async def test_neighbours_of_each_kind_come_by_turns_nearest_first(job):
    """A few tell of all kinds of evidence, not only of the first."""
    scores = Publisher("t", "msgpack", neighbours=4).scores(job, 4)
    told = scores.scores[0].neighbours
    evidence = job.evidence[0]

    assert len(told) == 4
    assert told[0].kind == "past_item"
    assert told[0].id == evidence.past[0].item.item_id
    assert told[1].id == (evidence.similar_users[0].user_id if evidence.similar_users else told[1].id)
    assert scores.scores[2].neighbours == []


async def test_without_neighbours_the_scores_stay(job):
    """The lean form of a record that would be too large."""
    publisher = Publisher("t", "msgpack", neighbours=4)
    lean = MessageDecoder(ImpressionScores).decode(publisher.record(job, with_neighbours=False).value)
    full = MessageDecoder(ImpressionScores).decode(publisher.record(job).value)

    assert [score.ctr for score in lean.scores] == [score.ctr for score in full.scores]
    assert not any(score.neighbours for score in lean.scores)
