"""Updaters that share the users, on real Kafka: together they publish what one would, also when one of them dies."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from dataclasses import replace

import numpy as np
import pytest
from updater_parts import click
from updater_world import UpdaterWorld

from graph_updater.partitions import own_partitions
from runtime.errors import SettingsError
from runtime.kafka import create_missing_topics, partition_of, require_topics
from schemas.messages import Item

SHARDS = 2


def clicks(count, first=0):
    """Interactions without a pattern: where items are all alike, an embedding gets longer without turning, for which
    nothing is published.
    """
    draw = random.Random(first)
    kinds = ["click"] * 9 + ["removal"]
    return [
        click(f"u{draw.randrange(10)}", f"i{draw.randrange(25)}", n, event_id=f"e{n}", kind=draw.choice(kinds))
        for n in range(first, first + count)
    ]


def of_shard(world, number):
    """The users of a shard, of the ten."""
    count = world.topics.partitions
    return [f"u{n}" for n in range(10) if partition_of(f"u{n}".encode(), count) % SHARDS == number]


@pytest.fixture
async def world(broker, tiny_bundle, tiny_bundle_folder, tmp_path):
    """Topics of this test alone."""
    world = UpdaterWorld(broker, tiny_bundle, tiny_bundle_folder, tmp_path)
    await world.create()
    yield world
    await world.published.stop()


@contextlib.asynccontextmanager
async def shards(world, *numbers, **changes):
    """Updaters of these shards, in this process."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                world.running(f"shard-{number}", shards=SHARDS, shard=number, parts_interval_ms=20, **changes)
            )
            for number in numbers
        ]


async def test_two_shards_publish_what_one_updater_would(world):
    """Every state is the reference's: users from their shard alone, each item from one of them; refused records too."""
    async with shards(world, 0, 1) as (first, second):
        await world.send(Item(item_id="i22", title="title number 3"), *clicks(100), b"rubbish")
        await world.published.until_equal()
        await world.send(*clicks(60, first=100))
        await world.published.until_equal()
        await world.published.until(lambda: world.published.dead_letters)
    metrics = [one.updater.metrics for one in (first, second)]
    taken = [one.value("exitstream_updater_interactions_total") for one in metrics]
    assert sum(taken) == 160
    assert all(taken)
    assert all(one.value("exitstream_updater_parts_received_total") for one in metrics)
    assert len(world.published.dead_letters) == 1


async def test_what_is_at_rest_stays_at_rest(world):
    """Shards do not answer each other for ever."""
    async with shards(world, 0, 1):
        await world.send(*clicks(80))
        await world.published.until_equal()
        await world.published.quiet(2.0)
        assert await world.published.quiet(1.5) == 0


async def test_a_shards_death_stops_only_its_users_until_its_standby_leads(world):
    """The other shard publishes on meanwhile; then the standby goes on, and nothing is lost or counted twice."""
    common = {"shards": SHARDS, "parts_interval_ms": 20}
    async with shards(world, 0):
        with world.process(shard=1, **common) as leader:
            await world.send(*clicks(80))
            await world.published.until_equal()
            with world.process(shard=1, **common):
                await asyncio.sleep(8)  # it catches up and stands by
                leader.kill()
                survivor = of_shard(world, 0)[0]
                await world.send(click(survivor, "i3", 500, event_id="while one is dead"))
                states = world.published.states[world.topics.user_states]
                await world.published.until(lambda: states[survivor].recent[-1].event_id == "while one is dead", 4.0)
                await world.send(*clicks(40, first=80))
                await world.published.until_equal()
                await world.send(*clicks(20, first=120))
                await world.published.until_equal()


async def test_shards_begin_again_from_snapshots_and_from_the_topics(world):
    """Both end; one has lost its snapshots. They go on where they were, and publish no state again."""
    async with shards(world, 0, 1):
        await world.send(*clicks(100))
        await world.published.until_equal()
        await asyncio.sleep(1.0)
    shutil.rmtree(world.snapshots / "1-of-2")
    before = world.published.versions()
    async with shards(world, 0, 1) as running:
        await world.published.until(lambda: all(one.updater.readiness.is_ready for one in running))
        await world.published.quiet(1.0)
        after = world.published.versions()
        items = {name for topic, name in before if topic == world.topics.item_states}
        again = [key for key in before if after[key] != before[key]]
        assert len(again) <= len(items) // 5, again
        await world.send(*clicks(40, first=100))
        await world.published.until_equal()


async def test_another_bundle_is_gone_over_to_while_nothing_happens(world, tiny_bundle, tmp_path):
    """One shard after the other: all embeddings are those of the new bundle, and counts are what they were."""
    generator = np.random.default_rng(11)
    vectors = generator.normal(size=tiny_bundle.graph.item_embeddings.shape).astype(np.float32)
    other = replace(tiny_bundle, graph=replace(tiny_bundle.graph, item_embeddings=vectors))
    other.save(tmp_path / "other")
    async with shards(world, 0), shards(world, 1):
        await world.send(*clicks(100))
        await world.published.until_equal()
    world.expect(other)
    async with shards(world, 0, bundle=str(tmp_path / "other")):
        await world.published.quiet(2.0)
        async with shards(world, 1, bundle=str(tmp_path / "other")):
            await world.published.until_equal()
            await world.send(*clicks(40, first=100))
            await world.published.until_equal()


async def test_a_shard_new_to_the_layout_may_lose_its_snapshots(world):
    """What it counted before it was a shard is in the published states, what it counted since in what it has told."""
    async with world.running():
        await world.send(*clicks(60))
        await world.published.until_equal()
    async with shards(world, 0, 1):
        await world.send(*clicks(30, first=60))
        await world.published.until_equal()
        await asyncio.sleep(1.0)
    for number in range(SHARDS):
        shutil.rmtree(world.snapshots / f"{number}-of-2")
        async with shards(world, 0, 1):
            await world.send(*clicks(10, first=100 + 10 * number))
            await world.published.until_equal()
            await asyncio.sleep(1.0)


async def test_from_one_updater_to_two_and_back(world):
    """Another number of shards is a rebuild: states are those of all interactions again."""
    async with world.running():
        await world.send(*clicks(60))
        await world.published.until_equal()
    async with shards(world, 0, 1):
        await world.send(*clicks(30, first=60))
        await world.published.until_equal()
    async with world.running():
        await world.send(*clicks(30, first=90))
        await world.published.until_equal()


async def test_topics_that_users_cannot_be_shared_by_are_refused(world, broker):
    """Other numbers of partitions, and more shards than partitions."""
    counts = (await require_topics(broker.settings(), [world.topics.interactions, world.topics.user_states])).partitions
    assert await own_partitions(world.settings(), counts) == {}
    own = await own_partitions(world.settings(shards=2, shard=1), counts)
    assert set(own) == set(counts)
    assert [*own.values()] == [[1, 3], [1, 3]]
    with pytest.raises(SettingsError, match="5 shards would share the 4 partitions"):
        await own_partitions(world.settings(shards=5), counts)
    other = world.topics.model_copy(update={"user_states": broker.name("wide-states"), "partitions": 8})
    await create_missing_topics(broker.settings(), other.specs())
    settings = world.settings(shards=2).model_copy(update={"topics": other})
    counts = (await require_topics(broker.settings(), [other.interactions, other.user_states])).partitions
    with pytest.raises(SettingsError, match=r"updater\.shards to 1"):
        await own_partitions(settings, counts)
