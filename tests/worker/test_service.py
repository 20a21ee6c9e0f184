"""A whole worker on the embedded broker: from its start to its end."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from brokers import TestBroker
from worker_lab import WorkerLab, requests, until, user_state

from runtime.errors import BundleError, TopicMissing
from schemas.codec import CONTENT_TYPES, FORMAT_HEADER
from worker.service import Service

FRESH = "exitstream_worker_freshness_seconds_count"


@pytest.fixture
async def lab(embedded_broker, request, tiny_bundle_folder):
    """States to know, on the embedded broker."""
    lab = WorkerLab(TestBroker(embedded_broker.bootstrap_servers, request.node.name[:40]), tiny_bundle_folder)
    await lab.prepare()
    return lab


async def test_requests_go_in_and_scores_come_out(lab):
    """Every request is answered once, by a head, from the states published before; what is no request is put aside."""
    async with lab.worker(lab.settings()) as service:
        await lab.ask(*requests(30), junk=2)
        answers = await lab.scores(30)
        letters = await lab.records(lab.topics.dead_letter(lab.topics.impression_requests), 2)

    assert sorted(scores.request_id for scores in answers) == sorted(f"r{number}" for number in range(30))
    assert {score.made_by for scores in answers for score in scores.scores} <= {"confident", "final", "deadline"}
    assert all(scores.embedding_version == 1 for scores in answers)
    assert [letter.value for letter in letters] == [b"\xc1 junk"] * 2
    assert service.metrics.value("exitstream_worker_requests_total", status="ok") == 30
    assert service.metrics.value("exitstream_worker_table_entries", kind="user") == 10


async def test_each_request_is_answered_in_the_format_in_which_it_came(lab):
    """Whoever asks in JSON reads JSON, beside others who ask in MessagePack."""
    async with lab.worker(lab.settings()):
        await lab.ask(*requests(20)[:10], wire_format="json")
        await lab.ask(*requests(20)[10:])
        records = await lab.records(lab.topics.ctr_scores, 20)

    formats = {record.key.decode(): dict(record.headers)[FORMAT_HEADER] for record in records}
    asked = {f"r{number}": CONTENT_TYPES["json" if number < 10 else "msgpack"] for number in range(20)}
    assert formats == asked


async def test_states_that_change_while_it_serves_are_used(lab):
    """The version told in the scores is that of the newest state, and its freshness is measured."""
    async with lab.worker(lab.settings()) as service:
        await lab.tell(user_state(0, np.random.default_rng(0), version=7))
        await until(lambda: service.metrics.value(FRESH))
        await lab.ask(*requests(1))
        [scores] = await lab.scores(1)

    assert scores.embedding_version == 7


async def test_a_drained_worker_leaves_nothing_undone(lab):
    """Asked to stop with work in flight it answers what it has taken in; its successor answers the rest: all once."""
    settings = lab.settings()
    async with lab.worker(settings):
        await lab.ask(*requests(200))
        await lab.scores(1)
    async with lab.worker(settings):
        answers = await lab.scores(200)

    assert sorted(scores.request_id for scores in answers) == sorted(f"r{number}" for number in range(200))


async def test_missing_topics_end_in_one_line_that_says_what_to_do(embedded_broker, tiny_bundle_folder):
    """No traceback, no waiting for ever."""
    lab = WorkerLab(TestBroker(embedded_broker.bootstrap_servers, "without-topics"), tiny_bundle_folder)

    with pytest.raises(TopicMissing, match="exitstream topics create"):
        await Service(lab.settings(), threads=1).main(asyncio.Event())


async def test_a_missing_bundle_ends_in_one_line_that_says_what_to_do(lab, tmp_path):
    """The same for the model."""
    with pytest.raises(BundleError, match="exitstream train"):
        await Service(lab.settings(bundle=str(tmp_path)), threads=1).main(asyncio.Event())
