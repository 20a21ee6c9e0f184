"""A release of another bundle while updaters run: every state ends in its space, and no interaction counts twice."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs
from updater_contract import clicks
from updater_parts import click
from updater_world import UpdaterWorld

from graph_updater.recovery import SNAPSHOT_KIND
from graph_updater.state.snapshot_checks import SNAPSHOT_VERSION
from models.bundle_store import BundleStore
from runtime.snapshots import SnapshotStore
from schemas.messages import Item

pytestmark = pytest.mark.slow


@pytest.fixture
async def world(broker, tiny_bundle, tiny_bundle_folder, tmp_path):
    """Topics of this test alone."""
    world = UpdaterWorld(broker, tiny_bundle, tiny_bundle_folder, tmp_path)
    await world.create()
    yield world
    await world.published.stop()


@pytest.fixture
def other_bundle(tiny_bundle, tmp_path):
    """A bundle of another space, in the folder `other`."""
    vectors = np.random.default_rng(11).normal(size=tiny_bundle.graph.item_embeddings.shape).astype(np.float32)
    return replace(tiny_bundle, graph=replace(tiny_bundle.graph, item_embeddings=vectors)).save(tmp_path / "other")


async def test_a_standby_with_another_bundle_publishes_everything_when_it_leads(world, other_bundle, tmp_path):
    """The leader at work beside it has published in its own space only, idle ids never again."""
    changes = {"bundle": str(tmp_path / "other"), "snapshots": str(tmp_path / "standby")}
    async with world.running("a leader") as leader:
        await world.send(Item(item_id="i22", title="title number 3"), *clicks(100), b"rubbish one")
        await world.published.until_equal()
        async with world.running("the standby", **changes) as standby:
            await world.published.until(lambda: standby.updater.readiness.is_ready)
            for number in range(4):  # its offsets are seen to advance
                await world.send(click("u3", "i3", 200 + number), b"rubbish %d" % number)
                await world.published.until_equal()
                await world.published.quiet(1.2)
            await leader.drain()
            world.expect(other_bundle)
            await world.published.until_equal()
            assert world.published.spaces() == {other_bundle.space}
    assert await world.published.quiet() == 0
    assert len(world.published.dead_letters) == 5


@pytest.fixture
def store(tmp_path, tiny_bundle, tiny_bundle_folder, other_bundle):
    """A store with both versions; the first one is current."""
    store = BundleStore(tmp_path / "store")
    for folder in (tiny_bundle_folder, tmp_path / "other"):
        store.put(folder)
    assert {one.version for one in store.versions()} == {tiny_bundle.version, other_bundle.version}
    store.promote(tiny_bundle.version, "test")
    return store


@contextlib.asynccontextmanager
async def traffic(world, first, pause_s=0.03):
    """Interactions, one after the other, while the block runs; records that cannot be read now and then."""
    enough = asyncio.Event()

    async def send():
        for number in itertools.count(first):
            if enough.is_set():
                return
            await world.send(*clicks(1, first=number), *([b"rubbish %d" % number] if number % 20 == 0 else ()))
            await asyncio.sleep(pause_s)

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        enough.set()  # not cancelled: the reference has been told what is on its way
        await sending


def changed(running):
    """How many versions of the bundle an updater has taken over."""
    return running.updater.metrics.value("exitstream_updater_bundle_changes_total") or 0


async def test_a_promotion_and_a_rollback_are_followed_with_traffic_going_on(world, tiny_bundle, other_bundle, store):
    """There and back, no interaction is lost or counted twice and no dead letter comes twice."""
    async with world.running(bundle=store.address, bundle_check_s=0.2) as running:
        await world.send(Item(item_id="i22", title="title number 3"), *clicks(100))
        await world.published.until_equal()
        async with traffic(world, 100):
            store.promote(other_bundle.version, "test")
            await world.published.until(lambda: world.published.spaces() == {other_bundle.space})
            await world.published.quiet(1.0)
        world.expect(other_bundle)
        await world.published.until_equal()
        assert running.updater.readiness.is_ready
        async with traffic(world, 10_000):
            store.roll_back("test")
            await world.published.until(lambda: world.published.spaces() == {tiny_bundle.space})
            await world.published.quiet(1.0)
        world.expect(tiny_bundle)
        await world.published.until_equal()
        letters = sum(isinstance(message, bytes) for message in world.told)
        await world.published.until(lambda: len(world.published.dead_letters) >= letters)
        await world.published.quiet(1.0)  # equal but for rounding is not yet all
        assert changed(running) == 2
    assert await world.published.quiet() == 0
    assert len(world.published.dead_letters) == letters
    async with world.running(bundle=store.address):  # the last snapshot is of the state as it was published
        assert await world.published.quiet(2.0) == 0


async def test_two_updaters_follow_a_promotion_one_after_the_other(world, other_bundle, store, tmp_path):
    """Whichever leads meanwhile, in the end every state is of the new space and no interaction counts twice."""
    changes = {"bundle": store.address, "snapshots": str(tmp_path / "second")}
    async with (
        world.running(bundle=store.address, bundle_check_s=0.2) as first,
        world.running(**changes, bundle_check_s=2.0) as second,
    ):
        await world.send(Item(item_id="i22", title="title number 3"), *clicks(100))
        await world.published.until_equal()
        async with traffic(world, 100):
            store.promote(other_bundle.version, "test")
            await world.published.until(lambda: changed(first) and changed(second))
            await world.published.until(lambda: world.published.spaces() == {other_bundle.space})
        world.expect(other_bundle)
        await world.published.until_equal()
        letters = sum(isinstance(message, bytes) for message in world.told)
        await world.published.until(lambda: len(world.published.dead_letters) >= letters)
        await world.published.quiet(1.0)  # equal but for rounding is not yet all
    assert await world.published.quiet() == 0
    assert len(world.published.dead_letters) == letters


async def test_a_leader_of_the_former_bundle_leaves_nothing_of_its_space(
    world, tiny_bundle, tiny_bundle_folder, other_bundle, tmp_path
):
    """What it overwrites of the new bundle's states is published again by a standby that had none left to publish."""
    async with world.running("the new one", bundle=str(tmp_path / "other")):
        world.expect(other_bundle)
        await world.send(*clicks(100), b"rubbish one")
        await world.published.until_equal()
        changes = {"bundle": str(tiny_bundle_folder), "snapshots": str(tmp_path / "former")}
        async with world.running("a former one", **changes):
            world.expect(tiny_bundle)
            await world.published.until_equal()
            await world.send(*clicks(10, first=100), b"rubbish two")
            await world.published.until_equal()
            assert world.published.spaces() == {tiny_bundle.space}
        world.expect(other_bundle)
        await world.published.until_equal()
        assert world.published.spaces() == {other_bundle.space}
    assert await world.published.quiet() == 0
    assert len(world.published.dead_letters) == 2


async def test_a_bundle_of_the_same_graph_changes_nothing_but_the_version(world, tiny_bundle, store, tmp_path):
    """Nothing is published again; the next snapshot tells the new version."""
    calibration = replace(tiny_bundle.calibration, tolerance=0.2)
    version, _ = store.put(save(replace(tiny_bundle, calibration=calibration), tmp_path / "same"))
    async with world.running(bundle=store.address, bundle_check_s=0.2) as running:
        await world.send(*clicks(50))
        await world.published.until_equal()
        store.promote(version, "test")
        await world.published.until(lambda: changed(running))
        assert await world.published.quiet(1.0) == 0
        await world.send(*clicks(50, first=50))
        await world.published.until_equal()

    newest = SnapshotStore(str(world.snapshots), kind=SNAPSHOT_KIND, version=SNAPSHOT_VERSION).load_latest_now()
    assert newest.metadata["origin"]["model_version"] == version


async def test_a_damaged_version_is_refused_and_the_former_one_goes_on(world, other_bundle, store):
    """One line says why, a metric counts it, and the next promotion that can be loaded is taken over."""
    damaged = store_file(store, other_bundle.version, "graph.safetensors")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    async with world.running(bundle=store.address, bundle_check_s=0.2) as running:
        await world.send(*clicks(50))
        await world.published.until_equal()
        with capture_logs() as logs:
            store.promote(other_bundle.version, "test")
            await world.published.until(lambda: refused(running))
            await world.send(*clicks(50, first=50))
            await world.published.until_equal()
            await world.published.quiet(1.0)
        assert refused(running) == 1
        (line,) = [line for line in logs if line["log_level"] == "error"]
        assert "graph.safetensors" in line["cause"]
        store.roll_back("test")
        damaged.write_bytes(content)
        await world.published.quiet(1.0)
        store.promote(other_bundle.version, "test")
        world.expect(other_bundle)
        await world.published.until_equal()


async def test_an_updater_asked_to_stop_while_it_goes_over_ends_in_order(world, store, other_bundle):
    """Whatever it is doing at that moment, its exit status is 0 and the next one brings every state about."""
    for number, pause_s in enumerate((0.0, 0.15, 0.3, 0.6)):
        led = leaders(world)
        with world.process(bundle=store.address, bundle_check_s=0.2) as updater:
            await world.send(*clicks(50, first=50 * number))
            await world.published.until(lambda led=led: leaders(world) > led)
            store.promote(other_bundle.version, "test") if number % 2 == 0 else store.roll_back("test")
            await asyncio.sleep(0.2 + pause_s)
            assert updater.terminate() == 0
    async with world.running(bundle=store.address):
        await world.published.until_equal()


def leaders(world):
    """How often a process has begun to lead so far."""
    return world.log.read_text().count("leading: publishing from now on") if world.log.exists() else 0


def save(bundle, folder):
    """Saves a bundle; its folder."""
    bundle.save(folder)
    return folder


def store_file(store, version, name):
    """A file of a version in a store on the disk."""
    return Path(store.address) / "versions" / version / name


def refused(running):
    """How many times a version could not be loaded."""
    return running.updater.metrics.value("exitstream_updater_refused_bundles_total") or 0
