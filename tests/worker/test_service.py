"""A whole worker on the embedded broker: from its start to its end."""

from __future__ import annotations

import asyncio
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from brokers import TestBroker
from bundle_variants import with_other_embeddings, with_other_scores, with_wrong_golden_scores
from structlog.testing import capture_logs
from worker_lab import WorkerLab, in_space, requests, until, user_state

from models.bundle_store import BundleStore
from runtime.errors import BundleError, TopicMissing
from schemas.codec import CONTENT_TYPES, FORMAT_HEADER
from worker.service import Service

FRESH = "exitstream_worker_freshness_seconds_count"
STATES = "exitstream_worker_states_total"


@pytest.fixture
async def lab(embedded_broker, request, tiny_bundle_folder):
    """States to know, on the embedded broker."""
    lab = WorkerLab(TestBroker(embedded_broker.bootstrap_servers, request.node.name[:40]), tiny_bundle_folder)
    await lab.prepare()
    return lab


@pytest.fixture
async def spaced_lab(embedded_broker, request, tiny_bundle):
    """The same, with embeddings that tell their space."""
    lab = WorkerLab(TestBroker(embedded_broker.bootstrap_servers, request.node.name[:40]), Path())
    await lab.prepare(tiny_bundle.space)
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


async def test_a_worker_with_saved_tables_reads_only_what_is_newer(lab, tmp_path):
    """It saves them at its end; its successor answers from them, and from what came meanwhile."""
    settings = lab.settings(tables={"saved": str(tmp_path)})
    async with lab.worker(settings) as service:
        read = service.metrics.value(STATES, topic=lab.topics.user_states)
    await lab.tell(user_state(0, np.random.default_rng(0), version=7))
    async with lab.worker(settings) as service:
        await lab.ask(*requests(30))
        answers = await lab.scores(30)
        read_again = service.metrics.value(STATES, topic=lab.topics.user_states)
        entries = service.metrics.value("exitstream_worker_table_entries", kind="user")

    assert (read, read_again, entries) == (10, 1, 10)
    assert {scores.embedding_version for scores in answers if scores.user_id == "u0"} == {7}
    assert {scores.embedding_version for scores in answers if scores.user_id != "u0"} == {1}


async def test_missing_topics_end_in_one_line_that_says_what_to_do(embedded_broker, tiny_bundle_folder):
    """No traceback, no waiting for ever."""
    lab = WorkerLab(TestBroker(embedded_broker.bootstrap_servers, "without-topics"), tiny_bundle_folder)

    with pytest.raises(TopicMissing, match="exitstream topics create"):
        await Service(lab.settings(), threads=1).main(asyncio.Event())


async def test_a_missing_bundle_ends_in_one_line_that_says_what_to_do(lab, tmp_path):
    """The same for the model."""
    with pytest.raises(BundleError, match="exitstream train"):
        await Service(lab.settings(bundle=str(tmp_path)), threads=1).main(asyncio.Event())


@pytest.fixture
def store(tiny_bundle, tmp_path):
    """A bundle store whose current version is the tiny bundle; `release` puts another there and makes it current."""
    store = BundleStore(tmp_path / "store", tmp_path / "cache")

    class Releases:
        address = store.address

        def release(self, bundle):
            bundle = bundle.save(tmp_path / "next")
            store.put(tmp_path / "next")
            store.promote(bundle.version, by="a test")
            return bundle.version

        def roll_back(self):
            store.roll_back(by="a test")

    releases = Releases()
    releases.release(tiny_bundle)
    return releases


def _serves(service, version):
    return service.metrics.value("exitstream_worker_serving_model", model_version=version) == 1


async def _answered_by(lab, count):
    return Counter(scores.model_version for scores in await lab.scores(count))


async def test_a_promoted_version_is_swapped_in_and_back_while_requests_are_answered(lab, store, tiny_bundle):
    """No restart: requests before it are answered by the former model, those after it by the new one, all once."""
    first = tiny_bundle.version
    async with lab.worker(lab.settings(bundle=store.address, bundle_check_s=0.05)) as service:
        await lab.ask(*requests(20))
        assert await _answered_by(lab, 20) == {first: 20}
        tables = service.metrics._tables
        second = store.release(with_other_scores(tiny_bundle))
        await until(lambda: _serves(service, second))
        await lab.ask(*requests(20, first=20))
        assert await _answered_by(lab, 40) == {first: 20, second: 20}
        assert service.metrics._tables is tables  # its embeddings are those that the tables hold already
        store.roll_back()
        await until(lambda: _serves(service, first))
        await lab.ask(*requests(20, first=40))
        assert await _answered_by(lab, 60) == {first: 40, second: 20}
        assert service.readiness.is_ready


@pytest.mark.parametrize("users", ["all", "assigned"])
async def test_a_version_with_other_embeddings_serves_once_its_own_tables_are_filled(
    spaced_lab, store, tiny_bundle, users
):
    """Until the updater has changed, the former model serves from the embeddings it has; spaces are never mixed."""
    first = tiny_bundle.version
    other = with_other_embeddings(tiny_bundle)
    settings = spaced_lab.settings(bundle=store.address, bundle_check_s=0.05, tables={"users": users})
    async with spaced_lab.worker(settings) as service:
        with capture_logs() as logs:
            second = store.release(other)
            await until(lambda: _told(logs, "waiting for embeddings of this bundle"))
        await spaced_lab.ask(*requests(10))
        assert await _answered_by(spaced_lab, 10) == {first: 10}
        former = weakref.ref(service.metrics._tables)
        await spaced_lab.publish_states(other.space, version=2)
        await until(lambda: _serves(service, second))
        await spaced_lab.ask(*requests(10, first=10))
        answers = await spaced_lab.scores(20)
        await until(lambda: former() is None)  # as large as those that serve: nobody follows or keeps them
        await spaced_lab.tell(in_space(user_state(0, np.random.default_rng(0), version=7), other.space))
        await until(lambda: service.metrics._tables.users.embedding_stamp("u0")[0] == 7)

    assert Counter(scores.model_version for scores in answers) == {first: 10, second: 10}
    assert {scores.embedding_version for scores in answers if scores.model_version == second} == {2}


async def test_a_version_with_longer_histories_reads_them_in_tables_of_its_own(lab, store, tiny_bundle):
    """What serves until then has cut them; statistics of the new version count all that it was trained on."""
    second = with_history_length(store, tiny_bundle, 2)
    async with lab.worker(lab.settings(bundle=store.address, bundle_check_s=0.05)) as service:
        assert _serves(service, second)
        assert set(_history_lengths(service)) == {2}
        third = with_history_length(store, tiny_bundle, 200)
        await until(lambda: _serves(service, third) and set(_history_lengths(service)) == {6})
        await lab.ask(*requests(10))
        assert await _answered_by(lab, 10) == {third: 10}
        store.roll_back()
        await until(lambda: _serves(service, second) and set(_history_lengths(service)) == {2})


def with_history_length(store, bundle, length):
    """Releases a bundle whose only difference is how many past interactions are kept."""
    return store.release(replace(bundle, limits=replace(bundle.limits, history_length=length)))


def _history_lengths(service):
    users = service.metrics._tables.users
    return users.histories.lengths[[users.ids.row(f"u{number}") for number in range(10)]].tolist()


async def test_a_version_that_cannot_be_used_changes_nothing(lab, store, tiny_bundle):
    """It is told and counted, the former model goes on, and the next version is taken as ever."""
    async with lab.worker(lab.settings(bundle=store.address, bundle_check_s=0.05)) as service:
        store.release(with_wrong_golden_scores(tiny_bundle))
        await until(lambda: service.metrics.value("exitstream_worker_refused_bundles_total") == 1)
        await lab.ask(*requests(5))
        assert await _answered_by(lab, 5) == {tiny_bundle.version: 5}
        good = store.release(with_other_scores(tiny_bundle))
        await until(lambda: _serves(service, good))


async def test_a_version_that_is_taken_back_while_its_tables_are_filled_never_serves(spaced_lab, store, tiny_bundle):
    """Rolled back before the updater has changed; the version after it is taken as ever."""
    async with spaced_lab.worker(spaced_lab.settings(bundle=store.address, bundle_check_s=0.05)) as service:
        with capture_logs() as logs:
            store.release(with_other_embeddings(tiny_bundle))
            await until(lambda: _told(logs, "waiting for embeddings of this bundle"))
            store.roll_back()
            await until(lambda: _told(logs, "the new version is not used"))
        good = store.release(with_other_scores(tiny_bundle))
        await until(lambda: _serves(service, good))
        assert service.metrics.value("exitstream_worker_refused_bundles_total") == 0


async def test_a_worker_that_ends_does_not_wait_for_a_new_version(spaced_lab, store, tiny_bundle):
    """Neither for its tables nor for its warm-up."""
    with capture_logs() as logs:
        async with spaced_lab.worker(spaced_lab.settings(bundle=store.address, bundle_check_s=0.05)):
            store.release(with_other_embeddings(tiny_bundle))
            await until(lambda: _told(logs, "waiting for embeddings of this bundle"))


async def test_a_worker_process_that_is_stopped_while_it_warms_a_new_model_up_ends_in_order(
    lab, store, tiny_bundle, tmp_path
):
    """With status 0, and no traceback of what was given up."""
    log = tmp_path / "worker.log"
    with lab.process(lab.settings(bundle=store.address, bundle_check_s=0.05), log) as worker:
        await worker.ready()
        store.release(with_other_scores(tiny_bundle))
        await worker.says("warming the new model up beside the one that serves")
        assert await worker.drain() == 0


def _told(logs, event):
    return any(line["event"] == event for line in logs)
