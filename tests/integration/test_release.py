"""A release as a team makes it: promoted while requests and interactions come, and rolled back again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager
from itertools import count, pairwise

import pytest
from bundle_variants import with_other_embeddings, with_other_scores
from worker_lab import ITEMS, USERS, WorkerLab, requests, until

from loadgen.processes import Processes, Program
from models.bundle_store import BundleStore
from runtime.kafka import RecordSink, create_missing_topics
from runtime.records import OutRecord
from schemas.codec import encode, headers_for
from schemas.messages import Interaction, Item

pytestmark = pytest.mark.docker
READY_S = 90.0
HEADERS = tuple(headers_for("msgpack"))


@pytest.fixture
async def lab(broker, tmp_path):
    """Empty topics on the real broker."""
    lab = WorkerLab(broker, tmp_path)
    await create_missing_topics(broker.settings(), lab.topics.specs())
    return lab


@pytest.fixture
def store(tiny_bundle, tmp_path):
    """A store with three bundles, the first of them current; versions by name."""
    store = BundleStore(tmp_path / "store")
    variants = {
        "first": tiny_bundle,
        "other scores": with_other_scores(tiny_bundle),
        "other embeddings": with_other_embeddings(tiny_bundle),
    }
    store.named = {}
    for name, bundle in variants.items():
        store.named[name] = bundle.save(tmp_path / "bundle").version
        store.put(tmp_path / "bundle")
    store.promote(store.named["first"], by="a test")
    return store


@pytest.fixture
def programs(lab, store, tmp_path):
    """An updater and a worker as processes, following the store."""
    common = {
        "EXITSTREAM_KAFKA__BOOTSTRAP_SERVERS": lab.broker.settings().bootstrap_servers,
        "EXITSTREAM_WORKER__BUNDLE": store.address,
        "EXITSTREAM_WORKER__BUNDLE_CHECK_S": "0.2",
        "EXITSTREAM_WORKER__GROUP_ID": lab.broker.name("worker"),
        "EXITSTREAM_WORKER__BUDGET_MS": "30000",
        "EXITSTREAM_WORKER__ENGINE__MAX_BATCH_TOKENS": "512",
        "EXITSTREAM_WORKER__ENGINE__WARM_UP_ROUNDS": "1",
        "EXITSTREAM_UPDATER__BUNDLE": store.address,
        "EXITSTREAM_UPDATER__BUNDLE_CHECK_S": "0.2",
        "EXITSTREAM_UPDATER__GROUP_ID": lab.broker.name("updater"),
        "EXITSTREAM_UPDATER__SNAPSHOTS": str(tmp_path / "snapshots"),
    }
    for name in (
        "interactions",
        "items",
        "impression_requests",
        "ctr_scores",
        "user_states",
        "item_states",
        "item_parts",
    ):
        common[f"EXITSTREAM_TOPICS__{name.upper()}"] = getattr(lab.topics, name)
    with Processes(common, tmp_path) as processes:
        yield processes


async def _tell(lab, messages):
    async with RecordSink(lab.broker.settings()) as sink:
        for message in messages:
            is_item = isinstance(message, Item)
            topic = lab.topics.items if is_item else lab.topics.interactions
            key = message.item_id if is_item else message.user_id
            await sink.send(OutRecord(topic, key.encode(), encode(message), HEADERS))
        await sink.flush()


def _interaction(number):
    return Interaction(
        event_id=f"e{number}",
        user_id=f"u{number % USERS}",
        item_id=f"i{number * 7 % ITEMS}",
        event_time_ms=time.time_ns() // 1_000_000,
        kind="impression",
        positive=True,
    )


@asynccontextmanager
async def _traffic(lab):
    """Requests and interactions, some every tenth of a second; yields the ids of the requests sent."""
    sent, enough = [], asyncio.Event()

    async def send():
        for number in count():
            if enough.is_set():
                return
            asked = requests(3, first=3 * number)
            await lab.ask(*asked)
            sent.extend(request.request_id for request in asked)
            await _tell(lab, [_interaction(1_000 + number)])
            await asyncio.sleep(0.1)

    sending = asyncio.create_task(send())
    try:
        yield sent
    finally:
        enough.set()  # not cancelled: what is on its way counts
        await sending


def _knows_all_users(programs):
    return f'exitstream_worker_table_entries{{kind="user"}} {USERS}.0' in programs.metrics("worker")


def _serves(programs, version):
    return f'exitstream_worker_serving_model{{model_version="{version}"}} 1.0' in programs.metrics("worker")


async def test_releases_and_rollbacks_lose_no_request_and_mix_nothing(lab, store, programs):
    """Three versions in turn under traffic, one of them of another space: every request is answered once; a model's
    successor has the last word; the updater follows, and the new worker's embeddings are its own.
    """
    await _tell(lab, [Item(item_id=f"i{number}", title=f"title number {number}") for number in range(ITEMS)])
    await _tell(lab, map(_interaction, range(200)))
    programs.start(Program("updater", ["updater"]))
    programs.start(Program("worker", ["worker"]))
    await asyncio.to_thread(programs.wait_ready, READY_S)
    await until(lambda: _knows_all_users(programs))  # the updater is ready before it has read the interactions
    steps = ["other scores", "other embeddings", "first"]
    async with _traffic(lab) as sent:
        for name in steps:
            await asyncio.sleep(1)
            store.promote(store.named[name], by="a test")
            await until(lambda name=name: _serves(programs, store.named[name]))
        await asyncio.sleep(1)
    answers = await lab.scores(len(sent))

    assert Counter(scores.request_id for scores in answers) == Counter(sent)
    at_times = {scores.created_time_ms: scores.model_version for scores in answers}
    versions = [at_times[created_ms] for created_ms in sorted(at_times)]
    changes = [later for earlier, later in pairwise(versions) if earlier != later]
    assert [versions[0], *changes] == [store.named[name] for name in ("first", *steps)]
    assert {score.made_by for scores in answers for score in scores.scores} <= {"confident", "final", "deadline"}
    assert all(scores.embedding_version > 0 for scores in answers)
    assert "exitstream_updater_bundle_changes_total 3.0" in programs.metrics("updater")
    assert "exitstream_worker_foreign_embeddings 0.0" in programs.metrics("worker")
