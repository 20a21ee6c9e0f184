"""What the updater makes of lost snapshots, expired records, topics made again and a broker that is away."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from kafka_admin import expire, make_again
from structlog.testing import capture_logs
from updater_contract import clicks
from updater_parts import click
from updater_world import EXACT, UpdaterWorld

from graph_updater.graph.base_embeddings import bundled_base
from graph_updater.state.updater_state import UpdaterState
from schemas.messages import Item

pytestmark = pytest.mark.slow


@pytest.fixture
async def world(broker, tiny_bundle, tiny_bundle_folder, tmp_path):
    """Topics of this test alone."""
    world = UpdaterWorld(broker, tiny_bundle, tiny_bundle_folder, tmp_path)
    await world.create()
    yield world
    await world.published.stop()


def plain(count, first=0):
    """Interactions without withdrawals, few enough per user to stay in the histories."""
    return [click(f"u{n % 10}", f"i{(n * 7 + n // 10) % 25}", n, event_id=f"e{n}") for n in range(first, first + count)]


def counts(world):
    """Interactions counted per published id."""
    return {
        (topic, name): state.impressions
        for topic, states in world.published.states.items()
        for name, state in states.items()
    }


async def test_lost_snapshots_and_expired_records_cost_nothing(world, broker):
    """The compacted topics have the histories and counts: every state is as if nothing had happened."""
    async with world.running():
        await world.send(*plain(100), b"rubbish")
        await world.published.until_equal()
    before = counts(world)
    await expire(broker, world.topics.interactions)
    shutil.rmtree(world.snapshots)
    await world.send(*plain(50, first=100))

    async with world.running():
        await world.published.until_equal()
        after = counts(world)

    assert all(after[name] >= count for name, count in before.items())
    assert len(world.published.dead_letters) == 1


async def test_a_snapshot_whose_next_records_expired_is_continued(world, broker):
    """What a later leader published of them is taken over; nothing is lost, nothing counts twice."""
    async with world.running():
        await world.send(*plain(60))
        await world.published.until_equal()
    old = world.snapshots.with_name("old")
    shutil.copytree(world.snapshots, old)
    async with world.running():
        await world.send(*plain(60, first=60))
        await world.published.until_equal()
    await expire(broker, world.topics.interactions)
    await world.send(*plain(30, first=120))

    async with world.running(snapshots=str(old)) as running:
        await world.published.until_equal()

    assert running.updater.metrics.value("exitstream_updater_gap_records_total") in (None, 0)


async def test_records_that_nobody_read_are_counted_as_a_gap(world, broker):
    """They are lost, which is told; everything before and after them has its effect."""
    async with world.running():
        await world.send(*plain(60))
        await world.published.until_equal()
    reference, world.reference = world.reference, UpdaterState(EXACT, bundled_base(*bundle_parts(world)))
    await world.send(*plain(40, first=60))
    world.reference = reference
    await expire(broker, world.topics.interactions)
    await world.send(*plain(30, first=100))

    with capture_logs() as logs:
        async with world.running() as running:
            await world.published.until_equal()

    gap = running.updater.metrics.value("exitstream_updater_gap_records_total", topic=world.topics.interactions)
    assert gap >= 40  # and the markers of transactions, where there are some
    assert any(line["event"].startswith("records expired before they were read") for line in logs)


async def test_topics_made_again_begin_anew_although_a_snapshot_is_there(world, broker, tiny_bundle):
    """Offsets of the former topics count nothing in the new ones: every interaction of these is counted once."""
    async with world.running():
        await world.send(*plain(80))
        await world.published.until_equal()
    topics = [spec.name for spec in world.topics.specs()]
    await world.published.stop()
    await make_again(broker, topics, world.topics.specs())
    again = UpdaterWorld(broker, tiny_bundle, world.bundle_folder, world.snapshots.parent)
    again.topics, again.group_id = world.topics, world.group_id
    again.published = type(again.published)(again)
    world.published = again.published
    await again.published.start()
    await again.send(*clicks(150, first=500))

    async with again.running():
        await again.published.until_equal()
        assert len(again.published.states[again.topics.user_states]) == 10


async def test_interactions_made_again_under_a_running_updater_are_read_from_their_beginning(world, broker):
    """Histories and counts stay, new interactions come on top, and the updater never ends."""
    async with world.running() as running:
        await world.send(*plain(80))
        await world.published.until_equal()
        specs = [spec for spec in world.topics.specs() if spec.name == world.topics.interactions]
        await make_again(broker, [world.topics.interactions], specs)
        await world.send(*plain(120, first=80))
        await world.published.until_equal()
        assert running.updater.metrics.value("exitstream_updater_rebuilds_total") == 1


async def test_states_made_again_under_a_running_updater_are_published_again(world, broker):
    """Whoever starts afterwards finds every state in the topic."""
    async with world.running():
        await world.send(*plain(80))
        await world.published.until_equal()
        specs = [spec for spec in world.topics.specs() if spec.name == world.topics.user_states]
        await world.published.stop()
        await make_again(broker, [world.topics.user_states], specs)
        world.published = type(world.published)(world)
        await world.published.start()
        await world.published.until_equal()


async def test_killed_in_the_middle_of_a_large_publication_it_goes_on(world):
    """Thousands of states in several transactions, killed between them: in the end all are as if undisturbed."""
    await world.send(*(click(f"u{n}", f"i{n % 25}", n, event_id=f"e{n}") for n in range(12_000)))
    for _ in range(2):
        with world.process() as updater:
            seen = world.published.records
            await world.published.until(lambda seen=seen: world.published.records > seen)
            updater.kill()

    with world.process() as updater:
        await world.published.until(lambda: len(world.published.states[world.topics.user_states]) == 12_000)
        await world.send(click("last", "apart", 20_000))  # all else may have been published before
        await world.published.until_equal()
        assert updater.terminate() == 0


def bundle_parts(world):
    """Graph and text of the world's bundle."""
    from models.bundle_files import GraphPart  # noqa: PLC0415 - only here

    bundle = GraphPart.load(world.bundle_folder)
    return bundle.graph, bundle.text


async def test_another_bundle_makes_all_embeddings_anew_and_keeps_everything_else(world, tiny_bundle, tmp_path):
    """Edges, histories and counts go on from the snapshot; items unknown to the bundle get their text's embedding."""
    async with world.running():
        await world.send(Item(item_id="i22", title="title number 3"), *plain(100))
        await world.published.until_equal()
    versions = world.published.versions()
    generator = np.random.default_rng(11)
    vectors = generator.normal(size=tiny_bundle.graph.item_embeddings.shape).astype(np.float32)
    other = replace(tiny_bundle, graph=replace(tiny_bundle.graph, item_embeddings=vectors))
    other.save(tmp_path / "other")
    world.reference = UpdaterState(EXACT, bundled_base(other.graph, other.text))
    world.reference.apply_items([Item(item_id="i22", title="title number 3")])
    world.reference.apply(plain(100))

    async with world.running(bundle=str(tmp_path / "other")):
        await world.published.until_equal()
        await world.send(*plain(50, first=100))
        await world.published.until_equal()

    assert {state.embedding.space for states in world.published.states.values() for state in states.values()} == {
        other.space
    }
    assert all(world.published.versions()[name] > version for name, version in versions.items())
