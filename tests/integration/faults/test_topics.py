"""Topics that lose records, are made again or grow, and disks that fill up: the updater's states stay whole."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections import Counter

import pytest
import pytest_asyncio
from brokers import TestBroker
from updater_contract import clicks
from updater_world import HEADERS, UpdaterWorld
from worker_lab import WorkerLab, requests

from loadgen.fault_site import MODES
from runtime.kafka import RecordSink, create_missing_topics
from runtime.records import OutRecord
from schemas.codec import encode

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]
DISK_BYTES = 400_000


@pytest_asyncio.fixture(loop_scope="session")
async def world(one_broker_cluster, tiny_bundle, tiny_bundle_folder, tmp_path):
    """Topics of this test alone."""
    broker = TestBroker(one_broker_cluster.bootstrap_servers, f"topics-{tmp_path.name}")
    world = UpdaterWorld(broker, tiny_bundle, tiny_bundle_folder, tmp_path)
    await world.create()
    yield world
    await world.published.stop()


@pytest.fixture
def tool(one_broker_cluster):
    """Kafka's own commands."""
    return one_broker_cluster.brokers[0].run_tool


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for a few snapshots."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


async def test_a_topic_deleted_and_made_again(world, tool):
    """What the old one held stays counted, and all of the new one is, though its offsets begin anew."""
    async with world.running():
        await world.send(*clicks(100))
        await world.published.until_equal()
    await _make_again(world, tool, world.topics.interactions)
    await world.send(*clicks(300, first=100))
    async with world.running():
        await world.published.until_equal()


async def test_records_deleted_before_they_were_read(world, tool):
    """What is gone is gone; everything counted before stays counted, and what is kept is read."""
    async with world.running():
        await world.send(*clicks(100))
        await world.published.until_equal()
    await _send_untold(world, clicks(40, first=100))
    _delete_all_records(tool, world.topics.interactions)
    async with world.running():
        await world.send(*clicks(50, first=140))
        await world.published.until_equal()


@pytest.mark.parametrize("mode", MODES)
async def test_requests_deleted_before_they_were_read(one_broker_cluster, tiny_bundle_folder, tool, mode):
    """A worker whose committed offsets are gone goes on with what is kept; what it had answered does not come again."""
    broker = TestBroker(one_broker_cluster.bootstrap_servers, f"expired-{mode}")
    lab = WorkerLab(broker, tiny_bundle_folder)
    await lab.prepare()
    settings = lab.settings(kafka={"delivery": mode})
    async with lab.worker(settings):
        await lab.ask(*requests(40))
        await lab.scores(40)
    await lab.ask(*requests(40, first=40))
    _delete_all_records(tool, lab.topics.impression_requests)
    async with lab.worker(settings):
        await lab.ask(*requests(40, first=80))
        answers = Counter(scores.request_id for scores in await lab.scores(80))
    assert answers == Counter(f"r{number}" for number in (*range(40), *range(80, 120)))


async def test_partitions_added(world, tool):
    """An updater that restarts reads the new ones from their beginning."""
    async with world.running():
        await world.send(*clicks(100))
        await world.published.until_equal()
    tool("kafka-topics", "--alter", "--topic", world.topics.interactions, "--partitions", "7")
    await world.send(*clicks(100, first=100))
    async with world.running():
        await world.published.until_equal()
        await world.send(*clicks(100, first=200))
        await world.published.until_equal()


async def test_a_disk_that_is_full_while_snapshots_are_written(world, small_disk):
    """The updater goes on publishing; once there is room it writes snapshots again, and recovers from one."""
    snapshots = small_disk / "snapshots"
    with world.process(snapshots=str(snapshots)) as updater:
        await world.send(*clicks(50))
        await world.published.until_equal()
        await _until(lambda: list(snapshots.glob("*")))
        _fill(small_disk / "filler")
        await world.send(*clicks(50, first=50))
        await world.published.until_equal()
        await asyncio.sleep(1.5)  # several snapshots are due meanwhile
        assert updater.child.poll() is None
        (small_disk / "filler").unlink()
        before = set(snapshots.rglob("*"))
        await world.send(*clicks(50, first=100))
        await world.published.until_equal()
        await _until(lambda: set(snapshots.rglob("*")) - before)
        updater.kill()
    assert "no snapshot was written" in world.log.read_text()
    with world.process(snapshots=str(snapshots)):
        await world.send(*clicks(50, first=150))
        await world.published.until_equal()


def _fill(path):
    """Takes all the room that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4_096)
        except OSError:
            return


async def _until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.1)


async def _make_again(world, tool, topic):
    tool("kafka-topics", "--delete", "--topic", topic)
    await _until(lambda: topic not in tool("kafka-topics", "--list").split())
    await create_missing_topics(world.broker.settings(), world.topics.specs())


async def _send_untold(world, messages):
    """Sends interactions of which the reference does not learn."""
    async with RecordSink(world.broker.settings()) as sink:
        for message in messages:
            await sink.send(OutRecord(world.topics.interactions, message.user_id.encode(), encode(message), HEADERS))
        await sink.flush()


def _delete_all_records(tool, topic):
    """As retention would, only at once."""
    partitions = [{"topic": topic, "partition": number, "offset": -1} for number in range(4)]
    asked = json.dumps({"partitions": partitions, "version": 1})
    tool("kafka-delete-records", "--offset-json-file", "/tmp/arguments", file=asked)
