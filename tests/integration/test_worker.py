"""Worker processes on real Kafka."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bundle_variants import with_other_scores
from worker_lab import WorkerLab, in_space, requests, until, user_state

from runtime.kafka import RecordSource
from schemas.codec import encode
from schemas.topics import REASON
from worker.service import Service
from worker.shadow import is_in_share

pytestmark = pytest.mark.docker
DEADLY_WORKER = Path(__file__).parents[1] / "support" / "deadly_worker.py"
OLD = 4_800
"""So many requests that partitions have a backlog."""


@pytest.fixture
async def lab(broker, tiny_bundle_folder):
    """States to know, on the real broker."""
    lab = WorkerLab(broker, tiny_bundle_folder)
    await lab.prepare()
    return lab


@pytest.fixture
def log(tmp_path):
    """Where the processes of a test write."""
    return tmp_path / "worker.log"


def _ids(answers):
    return Counter(scores.request_id for scores in answers)


async def test_a_worker_process_answers_and_drains(lab, log):
    """Requests in, scores out, by the command of production; asked to end, it does so with status 0."""
    with lab.process(lab.settings(), log) as worker:
        await worker.ready()
        await lab.ask(*requests(100), junk=3)
        answers = await lab.scores(100)
        letters = await lab.records(lab.topics.dead_letter(lab.topics.impression_requests), 3)
        assert await worker.drain() == 0

    assert _ids(answers) == Counter(f"r{number}" for number in range(100))
    assert {score.made_by for scores in answers for score in scores.scores} <= {"confident", "final", "deadline"}
    assert len(letters) == 3


async def test_a_worker_killed_in_mid_stream_loses_nothing(lab, log):
    """Its successor answers all that was not committed; nothing is missing, repeats carry the same request id."""
    settings = lab.settings()
    with lab.process(settings, log) as worker:
        await worker.ready()
        await lab.ask(*requests(300))
        await lab.scores(1)
        worker.kill()
    with lab.process(settings, log):
        wanted = {f"r{number}" for number in range(300)}
        answers = await _until_answered(lab, wanted)

    assert set(_ids(answers)) == wanted


async def test_exactly_once_neither_loses_nor_repeats(lab, log):
    """Killed in mid-stream and started anew, read committed: one record of scores per request."""
    settings = lab.settings(kafka={"delivery": "exactly_once"})
    with lab.process(settings, log) as worker:
        await worker.ready()
        await lab.ask(*requests(300))
        await lab.scores(1)
        worker.kill()
    with lab.process(settings, log) as worker:
        wanted = {f"r{number}" for number in range(300)}
        await _until_answered(lab, wanted)
        assert await worker.drain() == 0
    answers = await lab.scores(300)

    assert _ids(answers) == Counter(wanted)


async def test_two_workers_share_the_requests_and_one_takes_over(lab, tmp_path):
    """Both work; when one leaves, the other answers everything, and nothing is lost on the way."""
    settings = lab.settings()
    with (
        lab.process(settings, tmp_path / "first.log") as first,
        lab.process(settings, tmp_path / "second.log") as second,
    ):
        await first.ready()
        await second.ready()
        await lab.ask(*requests(200))
        await _until_answered(lab, {f"r{number}" for number in range(200)})
        assert b'"event": "request"' in (tmp_path / "first.log").read_bytes()
        assert b'"event": "request"' in (tmp_path / "second.log").read_bytes()
        await lab.ask(*requests(200, first=200))
        assert await first.drain() == 0
        answers = await _until_answered(lab, {f"r{number}" for number in range(400)})

    assert len(_ids(answers)) == 400


async def test_offsets_are_committed_after_delivery(lab, log):
    """After an orderly end the group has nothing left to read."""
    settings = lab.settings()
    with lab.process(settings, log) as worker:
        await worker.ready()
        await lab.ask(*requests(50))
        await lab.scores(50)
        assert await worker.drain() == 0
    source = RecordSource(settings.kafka, [lab.topics.impression_requests], settings.worker.group_id)
    await source.start()
    try:
        assert sum((await source.lag()).values()) == 0
    finally:
        await source.stop()


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
async def test_a_record_that_kills_the_process_becomes_a_dead_letter_and_all_others_are_answered(lab, log, guarantee):
    """In the midst of others, whoever takes over: after three deaths it is found, and no other is given up for it."""
    settings = lab.settings(kafka={"delivery": guarantee}, budget_ms=600_000)  # a late one would not reach the model
    deadly = requests(1, request_id="deadly", user_id="deadly")
    await lab.ask(*requests(60), *deadly, *requests(60, first=60))
    topic, wanted = lab.topics.dead_letter(lab.topics.impression_requests), {f"r{number}" for number in range(120)}
    deaths, answers = 0, []
    while not answers and deaths < 5:
        with lab.process(settings, log, [str(DEADLY_WORKER), "deadly"]) as worker:
            letters = asyncio.create_task(lab.records(topic, 1))
            await until(lambda worker=worker, letters=letters: worker.is_dead or letters.done())
            if worker.is_dead:
                letters.cancel()
                deaths += 1
                continue
            answers = await _until_answered(lab, wanted)
            assert await worker.drain() == 0

    assert deaths == 3
    [letter] = await lab.records(topic, 1)
    assert letter.value == encode(deadly[0])
    assert b"died twice" in dict(letter.headers)[REASON]
    assert set(_ids(answers)) == wanted
    if guarantee == "exactly_once":
        assert _ids(answers) == Counter(wanted)


async def _until_answered(lab, wanted):
    """All scores, once every request has some."""
    answers = []
    count = len(wanted)
    while not wanted <= {scores.request_id for scores in answers}:
        answers = await lab.scores(count)
        count = len(answers) + 1
    return answers


async def test_a_worker_asked_to_stop_within_a_backlog_repeats_nothing(lab):
    """Fresh requests are answered before old ones; it reads the old ones to their end before it leaves, so that all
    count as done.
    """
    settings = lab.settings(budget_ms=200, max_candidates=10)
    await lab.ask(*requests(OLD))
    await asyncio.sleep(1)
    await lab.ask(*requests(20, first=OLD))
    async with lab.worker(settings):
        await lab.scores(1)
    async with lab.worker(settings):
        await lab.scores(OLD + 20)
    answers = await lab.scores(OLD + 20)
    assert sorted(scores.request_id for scores in answers) == sorted(f"r{number}" for number in range(OLD + 20))


async def test_a_worker_waits_for_the_updater_to_run_its_bundle(lab, tiny_bundle):
    """While embeddings are of another bundle it is not ready, says why, and leaves requests to those who are."""
    generator = np.random.default_rng(7)
    states = [user_state(number, generator) for number in range(10, 20)]  # whom nobody knows yet
    for state in states:
        await lab.tell(in_space(state, "another"))
    service, stopping = Service(lab.settings(), threads=1), asyncio.Event()
    serving = asyncio.create_task(service.main(stopping))
    try:
        await until(lambda: "are of another bundle" in service.readiness.reasons().get("tables", ""))
        await lab.ask(*requests(5))
        for state in states:
            await lab.tell(in_space(state, tiny_bundle.space))
        await until(lambda: service.readiness.is_ready or serving.done())
        assert _ids(await lab.scores(5)) == Counter(f"r{number}" for number in range(5))
    finally:
        stopping.set()
        await serving


async def test_a_shadow_scores_beside_those_who_serve(lab, tiny_bundle, tmp_path):
    """Another bundle, the same requests: every one is served once by the first, and the share is compared.

    What came before the shadow is not scored by it.
    """
    other = with_other_scores(tiny_bundle).save(tmp_path / "other")
    settings = lab.settings()
    shadow = settings.worker.model_copy(update={"bundle": str(tmp_path / "other"), "shadow_share": 0.5})
    async with lab.worker(settings):
        await lab.ask(*requests(20))
        await lab.scores(20)
        async with lab.worker(settings.model_copy(update={"worker": shadow})) as service:
            await lab.ask(*requests(100, first=20), junk=3)
            answers = await lab.scores(120)
            wanted = {f"r{number}" for number in range(20, 120) if is_in_share(f"r{number}", 0.5)}
            compared = await lab.scores(len(wanted), lab.topics.shadow_scores)
            letters = await lab.records(lab.topics.dead_letter(lab.topics.impression_requests), 3)
            await until(lambda: service.metrics.value("exitstream_worker_live_waiting_scores") == 3 * len(wanted))

    assert _ids(answers) == Counter(f"r{number}" for number in range(120))
    assert {scores.model_version for scores in answers} == {tiny_bundle.version}
    assert _ids(compared) == Counter(wanted)
    assert {scores.model_version for scores in compared} == {other.version}
    assert len(letters) == 3
