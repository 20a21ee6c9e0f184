"""Worker and updater outlast a broker that is silent or restarts, and go on where they stood."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from updater_contract import clicks
from updater_world import UpdaterWorld
from worker_lab import WorkerLab, WorkerProcess, requests

from loadgen.processes import free_port
from runtime.settings import TelemetrySettings

pytestmark = pytest.mark.slow

PAUSE_S = 15.0
"""Longer than each of the time-outs below."""
QUICK = {"request_timeout_ms": 2_000, "session_timeout_ms": 6_000, "transaction_timeout_ms": 3_000}
PATIENCE_S = 60.0


class Programs:
    """A worker and an updater, each a process of its own with a status page."""

    def __init__(self, lab: WorkerLab, world: UpdaterWorld, delivery: str, folder: Path) -> None:
        self.ports = {"worker": free_port(), "updater": free_port()}
        self.log = folder / "worker.log"
        settings = lab.settings(kafka={"delivery": delivery})
        self.worker = WorkerProcess(
            {
                "EXITSTREAM_KAFKA": settings.kafka.model_dump_json(exclude_none=True, exclude_defaults=True),
                "EXITSTREAM_TOPICS": settings.topics.model_dump_json(),
                "EXITSTREAM_TELEMETRY": TelemetrySettings(http_port=self.ports["worker"]).model_dump_json(),
                "EXITSTREAM_WORKER": settings.worker.model_dump_json(exclude_none=True),
            },
            self.log,
            ("-m", "worker"),
        )
        world.telemetry = TelemetrySettings(http_port=self.ports["updater"])
        self.updater = world.process()
        self.updater_log = world.log

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.worker.__exit__(*exc_info)
        self.updater.__exit__(*exc_info)

    async def until(self, status: int, broker: str = "") -> None:
        """Waits until both status pages answer so, and where they are not ready say of the broker what is to be said.

        Args:
            status: of HTTP.
            broker: a pattern.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                for port in self.ports.values():
                    await self._until(port, status, broker)
        except TimeoutError:
            pages = {name: ready_page(port) for name, port in self.ports.items()}
            said = self.updater_log.read_text()[-2_000:]
            raise AssertionError(f"not {status} {broker} after {PATIENCE_S} s: {pages}\n{said}") from None

    async def _until(self, port, status, broker):
        while True:
            seen, body = await asyncio.to_thread(ready_page, port)
            said = body.get("reasons", {}).get("broker")
            assert "does not exist" not in (said or ""), said  # a person would look for what is there
            if seen == status and (status == 200 or (said is not None and re.search(broker, said))):
                return
            await asyncio.sleep(0.1)


def ready_page(port):
    """Status and content of a program's /readyz."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as page:
            return page.status, json.load(page)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    except OSError:
        return None, {}


class World(UpdaterWorld):
    """An updater's topics; its status page answers at a port that the test knows."""

    telemetry = TelemetrySettings()

    def settings(self, **changes):
        """As everywhere, with the status page."""
        return super().settings(**changes).model_copy(update={"telemetry": self.telemetry})


@pytest.fixture(scope="module")
def kafka_container(docker_engine):  # noqa: ARG001 - skips where there is no Docker
    """A broker of these tests alone: the other tests' one has thousands of partitions to elect leaders for."""
    from loadgen.kafka_container import KafkaContainer  # noqa: PLC0415 - needs testcontainers, which needs Docker

    with KafkaContainer() as container:
        yield container


@pytest.fixture
def quick(broker):
    """The real broker, for clients whose time-outs are short."""
    return dataclasses.replace(broker, more=QUICK)


@pytest.fixture
async def world(quick, tiny_bundle, tiny_bundle_folder, tmp_path):
    """The updater's topics."""
    world = World(quick, tiny_bundle, tiny_bundle_folder, tmp_path)
    await world.create()
    yield world
    await world.published.stop()


@pytest.fixture
async def lab(quick, tiny_bundle_folder):
    """The worker's topics."""
    lab = WorkerLab(quick, tiny_bundle_folder)
    await lab.prepare()
    return lab


async def pause(kafka, programs):
    """Silent for longer than every time-out; both programs say so meanwhile."""
    await asyncio.to_thread(kafka.pause)
    try:
        over = asyncio.get_running_loop().time() + PAUSE_S
        await programs.until(503, "no answer in time|no connection to the broker|its coordinator does not answer")
        await asyncio.sleep(over - asyncio.get_running_loop().time())
    finally:
        await asyncio.to_thread(kafka.resume)


async def restart(kafka, _):
    """Down for some seconds, then back at the same address."""
    await asyncio.to_thread(kafka.restart)


@pytest.mark.parametrize("outage", [pause, restart])
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_worker_and_updater_outlast_an_outage(lab, world, kafka_container, delivery, outage, tmp_path):
    """Every request gets its answer and every interaction its effect, exactly once where promised."""
    with Programs(lab, world, delivery, tmp_path) as programs:
        await programs.until(200)
        await lab.ask(*requests(50))
        await world.send(*clicks(100), b"rubbish one")
        await outage(kafka_container, programs)
        await programs.until(200)
        await lab.ask(*requests(50, first=50))
        await world.send(*clicks(100, first=100), b"rubbish two")
        wanted = {f"r{number}" for number in range(100)}
        answers = []
        async with asyncio.timeout(PATIENCE_S):
            while not wanted <= {scores.request_id for scores in answers}:
                answers = await lab.scores(len(wanted))
        await world.published.until_equal()
        await world.published.until(lambda: len(world.published.dead_letters) >= 2)
        assert await programs.worker.drain() == 0
        assert programs.updater.terminate() == 0
    if delivery == "exactly_once":
        assert Counter(scores.request_id for scores in await lab.scores(100)) == Counter(wanted)
    assert len(world.published.dead_letters) == 2
    assert programs.log.read_text().count("waiting for the broker") <= 3


async def test_an_updater_waits_for_a_broker_that_is_away(
    broker, kafka_container, tiny_bundle, tiny_bundle_folder, tmp_path
):
    """Frozen for longer than the usual session time-out: the same process goes on, without a loss, where it stood."""
    world = UpdaterWorld(broker, tiny_bundle, tiny_bundle_folder, tmp_path)
    await world.create()
    with world.process() as updater:
        await world.send(*clicks(60), b"rubbish")
        await world.published.until_equal()
        await asyncio.to_thread(kafka_container.pause)
        await asyncio.sleep(25)
        await asyncio.to_thread(kafka_container.resume)
        await world.send(*clicks(60, first=60), b"more rubbish")
        await world.published.until_equal()
        await world.published.until(lambda: len(world.published.dead_letters) >= 2)
        assert updater.child.poll() is None
    await world.published.stop()
    assert len(world.published.dead_letters) == 2
